//! What people meet in the field: arguments, parameter files, clocks, calibrations and topics that
//! are not as they should be. The node says so, and never goes on silently with something else.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Output};
use std::time::Duration;

use crate::support::*;

/// Runs the node to its end, which it must come to by itself.
fn refused(mut command: Command) -> String {
    let Output { status, stderr, .. } = command.output().expect("the node can be started");
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[test]
fn arguments_that_are_not_understood_end_the_node() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    for (arguments, sentence) in [
        (&["--ros-args", "--param-file", "x.yaml"][..], "--param-file x.yaml; write --params-file x.yaml"),
        (&["--ros-args", "deadline_ms:=80"], "write -p deadline_ms:=80"),
        (&["--ros-args", "-p", "deadline_ms=80"], "deadline_ms=80"),
        (&["--ros-args", "-p"], "-p"),
        (&["--ros-args", "-p", "deadlin_ms:=80"], "'deadlin_ms' is unknown; did you mean 'deadline_ms'?"),
        (&["deadline_ms:=80"], "write --ros-args -p deadline_ms:=80"),
        (&["--verison"], "did you mean --version?"),
    ] {
        let mut command = domain.command(NODE);
        command.args(arguments);
        let said = refused(command);
        assert!(said.contains(sentence), "{arguments:?}: {said}");
    }
    let mut command = domain.command(NODE);
    command.args(["--ros-args", "-p"]).arg(OsStr::from_bytes(b"model:=/caf\xe9"));
    let said = refused(command);
    assert!(said.contains("is not UTF-8") && !said.contains("panicked"), "{said}");
}

#[test]
fn a_parameter_file_for_many_nodes_starts_the_node() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("site.yaml");
    let shared = "/**:\n  ros__parameters: {use_sim_time: false, jpeg_quality: 90, threads: 1, \
                  qos_overrides: {/parameter_events: {publisher: {depth: 1000}}, /tf: {subscription: {depth: 9}}}}\n";
    let own = "/perception:\n  ros__parameters: {start_type_description_service: true}\n";
    let domain = Domain::new();
    let start = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let mut command = domain.command(NODE);
        command.args(["--ros-args", "--params-file", file.to_str().unwrap()]);
        command
    };
    let node = Node(start(&format!("{shared}{own}/camera:\n  ros__parameters: {{fps: 30}}\n")).spawn().unwrap());
    let state = domain.ask_peer("wait_until_active.py", &[]);
    assert_eq!(state["state"], "active");
    let log = node.stop_and_read_log();
    for (key, place) in [("'jpeg_quality'", "site.yaml under /**"), ("start_type_description_service", "/perception")] {
        let lines: Vec<_> = log.lines().filter(|line| line.contains(key)).collect();
        assert!(lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains(place), "{key}: {log}");
    }
    assert!(log.contains("qos_overrides./tf.subscription.depth") && !log.contains("fps"), "{log}");

    let said = refused(start("/perception:\n  ros__parameters: {score_treshold: 0.5}\n"));
    assert!(said.contains("'score_treshold' is unknown; did you mean 'score_threshold'?"), "{said}");
}

#[test]
fn without_a_folder_for_its_log_the_node_starts_and_says_so() {
    if ros_is_absent() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, []).unwrap();
    for (variable, value, reason) in [
        ("ROS_LOG_DIR", Some(&file), "cannot be written"),
        ("ROS_HOME", Some(&file), "cannot be written"),
        ("HOME", None, "none of HOME, ROS_HOME and ROS_LOG_DIR is set"),
    ] {
        let domain = Domain::new();
        let mut command = domain.command(NODE);
        for other in ["ROS_LOG_DIR", "ROS_HOME", "HOME"] {
            command.env_remove(other);
        }
        if let Some(value) = value {
            command.env(variable, value);
        }
        command.args(["--ros-args", "-p", "threads:=1"]);
        let node = Node(command.spawn().unwrap());
        assert_eq!(domain.ask_peer("wait_until_active.py", &[])["state"], "active", "{variable}");
        let log = node.stop_and_read_log();
        assert!(log.contains("ROS writes no log files") && log.contains(reason), "{variable}: {log}");
    }
}

#[test]
fn a_camera_info_that_does_not_fit_stops_what_is_on_the_ground() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["mounting:='0 0 5.0 0 0.35 0'", "deadline_ms:=0.0"]);
    let answer = domain.ask_peer("recalibrate.py", &[]);
    for (case, reason) in [
        ("uncalibrated", "k[0] (fx) is 0"),
        ("nan", "k[0] (fx) is NaN"),
        ("negative", "k[0] (fx) is -256"),
        ("coefficients", "d has 2 values"),
        ("larger", "CameraInfo is for images of 640x480"),
        ("other_shape", "CameraInfo is for images of 320x320"),
    ] {
        let (published, level, message) = (&answer[case][0], &answer[case][1], answer[case][2].as_str().unwrap());
        assert_eq!((published, level), (&false.into(), &1.into()), "{case}: {message}");
        assert!(message.starts_with("nothing is placed on the ground: off: ") && message.contains(reason), "{message}");
    }
    for case in ["good", "binned", "good_again"] {
        assert_eq!(answer[case][0], true, "{case}");
        assert!(!answer[case][2].as_str().unwrap().contains("ground"), "{case}: {}", answer[case][2]);
    }
}

#[test]
fn two_cameras_on_one_topic_are_both_named() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["deadline_ms:=0.0"]);
    let answer = domain.ask_peer("share_topic.py", &[]);
    let message = answer["message"].as_str().unwrap();
    assert_eq!(answer["level"], 1, "{message}");
    assert!(message.starts_with("/image has 2 publishers, /peer and /right_camera: "), "{message}");
}

#[test]
fn simulated_time_that_does_not_come_is_named() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["deadline_ms:=0.0", "use_sim_time:=true"]);
    let answer = domain.ask_peer("simulate_time.py", &[]);
    let without = answer["without"].as_array().unwrap();
    assert_eq!(without[0], 1, "{without:?}");
    for sentence in &without[1..] {
        assert!(sentence.as_str().unwrap().contains("no /clock has come for "), "{sentence}");
    }
    let stopped = answer["stopped"].as_str().unwrap();
    assert!(stopped.starts_with("/clock has stood still for ") && stopped.contains("/peer publishes it"), "{stopped}");
    let log = node.stop_and_read_log();
    for line in ["no /clock has come for", "/clock comes again", "/clock has stood still", "/clock went back by"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}

#[test]
fn every_usual_way_to_a_compressed_topic_works_or_is_explained() {
    if ros_is_absent() {
        return;
    }
    let compressed = "image_transport:=compressed";
    for (arguments, answered) in [
        (&["-p", compressed, "-r", "image:=/camera/image_raw"][..], ""),
        (&["-p", compressed, "-r", "image:=/camera/image_raw/compressed"], ""),
        (&["-p", compressed, "-r", "image/compressed:=/camera/image_raw/compressed"], ""),
        (&["-p", compressed, "-p", "image_topic:=/camera/image_raw/compressed"], ""),
        (&["-p", compressed], "-r image:=/camera/image_raw"),
        (&["-r", "image:=/camera/image_raw"], "-p image_transport:=compressed -r image:=/camera/image_raw"),
        (&["-r", "image:=/camera/image_raw/compressed"], "-p image_transport:=compressed -r image:=/camera/image_raw"),
    ] {
        let domain = Domain::new();
        let mut command = domain.command(NODE);
        command.args(["--ros-args", "-p", "deadline_ms:=0.0"]).args(arguments);
        let _node = Node(command.spawn().unwrap());
        let answer = domain.ask_peer("send_compressed.py", &[]);
        if answered.is_empty() {
            assert_eq!(answer["answered"], true, "{arguments:?}: {answer}");
        } else {
            let message = answer["message"].as_str().unwrap();
            assert!(
                message.ends_with(&format!("start this node with --ros-args {answered}")),
                "{arguments:?}: {message}"
            );
        }
    }
}

#[test]
fn a_managed_node_is_activated_however_late_it_comes() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/launch/manage.py");
    let manager = || Node(domain.command(&python).args([script, "/perception"]).spawn().unwrap());
    let ended = |mut manager: Node| manager.wait_for_end(Duration::from_secs(120));
    let early = manager();
    std::thread::sleep(Duration::from_secs(3));
    let node = domain.start_node(&["autostart:=false"]);
    assert_eq!(ended(early), Some(0));
    assert_eq!(domain.ask_peer("wait_until_active.py", &[])["state"], "active");
    assert_eq!(ended(manager()), Some(0), "a node that is active already");
    drop(node);

    let _invalid = domain.start_node(&["autostart:=false", "nms_iou:=7.0"]);
    assert_eq!(ended(manager()), Some(1), "a node that cannot be configured");
}

#[test]
fn a_replayed_camera_says_what_its_jpegs_hold() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/launch/replay_camera.py");
    let mut camera = domain.command(&python);
    let _camera = Node(camera.args([script, "--compressed", "--topic", "image"]).spawn().unwrap());
    let answer = domain.ask_peer("receive_compressed.py", &[]);
    // An rgb8 image, whose JPEG image_transport's decoders give back as bgr8.
    assert_eq!(answer, serde_json::json!({"format": "rgb8; jpeg compressed bgr8", "is_jpeg": true}));
}
