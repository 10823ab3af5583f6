//! `distill export`, read back by a real ONNX Runtime.

use std::path::Path;
use std::process::Command;

use peregrine_distill::export::check;
use peregrine_distill::export::messages::Model;
use peregrine_distill::export::onnx;
use peregrine_distill::export::onnx::OnnxLabels;
use peregrine_distill::teacher::Runtime;
use peregrine_engine::{Activation, Conv, Graph, Interpolation, Padding, Shape};
use peregrine_reference::graphs::any_graph;
use peregrine_student::Student;
use proptest::prelude::*;
use prost::Message;

fn onnx_runtime() -> Option<Runtime> {
    let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| Path::new(path).is_file());
    if path.is_none() {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
    }
    path.map(|path| Runtime::open(Path::new(&path)).unwrap())
}

fn distill(args: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_distill")).args(args).output().unwrap()
}

/// Every operation and each kind of padding; another size for each `n`.
fn network(n: usize) -> Graph {
    let conv =
        |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation, padding: Padding::Same };
    let mut g = Graph::new(Shape::new(3, 7 + n, 12 - n));
    let a = g.conv("a", 0, 5 + n, conv(3, 2, false, Activation::Relu6));
    let b = g.conv("b", a, 0, conv(5, 1, true, Activation::Relu6));
    let sum = g.add("sum", a, b);
    let c = g.conv("c", sum, 9, conv(3, 2, true, Activation::Identity));
    let d = g.conv("d", c, 4, conv(1, 1, false, Activation::Identity));
    let fine = g.conv("fine", sum, 4, conv(1, 1, false, Activation::Identity));
    let up = g.upsample2x("up", d, Interpolation::Nearest);
    let wide = g.concat("wide", &[c, d]);
    let last = g.conv("last", up, 3, conv(7, 1, false, Activation::Relu6));
    g.outputs = vec![fine, last, wide, sum];
    g
}

#[test]
fn random_networks_agree_between_onnx_runtime_and_the_engine() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    for seed in 0..6 {
        let graph = network(seed as usize);
        let weights = peregrine_reference::random_weights(&graph, seed);
        let labels = OnnxLabels::plain(&graph);
        let path = dir.path().join("network.onnx");
        std::fs::write(&path, onnx::model(&graph, &weights, &labels).unwrap().encode_to_vec()).unwrap();
        let names: Vec<String> = labels.outputs.iter().map(|o| o.0.clone()).collect();
        for d in check::compare(&runtime, &path, &graph, &weights, "input", &names).unwrap() {
            assert!(!d.is_fault(), "network {seed}: {d:?}");
        }
    }
}

#[test]
fn networks_of_every_operation_agree_between_onnx_runtime_and_the_engine() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("network.onnx");
    proptest!(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(60) }, |(
        graph in any_graph().prop_filter("is more than an input", |graph| graph.layers.len() > 1), seed: u64,
    )| {
        let graph = Graph { outputs: vec![graph.layers.len() - 1], ..graph };
        let weights = peregrine_reference::random_weights(&graph, seed);
        let labels = OnnxLabels::plain(&graph);
        std::fs::write(&path, onnx::model(&graph, &weights, &labels).unwrap().encode_to_vec()).unwrap();
        for d in check::compare(&runtime, &path, &graph, &weights, "input", &["output0".to_owned()]).unwrap() {
            prop_assert!(!d.is_fault(), "{d:?}");
        }
    });
}

#[test]
fn a_file_that_differs_from_the_engine_is_detected() {
    let Some(runtime) = onnx_runtime() else { return };
    let dir = tempfile::tempdir().unwrap();
    let student = Student::embedded();
    let (graph, labels) = (student.graph(), OnnxLabels::plain(&student.graph()));
    let mut wrong = student.weights.clone();
    wrong.0.values_mut().next().unwrap().bias[0] += 1.0;
    let path = dir.path().join("wrong.onnx");
    std::fs::write(&path, onnx::model(&graph, &wrong, &labels).unwrap().encode_to_vec()).unwrap();
    let names: Vec<String> = labels.outputs.iter().map(|o| o.0.clone()).collect();
    let found = check::compare(&runtime, &path, &graph, &student.weights, "input", &names).unwrap();
    assert!(found.iter().any(check::Difference::is_fault), "{found:?}");
}

#[test]
fn the_command_writes_outputs_metadata_and_the_package() {
    let dir = tempfile::tempdir().unwrap();
    let (file, package) = (dir.path().join("s.onnx"), dir.path().join("package"));
    let (file_arg, package_arg) = (file.to_str().unwrap(), package.to_str().unwrap());
    let check: &[&str] = if onnx_runtime().is_some() { &[] } else { &["--no-check"] };
    let output =
        distill(&[&["export", "--out", file_arg, "--package", package_arg, "--input", "160x128"], check].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = Model::decode(&std::fs::read(&file).unwrap()[..]).unwrap();
    let outputs: Vec<_> = model.graph.unwrap().output.into_iter().map(|o| o.name).collect();
    assert_eq!(outputs, ["class_8", "sides_8", "class_16", "sides_16", "class_32", "sides_32", "segmentation"]);
    let classes = model.metadata_props.iter().find(|e| e.key == "classes").unwrap();
    let student = Student::load(&package).unwrap();
    let architecture = &student.manifest.architecture;
    assert_eq!(serde_json::from_str::<Vec<String>>(&classes.value).unwrap(), architecture.detection_classes());
    assert_eq!((architecture.input.width, architecture.input.height), (160, 128));
}

#[test]
fn an_output_that_cannot_be_written_is_named() {
    let output = distill(&["export", "--out", "/proc/none/s.onnx", "--no-check"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("/proc/none/s.onnx"), "{error}");
}
