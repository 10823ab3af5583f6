//! Student packages: manifests and weights.

use std::collections::BTreeMap;

use peregrine_core::files::sha256;
use peregrine_engine::{ConvWeights, Weights};
use peregrine_student::architecture::{DetectionHead, Input, Neck, SegmentationHead};
use peregrine_student::backbone::{Backbone, BackboneFamily, BackboneStage};
use peregrine_student::package::{deserialize, MANIFEST_FILE, WEIGHTS_FILE};
use peregrine_student::{Architecture, Manifest, SceneHead, Student};

use crate::scratch::Scratch;
use crate::tracked;

/// Where a manifest has this hash, a target puts the true one.
const HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// Weights that a manifest's target finds beside it.
const WEIGHTS: &[u8] = b"\x02\0\0\0\0\0\0\0{}";

/// A package whose weights are there, but of no network.
pub fn manifest(data: &[u8]) {
    load(data, WEIGHTS);
}

/// Of the embedded student, and of a small one.
pub fn manifest_seeds() -> Vec<Vec<u8>> {
    vec![tracked("models/peregrine-s/manifest.json"), parts(&mut small(None)).0]
}

/// A safetensors file.
pub fn weights(data: &[u8]) {
    drop(deserialize(data));
}

/// Of a small student.
pub fn weights_seeds() -> Vec<Vec<u8>> {
    [None, Some(2)].map(|bits| small(bits).weights_file()).into()
}

/// `[length of the manifest; 2]`, the manifest, the weights.
pub fn package(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk() else { return };
    let (manifest, weights) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    load(manifest, weights);
}

/// Small ones of each form.
pub fn package_seeds() -> Vec<Vec<u8>> {
    let package = |bits| {
        let (manifest, weights) = parts(&mut small(bits));
        [&(manifest.len() as u16).to_le_bytes()[..], &manifest, &weights].concat()
    };
    [None, Some(1), Some(8)].map(package).into()
}

fn load(manifest: &[u8], weights: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| {
        let text = String::from_utf8_lossy(manifest).replace(HASH, &sha256(weights));
        folder.write(MANIFEST_FILE, text.as_bytes());
        folder.write(WEIGHTS_FILE, weights);
        drop(Student::load(folder.path()));
    });
}

/// Manifest, without its hash, and weights.
fn parts(student: &mut Student) -> (Vec<u8>, Vec<u8>) {
    let folder = Scratch::new(&[]);
    student.save(folder.path()).expect("it is saved");
    let read = |name| std::fs::read(folder.path().join(name)).expect("it was saved");
    let (manifest, weights) = (String::from_utf8(read(MANIFEST_FILE)).expect("JSON"), read(WEIGHTS_FILE));
    (manifest.replace(&sha256(&weights), HASH).into_bytes(), weights)
}

/// A student of few weights, clustered in `bits`.
pub(crate) fn small(bits: Option<u8>) -> Student {
    let stage = |stride, channels| BackboneStage { blocks: 1, kernel: 3, stride, expand: 1, channels };
    let architecture = Architecture {
        input: Input { width: 32, height: 32, mean: [127.0; 3], std: [128.0; 3] },
        backbone: Backbone {
            family: BackboneFamily::default(),
            stem: 1,
            stages: vec![stage(2, 2), stage(2, 1), stage(2, 3), stage(2, 4)],
        },
        neck: Neck { channels: 4 },
        imported: None,
        detection: Some(DetectionHead { classes: vec!["car".into()], convs: 1, kernel: 3, bins: 2 }),
        segmentation: Some(SegmentationHead { classes: vec!["road".into()], channels: 2 }),
        scene: Some(SceneHead(BTreeMap::from([("light".into(), vec!["day".into(), "night".into()])]))),
        widths: BTreeMap::new(),
    };
    let graph = architecture.graph(32, 32);
    let weights = graph.convs().map(|(layer, _, shape)| {
        let weight = (0..shape.iter().product::<usize>()).map(|i| (i % 2) as f32 - 0.5).collect();
        (layer.name.clone(), ConvWeights { weight, bias: vec![0.25; shape[0]] })
    });
    let weights = Weights(weights.collect());
    let mut manifest: Manifest = Student::embedded().manifest;
    (manifest.architecture, manifest.weights.cluster_bits) = (architecture, bits);
    (manifest.accuracy, manifest.notice) = Default::default();
    Student { manifest, weights, quantization: None }
}
