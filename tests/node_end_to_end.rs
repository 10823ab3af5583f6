//! The node as its users see it: the program itself, spoken to by Python nodes over the middleware.
//!
//! Nothing here asserts a time, and every wait is for an event.
#![cfg(feature = "ros")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

const NODE: &str = env!("CARGO_BIN_EXE_perception_node");

/// Generous, since the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a ROS 2 to test with; says so if there is none.
fn ros_is_absent() -> bool {
    let absent = std::env::var_os("AMENT_PREFIX_PATH").is_none();
    if absent {
        eprintln!("skipped: there is no ROS 2 environment; run `. launch/setup/env.sh` first");
    }
    absent
}

/// A command in a ROS domain of its own that nothing outside this machine sees.
struct Domain(u32);

impl Domain {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // 1 to 101 are safe on Linux; the process number keeps test programs that run side by side apart.
        let offset = std::process::id().wrapping_mul(8) + NEXT.fetch_add(1, Ordering::Relaxed);
        Self(1 + offset % 101)
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("ROS_DOMAIN_ID", self.0.to_string()).env("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST");
        // Shared memory that holds the images; the file says why.
        let profile = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/fastdds.xml");
        command.env("FASTRTPS_DEFAULT_PROFILES_FILE", &profile).env("FASTDDS_DEFAULT_PROFILES_FILE", &profile);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts the node with `parameters` such as `score_threshold:=0.5`.
    fn start_node(&self, parameters: &[&str]) -> Node {
        let mut command = self.command(NODE);
        command.arg("--ros-args");
        for parameter in parameters {
            command.args(["-p", parameter]);
        }
        Node(command.spawn().expect("the node can be started"))
    }

    /// Runs a peer to its end and returns its answer.
    fn ask_peer(&self, script: &str, arguments: &[&str]) -> Value {
        let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer").join(script);
        let output = self.command(python).arg(path).args(arguments).output().expect("Python can be started");
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{script} failed:\n{err}\n{out}");
        serde_json::from_str(out.lines().last().unwrap_or_default()).expect("the peer's last line is its answer")
    }
}

/// A running node; ended when dropped.
struct Node(Child);

impl Node {
    /// Sends `signal` and returns the exit code and what the node printed.
    fn end(mut self, signal: &str) -> (Option<i32>, String) {
        let status = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "the node is still running");
        let give_up = Instant::now() + PATIENCE;
        while self.0.try_wait().expect("a child can be waited for").is_none() {
            assert!(Instant::now() < give_up, "the node does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut printed = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout is piped");
        stdout.read_to_string(&mut printed).expect("the node prints text");
        (self.0.wait().expect("it has ended").code(), printed)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn integer(value: &Value, key: &str) -> i64 {
    match &value[key] {
        Value::String(text) => text.parse().unwrap_or_else(|_| panic!("{key} is {text:?}")),
        number => number.as_i64().unwrap_or_else(|| panic!("{key} is {number}")),
    }
}

fn real(value: &Value, key: &str) -> f64 {
    value[key].as_f64().unwrap_or_else(|| panic!("{key} is {}", value[key]))
}

/// The counts of a `FrameTiming` or of the diagnostics.
fn assert_counts_add_up(counts: &Value, most_in_hand: i64) {
    let ended: i64 = ["published_on_time", "published_late", "superseded", "dropped_late", "rejected"]
        .iter()
        .map(|key| integer(counts, key))
        .sum();
    let in_hand = integer(counts, "arrived") - ended;
    assert!((0..=most_in_hand).contains(&in_hand), "{in_hand} in hand: {counts}");
}

/// What must hold for every image that was sent and answered, however it was transported.
fn assert_answers_hold(answers: &Value, count: usize) {
    let answers = answers.as_array().expect("one answer an image");
    assert_eq!(answers.len(), count);
    for answer in answers {
        let sent = &answer["sent"];
        assert_eq!(answer["header"]["stamp"], sent["stamp"]);
        assert_eq!(answer["header"]["frame_id"], sent["frame_id"]);
        for detection in answer["detections"].as_array().expect("a list") {
            assert_eq!(detection["stamp"], sent["stamp"]);
            assert_eq!(detection["frame_id"], sent["frame_id"]);
            assert!((0.0..=1.0).contains(&real(detection, "score")));
            assert!(!detection["class"].as_str().expect("a name").is_empty());
            let (x, y) = (real(detection, "x"), real(detection, "y"));
            let (w, h) = (real(detection, "width") / 2.0, real(detection, "height") / 2.0);
            // Corners went through f32.
            let slack = 1e-3;
            assert!(w >= 0.0 && x - w >= -slack && x + w <= real(sent, "width") + slack, "{detection} of {sent}");
            assert!(h >= 0.0 && y - h >= -slack && y + h <= real(sent, "height") + slack, "{detection} of {sent}");
        }
        let timing = &answer["timing"];
        assert_counts_add_up(timing, 2);
        let steps =
            ["arrival", "preprocess_start", "preprocess_end", "inference_end", "decode_end", "track_end", "publish"];
        let times: Vec<_> = steps.iter().map(|step| integer(timing, step)).collect();
        assert!(times.is_sorted() && times[0] >= integer(sent, "stamp"), "{timing}");
        let latency = (times[6] - integer(sent, "stamp")) as f64 / 1e6;
        assert!((real(timing, "latency_ms") - latency).abs() < 0.1 + latency * 1e-6, "{timing}");
    }
}

#[test]
fn real_images_come_back_with_their_header_boxes_inside_and_counts_that_add_up() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["score_threshold:=0.05", "deadline_ms:=0.0"]);
    let answers = domain.ask_peer("send_frames.py", &["raw", "12"]);
    assert_answers_hold(&answers, 12);
    let found: usize = answers.as_array().unwrap().iter().map(|a| a["detections"].as_array().unwrap().len()).sum();
    assert!(found > 0, "nothing at all was found in twelve images of traffic");
    for answer in answers.as_array().unwrap() {
        assert_eq!(integer(&answer["timing"], "verdict"), 0, "without a deadline nothing is late");
    }

    let (code, printed) = node.end("-INT");
    assert_eq!(code, Some(0));
    let line = printed.lines().last().unwrap_or_default();
    assert!(line.starts_with("perception_node: 1") && line.ends_with("0 rejected, 0 in hand"), "{printed}");
}

#[test]
fn masks_are_published_to_subscribers_with_the_images_header() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&[]);
    let answers = domain.ask_peer("send_frames.py", &["raw", "2", "wait_for_masks"]);
    assert_answers_hold(&answers, 2);
    for answer in answers.as_array().unwrap() {
        let (road, classes) = (&answer["masks"]["road_mask"], &answer["masks"]["segmentation"]);
        for mask in [road, classes] {
            assert_eq!(mask["frame_id"], answer["sent"]["frame_id"]);
            assert_eq!(mask["encoding"], "mono8");
            assert_eq!(integer(mask, "bytes"), integer(mask, "width") * integer(mask, "height"));
        }
        let values =
            |mask: &Value| mask["values"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
        assert!(values(road).iter().all(|&v| v == 0 || v == 255), "{road}");
        assert!(values(classes).iter().all(|&v| (0..11).contains(&v)), "{classes}");
    }
}

#[test]
fn compressed_images_come_back_alike() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["image_transport:=compressed", "score_threshold:=0.05"]);
    assert_answers_hold(&domain.ask_peer("send_frames.py", &["compressed", "4"]), 4);
}

#[test]
fn malformed_images_are_rejected_by_reason_and_the_node_works_on() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&[]);
    let answer = domain.ask_peer("send_malformed.py", &[]);
    let mut reasons = BTreeMap::new();
    for diagnostics in answer["malformed"].as_array().unwrap() {
        assert_eq!(integer(diagnostics, "level"), 2, "only malformed images are an error: {diagnostics}");
        assert_ne!(diagnostics["last_rejection"], "none");
        for (key, value) in diagnostics.as_object().unwrap() {
            if let Some(reason) = key.strip_prefix("rejected.") {
                reasons.insert(reason.to_owned(), value.as_str().unwrap().parse::<u32>().unwrap());
            }
        }
    }
    let names: Vec<_> = reasons.keys().map(String::as_str).collect();
    assert_eq!(names, ["empty", "encoding", "short_data", "step", "too_large"]);
    assert!(reasons["encoding"] >= 2 && reasons["short_data"] >= 2);

    let after = &answer["after"];
    assert_counts_add_up(after, 0);
    assert_eq!(integer(after, "rejected"), i64::from(reasons.values().sum::<u32>()));
    assert!(integer(&answer["good"], "sequence") > integer(&answer["good"], "rejected"));
    assert_eq!(node.end("-TERM").0, Some(0));
}

#[test]
fn frames_past_the_deadline_are_dropped_and_said_to_be() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["deadline_ms:=0.0001", "deadline_policy:=drop_late"]);
    let answer = domain.ask_peer("send_late.py", &[]);
    let timing = &answer["timing"];
    assert_eq!(integer(timing, "verdict"), 2);
    assert_eq!(integer(timing, "preprocess_start"), 0, "there was no work on it");
    assert!(integer(timing, "publish") > integer(timing, "arrival"));
    assert_eq!(integer(timing, "dropped_late"), integer(timing, "sequence"));
    assert_counts_add_up(timing, 2);
    assert_eq!(integer(&answer, "detections"), 0);
}

#[test]
fn a_burst_is_thinned_to_the_newest_and_every_image_is_accounted_for() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&[]);
    let answer = domain.ask_peer("send_burst.py", &["30"]);
    assert_counts_add_up(&answer["diagnostics"], 0);
    let timings = answer["timings"].as_array().unwrap();
    for timing in timings {
        assert_counts_add_up(timing, 2);
    }
    let sequences: Vec<_> = timings.iter().map(|t| integer(t, "sequence")).collect();
    assert!(sequences.windows(2).all(|w| w[0] < w[1]), "{sequences:?}");
    let last = timings.last().expect("the last image of a burst is never superseded");
    assert_eq!(integer(last, "sequence"), integer(&answer["diagnostics"], "arrived"));
}

#[test]
fn in_simulated_time_latency_counts_by_the_simulated_clock() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["use_sim_time:=true", "deadline_ms:=0.0"]);
    let timing = domain.ask_peer("send_in_sim_time.py", &[]);
    assert_eq!(integer(&timing, "arrival"), 1_000_000_000_000);
    let expected = 250.0 + real(&timing, "latency_from_arrival_ms");
    assert!((real(&timing, "latency_ms") - expected).abs() < 0.01, "{timing}");
}

#[test]
fn parameters_are_read_set_and_refused_through_the_standard_services() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["score_threshold:=0.4"]);
    let a = domain.ask_peer("set_parameters.py", &[]);
    let names: Vec<_> = peregrine::ros::parameters::DECLARATIONS.iter().map(|d| d.name).collect();
    assert_eq!(a["names"], serde_json::json!(names));
    assert_eq!(a["types"], serde_json::json!([2, 3, 0]));
    assert_eq!(a["at_start"], serde_json::json!({"score_threshold": 0.4, "deadline_ms": 100.0}));
    assert_eq!(a["describe"]["range"], serde_json::json!([0.01, 0.99]));
    assert_eq!(a["describe"]["read_only"], false);
    assert_eq!(a["describe_model"]["read_only"], true);
    for accepted in ["in_range", "whole_number"] {
        assert_eq!(a[accepted]["successful"], true, "{accepted}: {}", a[accepted]);
    }
    let refused = [
        ("out_of_range", "from 0.01 to 0.99, not 1.5"),
        ("wrong_type", "must be a number"),
        ("wrong_choice", "publish_late, drop_late"),
        ("unknown", "no parameter 'score_treshold'"),
        ("read_only", "'model' is read-only"),
    ];
    for (what, reason) in refused {
        assert_eq!(a[what]["successful"], false, "{what}");
        let given = a[what]["reason"].as_str().unwrap();
        assert!(given.contains(reason), "{what}: {given}");
    }
    assert_eq!((&a["atomic_refused"], &a["atomic"]), (&Value::Bool(false), &Value::Bool(true)));
    assert_eq!(a["nms_iou_after_refusal"], 0.6);
    let end = serde_json::json!({
        "score_threshold": 0.75, "deadline_ms": 5000.0, "nms_iou": 0.25, "deadline_policy": "drop_late"
    });
    assert_eq!(a["at_end"], end);
    assert_eq!(a["changed"], serde_json::json!(["score_threshold", "deadline_ms", "nms_iou", "deadline_policy"]));
    assert_eq!(a["deadline_ms_of_a_frame"], 5000.0);
}

/// Runs the node where it is bound to fail at start.
fn failing_start(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Domain::new().command(NODE);
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("the node can be started")
}

/// One sentence on stderr that names what is at fault, exit code 1, and no panic.
#[track_caller]
fn assert_fails_clearly(output: &Output, fault: &str) {
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    let sentence = err.lines().find(|line| line.starts_with("perception_node: ")).unwrap_or_default();
    assert!(sentence.contains(fault), "{fault:?} is not in: {err}");
    assert!(!err.contains("panicked"), "{err}");
}

#[test]
fn a_missing_model_folder_is_named() {
    if ros_is_absent() {
        return;
    }
    let output = failing_start(&["--ros-args", "-p", "model:=/no/such/folder"], &[]);
    assert_fails_clearly(&output, "/no/such/folder/manifest.json");
}

#[test]
fn a_damaged_manifest_is_named() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let manifest: PathBuf = folder.path().join("manifest.json");
    fs::write(&manifest, "{ \"name\": 3").unwrap();
    let output = failing_start(&["--ros-args", "-p", &format!("model:={}", folder.path().display())], &[]);
    assert_fails_clearly(&output, manifest.to_str().unwrap());
}

#[test]
fn bad_parameters_and_arguments_are_named_at_start() {
    if ros_is_absent() {
        return;
    }
    let with = |parameter: &str| failing_start(&["--ros-args", "-p", parameter], &[]);
    assert_fails_clearly(
        &with("score_threshold:=7.0"),
        "'score_threshold' must be a number from 0.01 to 0.99, not 7.0",
    );
    assert_fails_clearly(&with("score_treshold:=0.5"), "no parameter 'score_treshold'");
    assert_fails_clearly(&with("input_width:=100"), "input_size");
    assert_fails_clearly(&with("image_topic:=a topic"), "'a topic'");
    assert_fails_clearly(&failing_start(&["--verbose"], &[]), "'--verbose'");
}

#[test]
fn what_ros_itself_refuses_is_a_sentence_and_no_panic() {
    if ros_is_absent() {
        return;
    }
    assert_fails_clearly(&failing_start(&["--ros-args", "-p", "nonsense"], &[]), "nonsense");
    let output = failing_start(&["--ros-args", "--params-file", "/no/such.yaml"], &[]);
    assert_fails_clearly(&output, "/no/such.yaml");
    assert_fails_clearly(&failing_start(&[], &[("ROS_DOMAIN_ID", "never")]), "ROS_DOMAIN_ID");
}

#[test]
fn the_shipped_parameter_file_is_accepted() {
    if ros_is_absent() {
        return;
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("launch/perception.yaml");
    let domain = Domain::new();
    let mut command = domain.command(NODE);
    command.args(["--ros-args", "--params-file"]).arg(file);
    let node = Node(command.spawn().unwrap());
    assert_answers_hold(&domain.ask_peer("send_frames.py", &["raw", "1"]), 1);
    assert_eq!(node.end("-INT").0, Some(0));
}
