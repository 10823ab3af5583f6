//! The program as its users see it, with Python nodes as peers over the middleware.
//!
//! No test asserts a duration, and every wait is for an event.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::Value;

use crate::support::*;

#[test]
fn real_images_are_answered_with_their_header_boxes_and_counts() {
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
    assert!(line.starts_with("perception_node: 1") && line.ends_with("0 rejected, 0 in flight"), "{printed}");
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
fn compressed_images_are_answered_like_raw_ones() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["image_transport:=compressed", "score_threshold:=0.05"]);
    assert_answers_hold(&domain.ask_peer("send_frames.py", &["compressed", "4"]), 4);
}

#[test]
fn malformed_images_are_rejected_by_reason_and_good_ones_follow() {
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
fn frames_past_the_deadline_are_dropped_and_reported() {
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
fn a_burst_is_reduced_to_the_newest_and_every_image_counted() {
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
fn in_simulated_time_latency_is_by_the_simulated_clock() {
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
fn parameters_are_read_and_set_by_the_standard_services() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["score_threshold:=0.4"]);
    let a = domain.ask_peer("set_parameters.py", &[]);
    let names: Vec<_> = peregrine_ros::parameters::DECLARATIONS.iter().map(|d| d.name).collect();
    assert_eq!(a["names"], serde_json::json!(names));
    assert_eq!(a["types"], serde_json::json!([2, 3, 0]));
    assert_eq!(a["at_start"], serde_json::json!({"score_threshold": 0.4, "deadline_ms": 100.0}));
    assert_eq!(a["describe"]["range"], serde_json::json!([0.01, 0.99]));
    assert_eq!(a["describe"]["read_only"], false);
    assert_eq!(a["describe_device"]["read_only"], true);
    for accepted in ["in_range", "whole_number"] {
        assert_eq!(a[accepted]["successful"], true, "{accepted}: {}", a[accepted]);
    }
    let refused = [
        ("out_of_range", "from 0.01 to 0.99, not 1.5"),
        ("wrong_type", "must be a number"),
        ("wrong_choice", "publish_late, drop_late"),
        ("unknown", "'score_treshold' is unknown"),
        ("read_only", "'device' is read-only"),
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

/// Levels of rcl_interfaces/msg/Log.
const INFO: i64 = 20;
const WARN: i64 = 30;

#[test]
fn the_log_reaches_rosout_and_rejections_are_logged_once() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["deadline_ms:=0.0"]);
    let records = domain.ask_peer("receive_log.py", &[]);
    let records = records.as_array().unwrap();
    let of = |part: &str| -> Vec<&Value> {
        records.iter().filter(|record| record["message"].as_str().unwrap().contains(part)).collect()
    };
    let [start] = of("images from /image")[..] else { panic!("{records:?}") };
    assert_eq!((integer(start, "level"), &start["name"]), (INFO, &Value::from("perception")));
    assert!(start["file"].as_str().unwrap().ends_with(".rs") && integer(start, "line") > 0, "{start}");
    let [rejected] = of("every image on /image is rejected")[..] else { panic!("{records:?}") };
    assert_eq!(integer(rejected, "level"), WARN);
    assert!(rejected["message"].as_str().unwrap().contains("32FC1"), "{rejected}");
    let [end] = of("images on /image are processed again")[..] else { panic!("{records:?}") };
    assert_eq!(integer(end, "level"), INFO);
    let terminal = node.stop_and_read_log();
    assert!(terminal.contains("[WARN]") && terminal.contains("[perception]: every image on /image"), "{terminal}");
}

#[test]
fn the_log_level_is_that_of_the_ros_arguments() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let mut command = domain.command(NODE);
    command.args(["--ros-args", "--log-level", "warn"]);
    let node = Node(command.spawn().unwrap());
    assert_answers_hold(&domain.ask_peer("send_frames.py", &["raw", "1"]), 1);
    let terminal = node.stop_and_read_log();
    assert!(!terminal.contains("[INFO]"), "{terminal}");
}

/// Runs the node with arguments that make it fail at start.
fn failing_start(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Domain::new().command(NODE);
    command.args(arguments).envs(environment.iter().copied());
    command.output().expect("the node can be started")
}

/// One sentence on stderr that names the cause, exit code 1, and no panic.
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
    assert_fails_clearly(&with("score_treshold:=0.5"), "'score_treshold' is unknown");
    assert_fails_clearly(&with("input_width:=100"), "input_size");
    assert_fails_clearly(&with("image_topic:=a topic"), "'a topic'");
    assert_fails_clearly(&failing_start(&["--verbose"], &[]), "'--verbose'");
}

#[test]
fn arguments_that_ros_refuses_end_with_a_sentence() {
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
