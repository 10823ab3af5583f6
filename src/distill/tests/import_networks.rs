//! Networks out of ONNX files: the boxes are ONNX Runtime's, and what cannot be imported is refused.

use std::path::{Path, PathBuf};

use peregrine_core::{Detection, ImageView};
use peregrine_distill::export::check::Difference;
use peregrine_distill::export::messages::{GraphBody, Model, Node, OperatorSet, Tensor, Value};
use peregrine_distill::import::onnx::check;
use peregrine_distill::import::onnx::description::NetworkDescription;
use peregrine_distill::import::onnx::model::OnnxFile;
use peregrine_distill::import::onnx::{network, Imported};
use peregrine_distill::net::Mode;
use peregrine_distill::ranks::Ranks;
use peregrine_distill::teacher::Runtime;
use peregrine_distill::train::config::StudentConfig;
use peregrine_distill::train::init;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Op};
use peregrine_student::Student;
use peregrine_vision::decode::HeadDecoder;
use peregrine_vision::preprocess::{Letterbox, Normalisation};
use prost::Message;

/// Networks of random weights, in the layouts that exporters write (`tests/reference/networks.py`).
const NETWORKS: [&str; 6] = ["yolov8", "yolox", "yolov5", "nanodet_plus", "picodet", "centernet"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn folder() -> PathBuf {
    root().join("tests/reference/networks")
}

fn imported(name: &str, change: impl Fn(String) -> String) -> anyhow::Result<Imported> {
    let text = std::fs::read_to_string(folder().join(format!("{name}.toml")))?;
    network(&OnnxFile::read(&folder().join(format!("{name}.onnx")))?, &NetworkDescription::parse(&change(text))?)
}

/// The script's image: coloured waves, as the network takes it.
fn image(student: &Student) -> Vec<f32> {
    let input = &student.manifest.architecture.input;
    let (width, height) = (input.width, input.height);
    let value = |i: usize| {
        let (c, y, x) = (i / (width * height), i / width % height, i % width);
        let pixel = (x * (3 + c) + y * (5 - c) + x * y / 16) % 256;
        (pixel as f32 - input.mean[c]) / input.std[c]
    };
    (0..3 * width * height).map(value).collect()
}

fn boxes(student: &Student, threshold: f32) -> Vec<Detection> {
    let architecture = &student.manifest.architecture;
    let input = &architecture.input;
    let mut engine = CpuEngine::new(&student.graph(), &student.weights, 1).unwrap();
    engine.input().copy_from_slice(&image(student));
    engine.run().unwrap();
    let mut found = Vec::new();
    HeadDecoder::new(architecture, input.width, input.height).decode(|i| engine.output(i), threshold, &mut found);
    found
}

#[test]
fn boxes_of_every_kind_of_network_are_onnx_runtime_s() {
    for name in NETWORKS {
        let found = boxes(&imported(name, |text| text).unwrap().student, 0.04);
        let text = std::fs::read(folder().join(format!("{name}.json"))).unwrap();
        let expected: Vec<(usize, [f32; 5])> = serde_json::from_slice::<Vec<[f64; 6]>>(&text)
            .unwrap()
            .into_iter()
            .map(|row| (row[0] as usize, std::array::from_fn(|i| row[i + 1] as f32)))
            .collect();
        assert!(expected.len() > 20);
        for (class, [score, left, top, right, bottom]) in expected {
            let is_it = |d: &&Detection| {
                let sides = [(d.bbox.x_min, left), (d.bbox.y_min, top), (d.bbox.x_max, right), (d.bbox.y_max, bottom)];
                let apart = |(a, b): (f32, f32)| (a - b).abs() / (1.0 + 0.01 * b.abs());
                d.class == class
                    && (d.score - score).abs() < 2e-3
                    && sides.into_iter().map(apart).fold(0.0, f32::max) < 0.1
            };
            assert!(
                found.iter().any(|d| is_it(&d)),
                "{name}: class {class}, score {score}, box {:?} is not found",
                [left, top, right, bottom]
            );
        }
    }
}

#[test]
fn an_imported_package_is_read_back_as_it_was_written() {
    for name in NETWORKS {
        let mut student = imported(name, |text| text).unwrap().student;
        let folder = tempfile::tempdir().unwrap();
        student.save(folder.path()).unwrap();
        let read = Student::load(folder.path()).unwrap();
        assert_eq!(read.manifest, student.manifest, "{name}");
        assert_eq!(read.weights, student.weights, "{name}");
    }
}

#[test]
fn a_network_of_fixed_shapes_has_other_input_sizes() {
    for name in NETWORKS {
        let at = |size: &str| {
            let line = format!("input = {size}\n");
            imported(name, |text| line.clone() + &text.replace("input = [128, 96]\n", "")).map(|i| i.student)
        };
        let student = at("[192, 64]").unwrap();
        let graph = student.graph();
        assert_eq!((graph.input_shape().width, graph.input_shape().height), (192, 64));
        assert!(boxes(&student, 0.04).len() > 5, "{name}");
        let error = at("[200, 64]").unwrap_err();
        assert!(format!("{error:#}").contains("width"), "{name}: {error:#}");
    }
}

#[test]
fn convolutions_hold_what_exporters_spell_out() {
    let alone = |name: &str| -> Vec<String> {
        let graph = imported(name, |text| text).unwrap().student.graph();
        let odd = |op: &Op| matches!(op, Op::Activate(_)) || matches!(op, Op::Conv(conv) if conv.is_channelwise());
        graph.layers.iter().filter(|layer| odd(&layer.op)).map(|layer| layer.name.clone()).collect()
    };
    for name in ["yolov8", "yolox", "yolov5", "nanodet_plus", "picodet"] {
        assert_eq!(alone(name), Vec::<String>::new(), "{name}");
    }
    // A ReLU after a concatenation, and a factor that half precision has rounded before a sum.
    assert_eq!(alone("centernet").len(), 2);
}

#[test]
fn a_description_that_does_not_fit_is_refused_with_what_there_is() {
    for (name, from, to, expected) in [
        ("yolov8", "\"cone\", ", "", "with 2 classes"),
        ("yolox", "\"yolox\"", "\"yolov8\"", "no head of this family"),
        ("yolov8", "[8, 16, 32]", "[8, 16]", "[8, 16, 32]"),
        ("yolov5", "[[30.0, 61.0], [62.0, 45.0], [59.0, 119.0]],", "", "anchors"),
        ("nanodet_plus", "center = 0.0", "center = 0.0\noutputs = [\"nothing\"]", "no tensor \"nothing\""),
    ] {
        let error = format!("{:#}", imported(name, |text| text.replace(from, to)).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    }
}

/// A detector of one level with one node more, on its way to the head.
fn with_node(node: Node, more: Vec<Tensor>) -> anyhow::Result<Imported> {
    let conv = |name: &str, from: &str, weight: &str| Node::new("Conv", &[from, weight], name);
    let stem = Node::new("Conv", &["image", "stem.weight"], "stem");
    let stem = stem.ints("kernel_shape", &[3, 3]).ints("strides", &[8, 8]).ints("pads", &[1, 1, 1, 1]);
    let mut initializer = vec![
        Tensor::f32("stem.weight", &[8, 3, 3, 3], &[0.1; 216]),
        Tensor::f32("class.weight", &[1, 8, 1, 1], &[0.1; 8]),
        Tensor::f32("boxes.weight", &[4, 8, 1, 1], &[0.1; 32]),
    ];
    initializer.extend(more);
    let body = node.output[0].clone();
    let node = vec![stem, node, conv("class", &body, "class.weight"), conv("boxes", &body, "boxes.weight")];
    let value = |name: &str| Value::f32(name, &[Some(1), Some(3), Some(64), Some(64)], "");
    let graph = GraphBody {
        node,
        name: "detector".into(),
        initializer,
        input: vec![value("image")],
        output: vec![value("class"), value("boxes")],
    };
    let opset_import = vec![OperatorSet { domain: Some(String::new()), version: 17 }];
    let model = Model { ir_version: 8, graph: Some(graph), opset_import, ..Model::default() };
    let text = "name='t'\nfamily='distances'\nclasses=['cone']\ncolours='rgb'\nmean=[0.0,0.0,0.0]\n\
                std=[1.0,1.0,1.0]\ncenter=0.5\n";
    network(&OnnxFile::parse(model.encode_to_vec())?, &NetworkDescription::parse(text)?)
}

#[test]
fn a_node_that_cannot_be_imported_is_named_with_the_reason() {
    with_node(Node::new("Relu", &["stem"], "body"), vec![]).unwrap();
    let weight = || vec![Tensor::f32("w", &[8, 8, 3, 3], &[0.1; 576])];
    let conv = || Node::new("Conv", &["stem", "w"], "body").ints("kernel_shape", &[3, 3]);
    let mut foreign = Node::new("Relu", &["stem"], "body");
    foreign.domain = "com.somebody".into();
    for (node, more, expected) in [
        (Node::new("LayerNormalization", &["stem"], "body"), vec![], "(LayerNormalization)"),
        (Node::new("ConvTranspose", &["stem", "w"], "body"), weight(), "transposed convolutions"),
        (Node::new("LeakyRelu", &["stem"], "body").float("alpha", 0.3), vec![], "of slope 0.1"),
        (conv(), weight(), "padding"),
        (conv().ints("pads", &[1; 4]).ints("strides", &[1, 2]), weight(), "strides"),
        (conv().ints("pads", &[1; 4]).int("group", 3), weight(), "groups"),
        (Node::new("Conv", &["stem", "stem"], "body"), vec![], "only constants"),
        (Node::new("MatMul", &["stem", "w"], "body"), weight(), "(MatMul)"),
        (Node::new("Mul", &["stem", "nothing"], "body"), vec![], "\"nothing\""),
        (Node::new("Softplus", &["stem"], "body"), vec![], "activations"),
        (Node::new("QuantizeLinear", &["stem", "w"], "body"), weight(), "quantized"),
        (foreign, vec![], "com.somebody.Relu"),
    ] {
        let operation = node.op_type.clone();
        let error = format!("{:#}", with_node(node, more).unwrap_err());
        assert!(error.contains(expected), "{operation}: {error}");
    }
}

#[test]
fn a_file_that_is_no_detector_is_refused_in_a_sentence() {
    let parse = |bytes: &[u8]| OnnxFile::parse(bytes.to_vec()).map(drop).map_err(|e| format!("{e:#}"));
    assert!(parse(b"not a network").is_err());
    assert!(parse(b"").unwrap_err().contains("without a network"));
    // Cut anywhere, a file is refused or read, and nothing panics.
    let whole = std::fs::read(folder().join("centernet.onnx")).unwrap();
    let d = NetworkDescription::read(&folder().join("centernet.toml")).unwrap();
    for cut in (0..whole.len()).step_by(997) {
        if let Ok(file) = OnnxFile::parse(whole[..cut].to_vec()) {
            drop(network(&file, &d));
        }
    }
}

/// ONNX Runtime, where there is one.
fn runtime() -> Option<Runtime> {
    let path = std::env::var_os("ORT_DYLIB_PATH");
    if path.is_none() {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
    }
    path.map(|path| Runtime::open(Path::new(&path)).unwrap())
}

#[test]
fn the_head_s_tensors_are_onnx_runtime_s() {
    let Some(runtime) = runtime() else { return };
    for name in NETWORKS {
        let file = OnnxFile::read(&folder().join(format!("{name}.onnx"))).unwrap();
        let d = NetworkDescription::read(&folder().join(format!("{name}.toml"))).unwrap();
        for difference in check::compare(&runtime, &file, &d, &network(&file, &d).unwrap()).unwrap() {
            let Difference { output, largest, magnitude } = difference;
            assert!(largest <= 1e-4 * magnitude.max(1.0), "{name}: {output} differs by {largest} of {magnitude}");
        }
    }
}

/// A network of the shared teachers, imported by its description, at the file's size.
fn shared_network(name: &str) -> Option<(OnnxFile, NetworkDescription, Imported)> {
    let path = peregrine_support::shared(&format!("teachers/{name}.onnx"))?;
    let file = OnnxFile::read(&path).unwrap();
    let description = root().join(format!("models/networks/{name}.toml"));
    let d = NetworkDescription::read(&description).unwrap();
    let imported = network(&file, &d).unwrap();
    Some((file, d, imported))
}

#[test]
fn real_detectors_compute_what_onnx_runtime_computes() {
    for name in ["nanodet_416", "centernet_mb3_512"] {
        let Some((file, d, imported)) = shared_network(name) else { return };
        let Some(runtime) = runtime() else { return };
        for difference in check::compare(&runtime, &file, &d, &imported).unwrap() {
            println!("{name}: {difference:?}");
            assert!(!difference.is_fault(), "{name}: {difference:?}");
        }
    }
}

#[test]
fn boxes_in_the_sample_frames_are_onnx_runtime_s() {
    let Some((file, _, imported)) = shared_network("nanodet_416") else { return };
    let Some(runtime) = runtime() else { return };
    let mut session = runtime.session_of(&file.bytes, 1).unwrap();
    let student = &imported.student;
    let input = &student.manifest.architecture.input;
    let (width, height) = (input.width, input.height);
    let mut engine = CpuEngine::new(&student.graph(), &student.weights, 1).unwrap();
    let mut head = HeadDecoder::new(&student.manifest.architecture, width, height);
    let mut compared = 0;
    for frame in ["highway-00", "highway-12", "highway-06"] {
        let path = root().join(format!("models/frames/{frame}.jpg"));
        let image = peregrine_distill::data::load_image(&path).unwrap();
        let (w, h) = image.dimensions();
        let view = ImageView::new("rgb8", w, h, 3 * w, image.as_raw()).unwrap();
        let normalisation = Normalisation { mean: input.mean, std: input.std };
        Letterbox::new(view.size(), (width, height)).apply(&view, &normalisation, engine.input());
        // The file takes blue first.
        let planes: Vec<&[f32]> = engine.input().chunks(width * height).collect();
        let bgr = [planes[2], planes[1], planes[0]].concat();
        engine.run().unwrap();
        let mut ours = Vec::new();
        head.decode(|i| engine.output(i), 0.2, &mut ours);
        let tensor = ort::value::Tensor::from_array(([1, 3, height, width], bgr)).unwrap();
        let outputs = session.run(vec![("input_1:0", tensor)]).unwrap();
        let of = |name: &str| outputs.get(name).unwrap().try_extract_tensor::<f32>().unwrap().1;
        for (stride, class, sides) in [
            (8, "Identity:0", "Identity_3:0"),
            (16, "Identity_1:0", "Identity_4:0"),
            (32, "Identity_2:0", "Identity_5:0"),
        ] {
            for (cell, scores) in of(class).chunks(80).enumerate() {
                for (class, &score) in scores.iter().enumerate().filter(|(_, &score)| score > 0.25) {
                    let columns = width / stride;
                    let at = [cell % columns, cell / columns].map(|v| (v as f64 + 0.5) * stride as f64);
                    let side = |i: usize| {
                        let logits = &of(sides)[cell * 44 + i * 11..][..11];
                        let all: Vec<f64> = logits.iter().map(|&l| f64::from(l).exp()).collect();
                        let mean: f64 = all.iter().enumerate().map(|(bin, e)| bin as f64 * e).sum();
                        mean / all.iter().sum::<f64>() * stride as f64
                    };
                    let theirs = [at[0] - side(0), at[1] - side(1), at[0] + side(2), at[1] + side(3)];
                    let same = |d: &&Detection| {
                        let b = [d.bbox.x_min, d.bbox.y_min, d.bbox.x_max, d.bbox.y_max];
                        let near = b.into_iter().zip(theirs).all(|(a, b)| (f64::from(a) - b).abs() < 0.05);
                        d.class == class && (d.score - score).abs() < 1e-3 && near
                    };
                    assert!(ours.iter().any(|d| same(&d)), "{frame}: {class} {score} {theirs:?}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 20, "{compared}");
}

#[test]
fn a_training_from_an_imported_network_keeps_all_but_the_class_layers() {
    // NanoDet-Plus has distributions already; YOLOX's boxes are made anew too.
    for (name, boxes_are_kept) in [("nanodet_plus", true), ("yolox", false)] {
        let mut student = imported(name, |text| text).unwrap().student;
        let folder = tempfile::tempdir().unwrap();
        student.save(folder.path()).unwrap();
        let text = format!(
            "init = {:?}\nbatch = 2\n[student]\nclasses = ['person', 'rack']\nsegmentation = ['floor', 'wall']\n",
            folder.path()
        );
        let config: StudentConfig = toml::from_str(&text).unwrap();
        let architecture = config.load_architecture().unwrap();
        assert_eq!(architecture.detection_classes(), ["person", "rack"], "{name}");
        let (mut net, _) = init::network(&config, &architecture, None, &Ranks::alone()).unwrap();
        let head = &architecture.imported.as_ref().unwrap().head;
        for conv in net.params.convs.iter().filter(|conv| !conv.name.starts_with("segment.")) {
            let is_class = head.levels.iter().any(|level| level.class == conv.name);
            let is_box = head.levels.iter().any(|level| level.boxes == conv.name);
            let before = student.weights.of(&conv.name);
            if is_class {
                // The rows of persons, who were the third class.
                let per_row = conv.weight.value.len() / 2;
                assert_eq!(conv.weight.value[..per_row], before.weight[2 * per_row..], "{name}: {}", conv.name);
                assert_eq!(conv.bias.value[0], before.bias[2]);
                assert!((conv.bias.value[1] + 99f32.ln()).abs() < 1e-5);
            } else if !is_box || boxes_are_kept {
                assert_eq!(conv.weight.value, before.weight, "{name}: {}", conv.name);
            }
        }
        net.input().fill(0.5);
        net.forward(Mode::Train).unwrap();
        let seeds: Vec<(usize, Vec<f32>)> = net
            .graph
            .outputs
            .clone()
            .into_iter()
            .map(|id| (id, vec![1.0; 2 * net.graph.layers[id].shape.len()]))
            .collect();
        net.backward(seeds.iter().map(|(id, seed)| (*id, &seed[..]))).unwrap();
        let trained = net.params.convs.iter().filter(|conv| conv.weight.gradient.iter().any(|&g| g != 0.0)).count();
        assert!(trained * 10 > net.params.convs.len() * 9, "{name}: {trained} of {}", net.params.convs.len());
        assert!(net.params.convs.iter().all(|conv| conv.weight.gradient.iter().all(|g| g.is_finite())));
    }
}
