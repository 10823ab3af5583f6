//! What a training reads: its configuration, soft targets, checkpoints.

use std::cell::RefCell;

use peregrine_core::files::sha256;
use peregrine_distill::net::{NetParams, TrainNet};
use peregrine_distill::soften::SoftTargets;
use peregrine_distill::train::checkpoint::TrainState;
use peregrine_distill::train::config::StudentConfig;
use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};

use crate::scratch::Scratch;

/// The file of a training.
pub fn config(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        if let Ok(config) = StudentConfig::parse(text) {
            drop(config.load_architecture());
            assert!(config.rate_at(0).is_finite(), "a rate that is no number");
        }
    }
}

/// Short ones.
pub fn config_seeds() -> Vec<Vec<u8>> {
    let own = "steps = 10\nbatch = 2\ndata = ['x']\n[student]\nsize = 's'\nclasses = ['car']\n[[method]]\nkind = 'ld'\nweight = 0.5\n";
    vec![own.into(), b"steps = 10\nbatch = 2\n".to_vec()]
}

/// A file of soft targets, with an index that fits it.
pub fn shard(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| {
        folder.write("0.safetensors", data);
        let index = format!(
            r#"{{"teachers": [["t", "0"]], "classes": ["car"], "segmentation": ["road"], "features": ["neck"],
                "shards": [{{"file": "0.safetensors", "sha256": "{}", "dataset": "x", "images": ["a.png"]}}]}}"#,
            sha256(data)
        );
        folder.write("index.json", index.as_bytes());
        let Ok(targets) = SoftTargets::open(folder.path()) else { return };
        let Some(found) = targets.of("x", "a.png") else { return };
        for map in found.mask.iter().chain(found.features.values()) {
            drop(map.read());
        }
    });
}

/// One image with an object, a mask and a feature.
pub fn shard_seeds() -> Vec<Vec<u8>> {
    let tensors: [(&str, &str, &[usize], usize); 6] = [
        ("boxes", "F32", &[1, 4], 4),
        ("logits", "F16", &[1, 1], 2),
        ("ends", "U32", &[1], 4),
        ("segmentation.0", "F16", &[1, 2, 2], 2),
        ("feature.neck.0", "F16", &[3, 1, 2], 2),
        ("place.neck", "F32", &[1, 4], 4),
    ];
    let (mut header, mut bytes) = (Vec::new(), Vec::new());
    for (name, dtype, shape, size) in tensors {
        let start = bytes.len();
        bytes.resize(start + size * shape.iter().product::<usize>(), 0u8);
        if name == "ends" {
            bytes[start] = 1;
        }
        header.push(format!(
            r#""{name}":{{"dtype":"{dtype}","shape":{shape:?},"data_offsets":[{start},{}]}}"#,
            bytes.len()
        ));
    }
    let mut header = format!("{{{}}}", header.join(","));
    header += &" ".repeat(header.len().next_multiple_of(8) - header.len());
    vec![[&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes].concat()]
}

/// A checkpoint of a training of one convolution.
pub fn checkpoint(data: &[u8]) {
    thread_local! {
        static FOLDER: Scratch = Scratch::new(&[]);
        static STATE: RefCell<TrainState> = RefCell::new(state());
    }
    FOLDER.with(|folder| {
        let path = folder.write("checkpoint.safetensors", data);
        STATE.with_borrow_mut(|state| drop(state.load(&path, None)));
    });
}

/// Before the first step.
pub fn checkpoint_seeds() -> Vec<Vec<u8>> {
    let folder = Scratch::new(&[]);
    let path = folder.path().join("checkpoint.safetensors");
    state().save(&path, "steps = 1").expect("it is saved");
    vec![std::fs::read(path).expect("it was saved")]
}

fn state() -> TrainState {
    let mut graph = Graph::new(Shape::new(1, 1, 1));
    let activation = Activation::Identity;
    let conv = Conv { kernel: 1, stride: 1, depthwise: false, activation, padding: Padding::Same };
    let out = graph.conv("out", 0, 2, conv);
    graph.outputs.push(out);
    let params = NetParams::random(&graph, 0);
    TrainState::new(TrainNet::new(graph, params, 1), &StudentConfig::default())
}
