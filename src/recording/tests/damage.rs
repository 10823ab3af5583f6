//! Bags that are cut short, damaged or hostile.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::support::{bag, expected, read, read_all};
use peregrine_recording::{Recording, Selection};

/// A copy of a bag's file with other bytes, alone in a folder.
fn changed(file: &str, change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let source = bag(file);
    let path = folder.path().join(source.file_name().unwrap());
    let mut bytes = fs::read(&source).unwrap();
    change(&mut bytes);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes.windows(wanted.len()).position(|window| window == wanted).unwrap()
}

#[test]
fn a_bag_whose_index_is_lost_is_read_from_end_to_end() {
    let all: Vec<_> = (0..5).map(expected).collect();
    for file in ["mcap_raw/mcap_raw.mcap", "mcap_chunks_zstd/mcap_chunks_zstd.mcap"] {
        // The last 8 bytes are the magic of a whole file, and those before them the footer.
        let (_folder, path) = changed(file, |bytes| bytes.truncate(bytes.len() - 20));
        let (found, warnings) = read_all(&path);
        assert_eq!(found, all, "{file}");
        assert!(warnings[0].contains("has no index, as if its recorder was stopped"), "{warnings:?}");
    }
}

#[test]
fn a_bag_without_metadata_is_found_by_its_files() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["split.mcap", "split_1.mcap"] {
        fs::copy(bag("split").join(file), folder.path().join(file)).unwrap();
    }
    let (found, warnings) = read_all(folder.path());
    assert_eq!(found, (0..5).map(expected).collect::<Vec<_>>());
    assert!(warnings[0].contains("has no metadata.yaml"), "{warnings:?}");
    fs::write(folder.path().join("metadata.yaml"), "rosbag2_bagfile_information:\n  - [").unwrap();
    let (found, warnings) = read_all(folder.path());
    assert!(found.len() == 5 && warnings[0].contains("metadata.yaml cannot be used"), "{warnings:?}");
}

#[test]
fn a_file_of_a_bag_that_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["split_1.mcap", "metadata.yaml"] {
        fs::copy(bag("split").join(file), folder.path().join(file)).unwrap();
    }
    let (found, warnings) = read_all(folder.path());
    assert_eq!(found, [expected(3), expected(4)]);
    assert!(warnings[0].contains("split.mcap: is missing: its images are lost"), "{warnings:?}");
    fs::remove_file(folder.path().join("split_1.mcap")).unwrap();
    let refused = Recording::open(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("none of the files that metadata.yaml lists is there"), "{refused}");
}

#[test]
fn a_file_that_is_cut_short_is_read_as_far_as_it_goes() {
    let all: Vec<_> = (0..5).map(expected).collect();
    let mut most = 0;
    for length in (200..2500).step_by(100) {
        let (_folder, path) = changed("mcap_raw/mcap_raw.mcap", |bytes| bytes.truncate(length));
        let recording = Recording::open(&path).unwrap();
        if recording.topics().iter().all(|topic| topic.name != "/camera") {
            continue;
        }
        let (found, warnings) = read(&recording, &Selection::default());
        assert_eq!(found, all[..found.len()], "{length}");
        assert!(warnings.iter().any(|w| w.contains("is cut short after")), "{length}: {warnings:?}");
        most = most.max(found.len());
    }
    assert!(most > 0);
}

#[test]
fn a_sqlite_file_that_is_cut_short_is_read_as_far_as_it_goes() {
    let all: Vec<_> = (0..5).map(expected).collect();
    let whole = fs::read(bag("sqlite3_raw/sqlite3_raw.db3")).unwrap().len();
    for length in [whole - 4096, whole - 2 * 4096, whole - 5000] {
        let (_folder, path) = changed("sqlite3_raw/sqlite3_raw.db3", |bytes| bytes.truncate(length));
        match Recording::open(&path) {
            Ok(recording) if recording.image_topic(None).is_ok() => {
                let (found, warnings) = read(&recording, &Selection::default());
                assert_eq!(found, all[..found.len()], "{length}");
                let named = warnings.iter().any(|w| w.contains("is cut short or damaged"));
                assert!(found.len() == 5 || named, "{length}: {warnings:?}");
            }
            Ok(_) => {}
            Err(error) => assert!(error.to_string().contains("sqlite3_raw.db3"), "{error}"),
        }
    }
}

#[test]
fn a_message_that_claims_gigabytes_is_refused_without_them() {
    // The length of a message record outside of a chunk: all else of the file is its prey.
    let (_folder, path) = changed("mcap_raw/mcap_raw.mcap", |bytes| {
        let chunk = find(bytes, &[0x06]);
        bytes.truncate(chunk);
        bytes.push(0x05);
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend([0; 64]);
    });
    let warnings = Recording::open(&path).unwrap().warnings().join("\n");
    assert!(warnings.contains("is cut short") || warnings.contains("is damaged"), "{warnings}");
}

#[test]
fn a_message_shorter_than_it_says_is_named() {
    let (_folder, path) = changed("mcap_raw/mcap_raw.mcap", |bytes| {
        // The length of the first image's data: 6 rows of 28 bytes.
        let at = find(bytes, &168u32.to_le_bytes());
        bytes[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    });
    let recording = Recording::open(&path).unwrap();
    let mut images = recording.images(recording.image_topic(None).unwrap(), &Selection::default());
    let error = images.next().unwrap().unwrap_err().to_string();
    assert!(error.contains("/camera at 1000000000000 ns: the message ends early"), "{error}");
    assert!(images.next().unwrap().is_ok());
}

/// Reads whatever is at `path`, to its end.
fn exhaust(path: &Path) {
    let Ok(recording) = Recording::open(path) else { return };
    for topic in recording.topics() {
        let mut images = recording.images(topic, &Selection::default());
        let mut decompressor = peregrine_vision::preprocess::Decompressor::new();
        while let Some(image) = images.next() {
            if let Ok(image) = image {
                let _ = image.view(&mut decompressor, Default::default()).map(|view| view.size());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_bytes_never_panic(
        file in prop::sample::select(vec![
            "mcap_raw/mcap_raw.mcap", "mcap_chunks_zstd/mcap_chunks_zstd.mcap", "mcap_chunks_lz4/mcap_chunks_lz4.mcap",
            "mcap_file_zstd/mcap_file_zstd.mcap.zstd",
            "mcap_message_zstd/mcap_message_zstd.mcap", "sqlite3_raw/sqlite3_raw.db3",
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let (_folder, path) = changed(file, |bytes| {
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
        });
        exhaust(&path);
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000), mcap: bool) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(if mcap { "a.mcap" } else { "a.db3" });
        let magic: &[u8] = if mcap { b"\x89MCAP0\r\n" } else { b"SQLite format 3\0" };
        fs::write(&path, [magic, &bytes].concat()).unwrap();
        exhaust(&path);
    }
}
