//! Recordings of a video's packets, a message for each: number i is logged at [`START`] + i ·
//! [`PERIOD`], and stamped 20 ms earlier, in the frame "front".

#![allow(dead_code, reason = "each test program uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use peregrine_support::skip;

pub const IMAGE: &str = "sensor_msgs/msg/CompressedImage";
pub const VIDEO: &str = "foxglove_msgs/msg/CompressedVideo";
/// Nanoseconds.
pub const START: u64 = 1_000_000_000_000;
/// Nanoseconds.
pub const PERIOD: u64 = 100_000_000;

/// Records the packets as messages of `type_name`; `None`, with a word, where that cannot be done.
pub fn record(folder: &Path, type_name: &str, format: &str, packets: &[Vec<u8>]) -> Option<PathBuf> {
    let Some(readers) = std::env::var_os("PEREGRINE_READERS") else {
        skip("mcap", "the writer of recordings is not installed; run launch/setup/setup.sh");
        return None;
    };
    let (files, path) = (folder.join("packets"), folder.join("drive.mcap"));
    let _ = fs::remove_dir_all(&files);
    fs::create_dir(&files).unwrap();
    for (number, packet) in packets.iter().enumerate() {
        fs::write(files.join(format!("{number:04}")), packet).unwrap();
    }
    let python = std::env::var("PEREGRINE_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = peregrine_support::root().join("tests/peer/write_video.py");
    let mut command = Command::new(python);
    command.env("PYTHONPATH", readers).arg(script).arg(&path).args([type_name, format]).arg(files);
    assert!(command.status().unwrap().success());
    Some(path)
}

/// The same packets as a rosbag2 file of SQLite, with messages of CompressedVideo.
pub fn record_in_sqlite(folder: &Path, format: &str, packets: &[Vec<u8>]) -> PathBuf {
    let path = folder.join("drive.db3");
    let _ = fs::remove_file(&path);
    let file = rusqlite::Connection::open(&path).unwrap();
    file.execute_batch(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT,
             offered_qos_profiles TEXT);
         CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, data BLOB);
         INSERT INTO topics VALUES (1, '/camera', 'foxglove_msgs/msg/CompressedVideo', 'cdr', '');",
    )
    .unwrap();
    for (number, packet) in packets.iter().enumerate() {
        let logged = START + number as u64 * PERIOD;
        let stamp = logged - 20_000_000;
        let mut message = vec![0, 1, 0, 0];
        message.extend(((stamp / 1_000_000_000) as u32).to_le_bytes());
        message.extend(((stamp % 1_000_000_000) as u32).to_le_bytes());
        for bytes in [b"front\0", &packet[..], format!("{format}\0").as_bytes()] {
            message.resize(message.len().next_multiple_of(4), 0);
            message.extend((bytes.len() as u32).to_le_bytes());
            message.extend(bytes);
        }
        let row = rusqlite::params![logged as i64, message];
        file.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?1, ?2)", row).unwrap();
    }
    path
}
