//! The black box of the real node: a miss becomes one file, which other programs open.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::*;

/// Reads a recording with PyPI's `mcap`; `None` where that is not installed.
fn read(file: &Path) -> Option<Value> {
    let Some(readers) = std::env::var_os("PEREGRINE_READERS") else {
        peregrine_support::skip("mcap", "the readers of recordings are not installed; run launch/setup/setup.sh");
        return None;
    };
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer/read_mcap.py");
    let mut command = Command::new(python);
    let output = command.env("PYTHONPATH", readers).arg(script).arg(file).output().expect("Python can be started");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("its output is JSON"))
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_missed_deadline_leaves_one_file_that_other_programs_open() {
    if ros_is_absent() {
        return;
    }
    let (domain, folder) = (Domain::new(), tempfile::tempdir().unwrap());
    let record = format!("record_folder:={}", folder.path().display());
    // No frame can keep it.
    let node = domain.start_node(&["deadline_ms:=0.001", "score_threshold:=0.05", "record_on:=miss", &record]);
    let answers = domain.ask_peer("send_frames.py", &["raw", "4"]);
    let answers = answers.as_array().unwrap();
    let log = node.stop_and_read_log();
    let [file] = &files(folder.path())[..] else { panic!("{:?}: {log}", files(folder.path())) };
    assert!(log.contains("the black box has written") && log.contains("missed its deadline"), "{log}");

    // latency_bench plays it.
    let out = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    bench.args(["--closed-loop", "--threads", "1", "--input-size", "64x64", "--frames"]).arg(file);
    let output = bench.current_dir(out.path()).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("images of /image/compressed in "), "{printed}");

    let Some(found) = read(file) else { return };
    assert_eq!(found["profile"], "ros2");
    assert_eq!(found["notes"]["peregrine"]["reason"], "miss");
    let messages = |topic: &str| found["topics"][topic]["messages"].as_array().unwrap_or_else(|| panic!("{topic}"));
    let with_stamp = |topic: &str, stamp: &Value| messages(topic).iter().find(|m| m["stamp"] == *stamp).cloned();
    // Those of the second after the miss, at least the first.
    let first = with_stamp("/image/compressed", &answers[0]["sent"]["stamp"]).expect("the image that was late");
    assert_eq!(first["frame_id"], answers[0]["sent"]["frame_id"]);
    assert_eq!(first["format"], "rgb8; jpeg compressed bgr8");
    assert_eq!(first["size"], serde_json::json!([answers[0]["sent"]["width"], answers[0]["sent"]["height"]]));
    let published = answers[0]["detections"].as_array().unwrap();
    let kept = &with_stamp("/detections", &answers[0]["sent"]["stamp"]).unwrap()["boxes"];
    let sent: Vec<_> = published.iter().map(|d| serde_json::json!([d["x"], d["y"], d["width"], d["height"]])).collect();
    assert_eq!(kept, &Value::from(sent), "as they were published");
    let timing = with_stamp("/timing", &answers[0]["sent"]["stamp"]).unwrap();
    assert_eq!((integer(&timing, "verdict"), integer(&timing, "arrived")), (1, 1));
    assert!(!messages("/diagnostics").is_empty());
    let parameters = &messages("/parameter_events")[0];
    assert_eq!(parameters["node"], "/perception");
    assert_eq!(parameters["parameters"]["deadline_ms"], 0.001);
}

#[test]
fn a_folder_that_cannot_be_written_is_one_line_in_the_log_and_a_warning() {
    if ros_is_absent() {
        return;
    }
    let (domain, place) = (Domain::new(), tempfile::tempdir().unwrap());
    let folder = place.path().join("file");
    fs::write(&folder, "no folder").unwrap();
    let record = format!("record_folder:={}", folder.display());
    let node = domain.start_node(&["deadline_ms:=0.001", "record_on:=miss", "record_interval_s:=0.0", &record]);
    assert_eq!(domain.ask_peer("send_frames.py", &["raw", "4"]).as_array().unwrap().len(), 4);
    let log = node.stop_and_read_log();
    assert_eq!(log.matches("the black box cannot write").count(), 1, "{log}");
}
