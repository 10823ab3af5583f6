//! Recordings and traces of times.

use peregrine_bench::timetable::{FrameSchedule, Timetable};
use peregrine_recording::{Recording, Selection};

use crate::scratch::Scratch;
use crate::tracked;

/// More images than this are not read of one file.
const IMAGES: usize = 64;

/// A trace of times, or a result that has one.
pub fn trace(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| {
        let path = folder.write("trace", data);
        if let Ok(table) = Timetable::new(&FrameSchedule::Trace { path, unit: None }, 10, 1e6) {
            assert!((1..10).all(|i| table.offset(i) >= table.offset(i - 1)), "it runs backwards");
        }
    });
}

/// Lines, and a result.
pub fn trace_seeds() -> Vec<Vec<u8>> {
    let result = r#"{"frames": {"camera": [0, 0, 1], "scheduled_us": [0, 5, 0]}}"#;
    vec![b"# seconds\n0.0\n0.033\n0.066\n".to_vec(), result.into()]
}

fn read(folder: &Scratch, name: &str, data: &[u8]) {
    let Ok(recording) = Recording::open(&folder.write(name, data)) else { return };
    let topics: Vec<_> = recording.topics().to_vec();
    for topic in &topics {
        let mut images = recording.images(topic, &Selection::default());
        for _ in 0..IMAGES {
            match images.next() {
                Some(Ok(image)) => drop(format!("{image:?}").len()),
                Some(Err(_)) => {}
                None => break,
            }
        }
    }
}

/// An MCAP file.
pub fn mcap(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| read(folder, "a.mcap", data));
}

/// Those that the reader's tests keep.
pub fn mcap_seeds() -> Vec<Vec<u8>> {
    let names = [
        "big_endian",
        "chunks_lz4",
        "chunks_zstd",
        "encodings",
        "jpeg",
        "levels",
        "message_zstd",
        "no_images",
        "png",
        "raw",
    ];
    names.map(|name| tracked(&format!("tests/reference/bags/mcap_{name}/mcap_{name}.mcap"))).into()
}

/// A rosbag2 file of SQLite.
pub fn sqlite(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    FOLDER.with(|folder| read(folder, "a.db3", data));
}

/// Those that the reader's tests keep.
pub fn sqlite_seeds() -> Vec<Vec<u8>> {
    ["raw", "message_zstd"]
        .map(|name| tracked(&format!("tests/reference/bags/sqlite3_{name}/sqlite3_{name}.db3")))
        .into()
}
