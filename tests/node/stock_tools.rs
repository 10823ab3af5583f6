//! The node under the commands of `ros2`, where they are installed.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::*;

/// Longest time for a command's answer.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs `ros2 ARGUMENTS` until it ends or prints one of `words`; for commands that would go on.
fn ros2(domain: &Domain, arguments: &str, words: &[&str]) {
    let printed = tempfile::NamedTempFile::new().unwrap();
    let mut command = domain.command("ros2");
    command.args(arguments.split_whitespace()).env("PYTHONUNBUFFERED", "1");
    // Both write to the end of one file.
    let file = || Stdio::from(std::fs::OpenOptions::new().append(true).open(printed.path()).unwrap());
    let mut child = command.stdout(file()).stderr(file()).spawn().unwrap();
    let give_up = Instant::now() + TIMEOUT;
    let text = loop {
        let ended = child.try_wait().unwrap().is_some();
        let text = std::fs::read_to_string(printed.path()).unwrap();
        if words.iter().all(|word| text.contains(word)) {
            break text;
        }
        if ended || Instant::now() > give_up {
            let _ = child.kill();
            panic!("ros2 {arguments} said:\n{text}\nwithout {words:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let _ = child.kill();
    let _ = child.wait();
    println!("$ ros2 {arguments}\n{text}");
}

#[test]
fn the_commands_of_ros2_drive_and_show_the_node() {
    if ros_is_absent() {
        return;
    }
    if Command::new("ros2").args(["lifecycle", "--help"]).output().is_err() {
        peregrine_support::skip("ros2cli", "there is no `ros2 lifecycle`");
        return;
    }
    let domain = Domain::new();
    let _node = domain.start_node(&["deadline_ms:=0.0"]);
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/launch/replay_camera.py");
    let mut camera = domain.command(&python);
    let _camera = Node(camera.args([script, "--topic", "image", "--rate", "10"]).spawn().unwrap());
    for (arguments, words) in [
        ("node list --no-daemon --spin-time 5", &["/perception"][..]),
        (
            "node info --no-daemon --spin-time 5 /perception",
            &["Publishers:", "/detections: vision_msgs/msg/Detection2DArray"],
        ),
        ("lifecycle nodes --no-daemon --spin-time 5", &["/perception"]),
        ("lifecycle get --no-daemon --spin-time 5 /perception", &["active [3]"]),
        ("lifecycle list --no-daemon --spin-time 5 /perception", &["deactivate", "shutdown"]),
        ("param list --no-daemon --spin-time 5 /perception", &["score_threshold", "deadline_ms"]),
        ("param describe --no-daemon --spin-time 5 /perception nms_iou", &["Type: double", "Max value: 1"]),
        ("param set --no-daemon --spin-time 5 /perception nms_iou 0.25", &["Set parameter successful"]),
        ("param get --no-daemon --spin-time 5 /perception nms_iou", &["Double value is: 0.25"]),
        ("topic info --no-daemon --spin-time 5 -v /detections", &["Publisher count: 1", "Reliability: RELIABLE"]),
        ("topic echo --no-daemon --spin-time 5 --once /timing", &["latency_ms:", "sequence:"]),
        ("topic hz --spin-time 5 /detections", &["average rate:"]),
        ("doctor", &["check"]),
        ("lifecycle set --no-daemon --spin-time 5 /perception deactivate", &["Transitioning successful"]),
        ("lifecycle get --no-daemon --spin-time 5 /perception", &["inactive [2]"]),
        ("lifecycle set --no-daemon --spin-time 5 /perception activate", &["Transitioning successful"]),
    ] {
        ros2(&domain, arguments, words);
    }
}
