//! Layer node with several cameras, with a bag, and with a node that is not of this project: one in rclpy
//! (`tests/peer/any_detector.py`), over DDS.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

const PROFILE: &str = r#"
name = "generous"
description = "for tests"
rate_hz = 20.0
deadline_ms = 10000.0
frames = 30
warmup_frames = 1
max_miss_ratio = 0.9
confidence = 0.99
max_miss_run = 20
late = "publish"
max_foreign_load_percent = 100.0
"#;

/// Every outcome in the counts of a report.
const OUTCOMES: [&str; 8] =
    ["on_time", "late", "superseded", "dropped_late", "rejected", "in_hand", "lost", "unanswered"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Python that has rclpy, where there is a ROS 2 environment.
fn python() -> Option<String> {
    if std::env::var_os("AMENT_PREFIX_PATH").is_none() {
        peregrine_support::skip("ros", "no ROS 2 environment: run `. launch/setup/env.sh` first");
        return None;
    }
    let python = std::env::var("PEREGRINE_PYTHON").ok();
    if python.is_none() {
        peregrine_support::skip("python", "PEREGRINE_PYTHON names no Python");
    }
    python
}

/// `latency_bench --layer node` under the generous profile, in a ROS domain of this test's own or of its parent's.
fn bench(domain: Option<&str>, arguments: &[&str]) -> Output {
    let mut profile = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    profile.write_all(PROFILE.as_bytes()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    command.args(["--layer", "node", "--json", "-", "--profile"]).arg(profile.path()).args(arguments);
    domain.into_iter().for_each(|domain| {
        command.env("ROS_DOMAIN_ID", domain);
    });
    command.output().expect("the program starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn report_of(output: &Output) -> Value {
    assert!(matches!(output.status.code(), Some(0 | 2)), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn count(report: &Value, outcome: &str) -> u64 {
    report["counts"][outcome].as_u64().unwrap()
}

/// That each frame that was due has exactly one outcome.
fn assert_every_frame_has_one_outcome(report: &Value, due: u64) {
    assert_eq!(count(report, "due"), due, "{}", report["counts"]);
    assert_eq!(OUTCOMES.iter().map(|outcome| count(report, outcome)).sum::<u64>(), due, "{}", report["counts"]);
    assert_eq!(report["frames"]["fate"].as_array().unwrap().len() as u64, due);
}

/// The command line of the foreign node, on topics that no other test has.
fn detector(python: &str, topics: &str, options: &str) -> String {
    let script = root().join("tests/peer/any_detector.py");
    format!("'{python}' '{}' {options} --ros-args -r found:=found_{topics} -r __node:=any_{topics}", script.display())
}

#[test]
fn several_cameras_of_one_node_have_each_its_schedule() {
    if python().is_none() {
        return;
    }
    let small = ["--input-size", "32x32", "--no-segmentation", "--image-size", "64x48", "--schedule", "fixed"];
    let report = report_of(&bench(None, &[&small[..], &["--schedule", "jitter:5:3"]].concat()));
    assert_eq!((&report["cameras"], &report["schedule"]), (&2.into(), &"fixed, jitter:5:3".into()));
    assert_every_frame_has_one_outcome(&report, 60);
    let column = |name: &str| report["frames"][name].as_array().unwrap().clone();
    let (cameras, scheduled, outcomes) = (column("camera"), column("scheduled_us"), column("fate"));
    for camera in [0, 1] {
        let own: Vec<usize> = (0..60).filter(|&i| cameras[i] == camera).collect();
        assert_eq!(own.len(), 30);
        assert!(own.iter().any(|&i| outcomes[i] == "on_time"), "camera {camera}: {}", report["counts"]);
        let distances: Vec<_> = own
            .windows(2)
            .map(|pair| scheduled[pair[1]].as_f64().unwrap() - scheduled[pair[0]].as_f64().unwrap())
            .collect();
        let regular = distances.iter().all(|us| (us - 50_000.0).abs() < 1.0);
        assert_eq!(regular, camera == 0, "{distances:?}");
    }
}

#[test]
fn a_bag_is_sent_at_the_instants_at_which_it_was_recorded() {
    if python().is_none() {
        return;
    }
    let bag = root().join("tests/reference/bags/mcap_raw");
    let bag = ["--frames", bag.to_str().unwrap(), "--schedule", "recorded"];
    let small = ["--input-size", "32x32", "--no-segmentation", "--image-size", "64x48"];
    let report = report_of(&bench(None, &[&bag[..], &small].concat()));
    assert_every_frame_has_one_outcome(&report, 5);
    // Recorded at 10 Hz; the profile's rate is 20 Hz.
    let scheduled: Vec<_> = report["frames"]["scheduled_us"].as_array().unwrap().iter().map(Value::as_f64).collect();
    assert_eq!(scheduled, [0.0, 1e5, 2e5, 3e5, 4e5].map(Some));
    assert!(report["subject"]["frames"].as_str().unwrap().starts_with("5 of 5 images of /camera in "));
}

#[test]
fn a_foreign_node_is_started_measured_and_judged() {
    let Some(python) = python() else { return };
    // Every fifth image is not answered.
    let line = detector(&python, "started", "--images pictures_started --skip 5 --best-effort");
    let topics = ["--image-topic", "pictures_started", "--detections-topic", "found_started"];
    let report = report_of(&bench(None, &[&["--command", &line, "--image-size", "64x48"][..], &topics].concat()));
    assert_every_frame_has_one_outcome(&report, 30);
    assert!(count(&report, "on_time") > 0 && count(&report, "unanswered") >= 5, "{}", report["counts"]);
    assert_eq!((&report["layer"], &report["subject"]["node"]["command"]), (&"foreign_node".into(), &line.into()));
    assert_eq!(report["subject"]["node"]["frame_timing"], false);
    assert_eq!(report["judgement"]["misses"].as_u64().unwrap(), 30 - count(&report, "on_time"));
    assert_eq!(report["judgement"]["culprit"]["stage"], "node");
    let of: Vec<_> = report["latency"].as_array().unwrap().iter().map(|row| row["of"].as_str().unwrap()).collect();
    assert_eq!(of, ["from schedule", "from arrival", "arrival", "node", "output jitter"]);
    assert!(report["cost"]["cpu_ms"].as_f64().unwrap() > 0.0, "the process behind the shell is found");
}

/// Ends what a test started.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_foreign_node_of_two_cameras_that_runs_already_is_measured() {
    let Some(python) = python() else { return };
    let domain = std::env::var("ROS_DOMAIN_ID").unwrap_or_else(|_| (1 + std::process::id() % 101).to_string());
    let mut node = Command::new(&python);
    node.arg(root().join("tests/peer/any_detector.py")).args(["--images", "left_running,right_running"]);
    node.args(["--ros-args", "-r", "found:=found_running"]).env("ROS_DOMAIN_ID", &domain);
    let _node = Running(node.stdout(Stdio::null()).spawn().unwrap());
    let images = ["--image-topic", "left_running", "--image-topic", "right_running"];
    let detections = ["--detections-topic", "found_running", "--image-size", "64x48"];
    let report = report_of(&bench(Some(&domain), &[&["--attach"][..], &images, &detections].concat()));
    assert_eq!((&report["cameras"], &report["cost"]), (&2.into(), &Value::Null));
    assert_every_frame_has_one_outcome(&report, 60);
    assert!(count(&report, "on_time") > 0, "{}", report["counts"]);
    assert!(report["subject"]["model"].as_str().unwrap().contains("left_running, right_running"));
}

#[test]
fn a_node_that_does_not_copy_the_stamp_is_refused_with_one_sentence() {
    let Some(python) = python() else { return };
    let line = detector(&python, "restamped", "--images pictures_restamped --restamp");
    let topics = ["--image-topic", "pictures_restamped", "--detections-topic", "found_restamped"];
    let output = bench(None, &[&["--command", &line, "--image-size", "64x48"][..], &topics].concat());
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("does not copy the image's header.stamp into its detections on found_restamped"), "{said}");
    assert_eq!(said.lines().filter(|line| line.starts_with("error")).count(), 1, "{said}");
}

#[test]
fn a_command_that_ends_is_told_with_what_it_said() {
    if python().is_none() {
        return;
    }
    let output = bench(None, &["--command", "echo no camera here; exit 7"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("exited by itself (exit status: 7)"), "{}", text(&output));
    assert!(text(&output).contains("no camera here"), "{}", text(&output));
}

#[test]
fn options_without_effect_on_a_foreign_node_are_refused() {
    for (arguments, expected) in [
        (&["--command", "x", "--threads", "1"][..], "--threads: --command measures a node as it is"),
        (&["--attach", "--model", "x"], "--model: --attach measures a node as it is"),
        (&["--command", "x", "--cameras", "2"], "with several cameras, give --image-topic for each"),
        (&["--image-topic", "a"], "belong to --attach and --command"),
        (&["--cameras", "3", "--schedule", "fixed", "--schedule", "burst:2"], "2 are given for 3 cameras"),
        (&["--peer", "python3", "--cameras", "2"], "--peer"),
    ] {
        let output = bench(None, arguments);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", text(&output));
        assert!(text(&output).contains(expected), "{arguments:?}: {}", text(&output));
    }
}
