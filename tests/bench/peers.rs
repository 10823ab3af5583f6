//! Other engines beside ours: the student's own export in ONNX Runtime and in OpenVINO.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The embedded student as ONNX, of 64 x 64 pixels.
fn exported(folder: &Path) -> PathBuf {
    let file = folder.join("student.onnx");
    let mut command = Command::new(env!("CARGO_BIN_EXE_distill"));
    let output = command.args(["export", "--no-check", "--input", "64x64", "--out"]).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    file
}

/// 25 rounds beside `peer`, in the environment that `set` changes.
fn bench(peer: &str, arguments: &[&str], set: impl Fn(&mut Command)) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    command.args(["--peer", peer, "--frames", "25", "--threads", "1"]).args(arguments);
    set(&mut command);
    command.output().expect("the program starts")
}

/// Whether a peer could not be started for want of its package: then the test is skipped.
fn is_missing(output: &Output, package: &str) -> bool {
    let missing = text(output).contains(&format!("has no package {package}"));
    if missing {
        peregrine_support::skip(package, &format!("no Python here has the package {package}"));
    }
    missing
}

fn assert_runs_beside_ours(package: &str) {
    let folder = tempfile::tempdir().unwrap();
    let peer = format!("{package}:{}", exported(folder.path()).display());
    let output = bench(&peer, &["--input-size", "64x64", "--json", "-"], |_| ());
    if is_missing(&output, package) {
        return;
    }
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["rounds"], &report["subject"]["threads"]), (&25.into(), &1.into()));
    let engines = report["engines"].as_array().unwrap();
    assert_eq!((engines.len(), &engines[0]["peer"], &engines[1]["peer"]), (2, &Value::Null, &peer.as_str().into()));
    assert!(engines[0]["name"].as_str().unwrap().starts_with("ours, f32"), "{engines:?}");
    assert!(engines[1]["name"].as_str().unwrap().starts_with(&format!("{package} ")), "{engines:?}");
    let difference = engines[1]["difference"].as_f64().unwrap();
    assert!(difference < 1e-3, "the same network on the same image: {difference}");
    let p50 = |engine: usize| engines[engine]["percentiles"][0][1].as_f64().unwrap();
    let ratio = &report["ratios"][0]["ratios"][0];
    assert_eq!(ratio["of"], "p50");
    let (ratio, low, high) =
        (ratio["ratio"].as_f64().unwrap(), ratio["low"].as_f64().unwrap(), ratio["high"].as_f64().unwrap());
    // Quantiles of a histogram and of the times themselves differ by at most a bucket and a rank.
    assert!((ratio / (p50(0) / p50(1)) - 1.0).abs() < 0.1 && low <= ratio && ratio <= high, "{report}");
}

#[test]
fn onnx_runtime_runs_beside_ours_on_the_same_image() {
    assert_runs_beside_ours("onnxruntime");
}

#[test]
fn openvino_runs_beside_ours_on_the_same_image() {
    assert_runs_beside_ours("openvino");
}

#[test]
fn the_text_has_both_engines_and_the_ratio() {
    let folder = tempfile::tempdir().unwrap();
    let peer = format!("onnxruntime:{}", exported(folder.path()).display());
    let output = bench(&peer, &["--input-size", "64x64"], |_| ());
    if is_missing(&output, "onnxruntime") {
        return;
    }
    let said = text(&output);
    assert!(said.contains("25 rounds of one frame each, 1 thread, input 64x64"), "{said}");
    assert!(said.contains("\nratio     ours / onnxruntime ") && said.contains("within"), "{said}");
}

#[test]
fn a_file_that_cannot_be_used_costs_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.onnx");
    std::fs::write(&broken, "no network").unwrap();
    let other_size = exported(folder.path());
    for (file, expected) in [
        (&broken, "broken.onnx"),
        (&other_size, "the network takes 64x64, and ours 96x96: give --input-size"),
        (&folder.path().join("nowhere.onnx"), "there is no such file"),
    ] {
        let output = bench(&format!("onnxruntime:{}", file.display()), &["--input-size", "96x96"], |_| ());
        if is_missing(&output, "onnxruntime") {
            return;
        }
        assert_eq!(output.status.code(), Some(3), "{}", text(&output));
        let said = text(&output);
        assert!(said.starts_with("error: --peer onnxruntime:") && said.contains(expected), "{said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

#[test]
fn a_missing_package_is_named_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let found = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into());
    if !Path::new(&found).is_file() {
        return peregrine_support::skip("python", "PEREGRINE_PYTHON names no Python");
    }
    // Without its site's packages, and without another one in PATH.
    let python = folder.path().join("python3");
    std::fs::write(&python, format!("#!/bin/sh\nexec '{found}' -I -S \"$@\"\n")).unwrap();
    std::fs::set_permissions(&python, std::fs::Permissions::from_mode(0o755)).unwrap();
    let network = folder.path().join("network.xml");
    std::fs::write(&network, "").unwrap();
    let output = bench(&format!("openvino:{}", network.display()), &[], |command| {
        command.env("PEREGRINE_PYTHON", &python).env("PATH", folder.path());
    });
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("has no package numpy") && said.contains("pip install openvino numpy"), "{said}");
    assert!(said.contains("PEREGRINE_PYTHON") && said.trim_end().lines().count() == 1, "{said}");
}

#[test]
fn a_peer_of_another_layer_and_options_without_effect_are_refused() {
    for (peer, arguments, expected) in [
        ("python3", &[][..], "run beside the network alone"),
        ("onnxruntime:m.onnx", &["--layer", "node"], "run beside the network alone"),
        ("onnxruntime:m.onnx", &["--cameras", "2"], "--cameras: --peer runs engines in turn"),
        ("openvino:", &[], "names no file"),
    ] {
        let output = bench(peer, arguments, |_| ());
        assert_eq!(output.status.code(), Some(3), "{peer}: {}", text(&output));
        assert!(text(&output).contains(expected), "{peer}: {}", text(&output));
    }
}
