//! docs/own_student.md, tried word for word: its files as they stand there, its commands in the
//! shell, on a bag that this test makes, down to a message of the node. Fewer steps and a smaller
//! input are all that is changed; the YOLO is a stand-in with constant outputs.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use crate::support::*;
use crate::teacher_support::constant;

/// What is made smaller, so that a debug build is through in seconds.
const SMALLER: [(&str, &str); 5] = [
    ("steps = 3000\nbatch = 16\n", "steps = 2\nbatch = 2\nwarmup = 1\n"),
    ("steps = 1500\nbatch = 16\n", "steps = 2\nbatch = 2\nwarmup = 1\n"),
    ("input = [320, 256]", "input = [96, 64]"),
    ("--evaluate labelled:val --out", "--evaluate labelled:val --images 4 --max-drop 100 --out"),
    // On a busy machine the verdict may be either; anything else is an error.
    ("--schedule recorded --frames 900", "--schedule recorded --frames 6 || [ $? -le 2 ]"),
];

/// The blocks of that language, in order.
fn blocks<'a>(page: &'a str, language: &str) -> Vec<&'a str> {
    let parts = page.split("\n```").collect::<Vec<_>>();
    parts.iter().filter_map(|part| part.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// The sample frames as `sensor_msgs/CompressedImage` in a bag, three a second.
fn record(folder: &Path, topic: &str) {
    const FIRST: i64 = 1_700_000_000_000_000_000;
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    let mut frames: Vec<_> = fs::read_dir(frames).unwrap().flatten().map(|entry| entry.path()).collect();
    frames.retain(|path| path.extension().is_some_and(|ending| ending == "jpg"));
    frames.sort();
    fs::create_dir(folder).unwrap();
    let bag = Connection::open(folder.join("drive_0.db3")).unwrap();
    bag.execute_batch(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, serialization_format TEXT \
         NOT NULL, offered_qos_profiles TEXT NOT NULL);
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, data BLOB \
         NOT NULL);",
    )
    .unwrap();
    let kind = "sensor_msgs/msg/CompressedImage";
    bag.execute("INSERT INTO topics VALUES(1, ?1, ?2, 'cdr', '')", [topic, kind]).unwrap();
    for (i, path) in frames.iter().enumerate() {
        let time = FIRST + i as i64 * 333_333_333;
        let message = compressed_image(time, &fs::read(path).unwrap());
        bag.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(1, ?1, ?2)", (time, message)).unwrap();
    }
    let (count, length) = (frames.len(), (frames.len() as i64 - 1) * 333_333_333);
    let metadata = format!(
        "rosbag2_bagfile_information:\n  version: 5\n  storage_identifier: sqlite3\n  duration:\n    nanoseconds: {length}\n  \
         starting_time:\n    nanoseconds_since_epoch: {FIRST}\n  message_count: {count}\n  topics_with_message_count:\n    - \
         topic_metadata:\n        name: {topic}\n        type: {kind}\n        serialization_format: cdr\n        \
         offered_qos_profiles: ''\n      message_count: {count}\n  compression_format: ''\n  compression_mode: ''\n  \
         relative_file_paths:\n    - drive_0.db3\n"
    );
    fs::write(folder.join("metadata.yaml"), metadata).unwrap();
}

/// The message in CDR: an encapsulation header, then each field aligned to its size.
fn compressed_image(time: i64, jpeg: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 1, 0, 0];
    let number = |bytes: &mut Vec<u8>, value: u32| {
        bytes.resize(4 + (bytes.len() - 4).next_multiple_of(4), 0);
        bytes.extend(value.to_le_bytes());
    };
    number(&mut bytes, (time / 1_000_000_000) as u32);
    number(&mut bytes, (time % 1_000_000_000) as u32);
    for text in ["front", "jpeg"] {
        number(&mut bytes, text.len() as u32 + 1);
        bytes.extend(text.bytes().chain([0]));
    }
    number(&mut bytes, jpeg.len() as u32);
    bytes.extend(jpeg);
    bytes
}

/// A stand-in for the YOLO of four classes: a cone in the middle of every picture.
fn yolo() -> Vec<u8> {
    const CANDIDATES: usize = 84;
    let mut values = vec![0.0; 8 * CANDIDATES];
    for (row, value) in [320.0, 320.0, 200.0, 160.0, 0.9].into_iter().enumerate() {
        values[row * CANDIDATES] = value;
    }
    constant(("images", [1, 3, 640, 640]), &[("output0", [1, 8, CANDIDATES], values)])
}

/// What comes back from labelling, as Ultralytics lays it out.
fn labelled(folder: &Path) {
    let frames = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/frames");
    for (split, stems) in [("train", ["highway-00", "street-20"]), ("val", ["highway-12", "street-26"])] {
        for part in ["images", "labels"] {
            fs::create_dir_all(folder.join(part).join(split)).unwrap();
        }
        for (class, stem) in stems.iter().enumerate() {
            let image = folder.join(format!("images/{split}/{stem}.jpg"));
            fs::copy(frames.join(format!("{stem}.jpg")), image).unwrap();
            let line = format!("{class} 0.5 0.5 0.3 0.3\n2 0.2 0.5 0.1 0.3\n");
            fs::write(folder.join(format!("labels/{split}/{stem}.txt")), line).unwrap();
        }
    }
    let yaml = "train: images/train\nval: images/val\nnames:\n  0: cone\n  1: forklift\n  2: person\n";
    fs::write(folder.join("data.yaml"), yaml).unwrap();
}

fn shell(folder: &Path, script: &str) {
    let program = |name: &str, path: &str| format!("{name}() {{ {path} \"$@\"; }}\n");
    let programs = program("distill", env!("CARGO_BIN_EXE_distill"))
        + &program("latency_bench", env!("CARGO_BIN_EXE_latency_bench"));
    let script = format!("set -eu\n{programs}{script}");
    let output = Command::new("bash").current_dir(folder).args(["-c", &script]).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}");
}

#[test]
fn the_page_leads_from_a_bag_and_a_yolo_to_the_node() {
    if !std::env::var_os("ORT_DYLIB_PATH").is_some_and(|path| Path::new(&path).is_file()) {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
        return;
    }
    let mut page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/own_student.md")).unwrap();
    for (from, to) in SMALLER {
        assert!(page.contains(from), "the page has no {from:?} any more");
        page = page.replace(from, to);
    }
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    record(&folder.join("drive"), "/camera/image_raw/compressed");
    fs::write(folder.join("yolo.onnx"), yolo()).unwrap();
    labelled(&folder.join("labelled"));
    let toml = blocks(&page, "toml");
    let names = ["yolo.toml", "train.toml", "labelled.toml"];
    assert_eq!(toml.len(), names.len());
    names.iter().zip(toml).for_each(|(name, text)| fs::write(folder.join(name), text).unwrap());

    // What sets up the shell, and what starts the node, is this test's.
    let others = [". launch/", "cargo ", "export ", "perception_node "];
    let scripts = blocks(&page, "sh");
    for block in &scripts {
        let is_ours = |line: &&str| !others.iter().any(|other| line.starts_with(other));
        shell(folder, &block.lines().filter(is_ours).collect::<Vec<_>>().join("\n"));
    }

    let start =
        scripts.iter().flat_map(|block| block.lines()).find(|line| line.starts_with("perception_node ")).unwrap();
    assert!(start.contains("-p model:=yard-int8") && start.contains("-p image_transport:=compressed"), "{start}");
    if ros_is_absent() {
        return;
    }
    let domain = Domain::new();
    let model = format!("model:={}", folder.join("yard-int8").display());
    let _node =
        domain.start_node(&[&model, "image_transport:=compressed", "deadline_ms:=0.0", "score_threshold:=0.01"]);
    let answers = domain.ask_peer("send_frames.py", &["compressed", "3"]);
    let detections = answers.as_array().unwrap().iter().flat_map(|a| a["detections"].as_array().unwrap());
    let classes: Vec<_> = detections.map(|found| found["class"].as_str().unwrap().to_owned()).collect();
    assert!(classes.iter().all(|class| ["cone", "forklift", "person"].contains(&class.as_str())), "{classes:?}");
}
