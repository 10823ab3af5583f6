//! Faults of cameras and networks, over the middleware.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

use crate::support::*;

#[test]
fn a_node_whose_log_nobody_reads_goes_on() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    // A pipe that is full before the node's first line.
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filling = writer.try_clone().unwrap();
    std::thread::spawn(move || filling.write_all(&[b' '; 1 << 20]));
    std::thread::sleep(Duration::from_millis(200));
    let mut command = domain.command(NODE);
    let node = Node(command.stderr(writer).spawn().expect("the node can be started"));
    let answers = domain.ask_peer("send_frames.py", &["raw", "4"]);
    assert_eq!(answers.as_array().unwrap().len(), 4);
    assert_eq!(node.end("-INT").0, Some(0));
    drop(reader);
}

#[test]
fn after_every_fault_images_are_answered_within_a_second() {
    if ros_is_absent() {
        return;
    }
    survive("misbehave.py", &["deadline_ms:=0.0"]);
}

#[test]
fn after_bad_compressed_images_good_ones_are_answered() {
    if ros_is_absent() {
        return;
    }
    let last = survive("misbehave_compressed.py", &["deadline_ms:=0.0", "image_transport:=compressed"]);
    assert_eq!(last["truncated_is_answered"], false, "a truncated image is rejected");
    let d = &last["diagnostics"];
    for reason in ["damaged", "compressed_format", "too_large"] {
        assert!(integer(d, &format!("rejected.{reason}")) > 0, "{reason}: {d}");
    }
}

/// Runs a peer that misbehaves twice: images are answered and memory stays bounded. Returns its
/// last answer.
fn survive(peer: &str, parameters: &[&str]) -> serde_json::Value {
    let domain = Domain::alone();
    let node = domain.start_node(parameters);
    let first = domain.ask_peer(peer, &["1"]);
    let before = node.resident_kib();
    let second = domain.ask_peer(peer, &["2"]);
    let after = node.resident_kib();
    for answer in [&first, &second] {
        let d = &answer["diagnostics"];
        assert_counts_add_up(d, 0);
        let by_reason: i64 =
            d.as_object().unwrap().keys().filter(|k| k.starts_with("rejected.")).map(|k| integer(d, k)).sum();
        assert!(integer(d, "rejected") > 0);
        assert_eq!(by_reason, integer(d, "rejected"), "each rejection has its reason: {d}");
        for (after, images) in answer["images_until_answered"].as_object().unwrap() {
            // A second of a camera of 30 Hz.
            assert!(images.as_u64().unwrap() <= 30, "after {after}, it took {images} images until one was answered");
        }
    }
    println!("resident KiB after one round and after two: {before}, {after}");
    println!("images until one was answered: {}", second["images_until_answered"]);
    // The same again needs no more memory; the allowance is for fragmentation.
    assert!(after < before + 65_536, "resident KiB grew from {before} to {after}");
    assert_eq!(node.end("-INT").0, Some(0));
    second
}

#[test]
fn several_cameras_are_answered_each_on_its_own_topics() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&["cameras:=front,rear", "deadline_ms:=0.0"]);
    let a = domain.ask_peer("watch_two_cameras.py", &[]);
    assert_eq!(a["frames"], json!({"front": ["front"], "rear": ["rear"]}));
    for camera in ["front", "rear"] {
        assert_eq!(a["sequences"][camera], json!([1, 2, 3, 4, 5]));
        let status = &a["statuses"][camera];
        assert_eq!(status["topic"], format!("/{camera}/image"));
        assert_counts_add_up(status, 1);
    }
    assert!(node.end("-INT").1.contains("10 images arrived"));
}

#[test]
fn deadline_misses_and_silence_are_reported_and_cleared() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::alone();
    // So many that a status, published once a second, falls into the recovery however fast frames are.
    let parameters = ["deadline_ms:=10000.0", "recover_after_frames:=150", "stale_after_ms:=3000.0"];
    let node = domain.start_node(&parameters);
    // The peer waits for each level and its message.
    let said = domain.ask_peer("miss_deadlines.py", &[]);
    assert!(said["silent"].as_str().unwrap().contains("compatible QoS, but sends nothing"), "{said}");
    assert_eq!(node.end("-INT").0, Some(0));
}

#[test]
fn entering_and_leaving_the_degraded_mode_is_reported() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let node = domain.start_node(&[
        "degraded_mode:=smaller_input",
        "deadline_ms:=10000.0",
        "degrade_after_misses:=3",
        "restore_after_frames:=5",
    ]);
    let said = domain.ask_peer("degrade.py", &[]);
    let expected = json!({
        "before": "full",
        "missed": "degraded: input 192x160 instead of 288x224",
        "after": "full",
    });
    assert_eq!(said, expected);
    let logged = node.stop_and_read_log();
    for words in ["degraded mode entered, to keep deadlines: input 192x160", "degraded mode left"] {
        assert!(logged.contains(words), "{words} in {logged}");
    }
}

#[test]
fn when_no_image_can_arrive_diagnostics_say_why() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["qos_overrides./image.subscription.reliability:=reliable"]);
    let a = domain.ask_peer("publish_incompatible.py", &[]);
    let qos = a["qos"].as_str().unwrap();
    assert!(qos.contains("reliability: it offers best_effort, this node requests reliable"), "{qos}");
    let kind = a["type"].as_str().unwrap();
    assert!(kind.contains("peer publishes sensor_msgs/msg/CompressedImage there"), "{kind}");
    let transport = a["transport"].as_str().unwrap();
    let remedy = "start this node with --ros-args -p image_transport:=foxglove -r image:=/image";
    assert!(transport.contains(remedy), "{transport}");
}

#[test]
fn the_qos_of_every_topic_of_the_node_can_be_overridden() {
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let overrides = [
        "qos_overrides./detections.publisher.reliability:=best_effort",
        "qos_overrides./tracks.publisher.reliability:=best_effort",
        "qos_overrides./debug_image/compressed.publisher.reliability:=best_effort",
        "qos_overrides./label_info.publisher.durability:=volatile",
    ];
    let node = domain.start_node(&overrides);
    let answer = domain.ask_peer("report_qos.py", &[]);
    for (topic, qos) in answer.as_object().unwrap() {
        let expected = match topic.as_str() {
            "detections" | "tracks" | "debug_image/compressed" => "best_effort",
            _ => "reliable",
        };
        assert_eq!(qos, &json!([expected, "volatile"]), "{topic}");
    }
    drop(node);

    let mut command = domain.command(NODE);
    command.args(["--ros-args", "-p", "qos_overrides./track.publisher.reliability:=best_effort"]);
    let said = String::from_utf8_lossy(&command.output().expect("the node can be started").stderr).into_owned();
    assert!(
        said.contains("is for a topic that this node does not have; it has ") && said.contains("/tracks.publisher"),
        "{said}"
    );
}
