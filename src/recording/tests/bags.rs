//! Whole bags.

use std::num::NonZeroU16;

use peregrine_core::encoding::{Levels, YuvRange};
use peregrine_recording::{Content, Recording, RecordingError, Selection};

use super::support::{bag, expected, read, read_all, read_with};

#[test]
fn every_storage_and_compression_gives_the_same_images() {
    let all: Vec<_> = (0..5).map(expected).collect();
    for name in [
        "mcap_raw",
        "mcap_file_zstd",
        "mcap_message_zstd",
        "mcap_chunks_zstd",
        "mcap_chunks_lz4",
        "mcap_big_endian",
        "mcap_png",
        "sqlite3_raw",
        "sqlite3_file_zstd",
        "sqlite3_message_zstd",
        "split",
    ] {
        assert_eq!(read_all(&bag(name)), (all.clone(), vec![]), "{name}");
    }
    let (jpegs, warnings) = read_all(&bag("mcap_jpeg"));
    assert_eq!((jpegs.len(), warnings), (5, vec![]));
    for (jpeg, whole) in jpegs.iter().zip(&all) {
        let (_, _, [found, ..]) = jpeg.pixels.clone().unwrap();
        let (_, _, [grey, ..]) = whole.pixels.clone().unwrap();
        assert!(found.abs_diff(grey) <= 2, "{jpeg:?}");
    }
}

#[test]
fn a_single_file_of_a_bag_is_a_recording_too() {
    let all: Vec<_> = (0..5).map(expected).collect();
    for file in [
        "mcap_raw/mcap_raw.mcap",
        "mcap_chunks_zstd/mcap_chunks_zstd.mcap",
        "sqlite3_raw/sqlite3_raw.db3",
        "mcap_file_zstd/mcap_file_zstd.mcap.zstd",
        "sqlite3_file_zstd/sqlite3_file_zstd.db3.zstd",
    ] {
        assert_eq!(read_all(&bag(file)), (all.clone(), vec![]), "{file}");
    }
}

#[test]
fn topics_are_listed_with_types_and_counts() {
    for name in ["mcap_raw", "sqlite3_raw", "mcap_raw/mcap_raw.mcap", "sqlite3_raw/sqlite3_raw.db3"] {
        let recording = Recording::open(&bag(name)).unwrap();
        let topics: Vec<_> = recording.topics().iter().map(|topic| topic.described()).collect();
        let expected = ["/camera (sensor_msgs/msg/Image, 5 messages)", "/other (std_msgs/msg/UInt8, 5 messages)"];
        assert_eq!(topics, expected, "{name}");
        assert_eq!((recording.start(), recording.duration()), (1_000_000_000_000, 400_001_000), "{name}");
    }
}

#[test]
fn a_topic_that_is_not_there_is_answered_with_those_that_are() {
    let recording = Recording::open(&bag("mcap_raw")).unwrap();
    let refused = |wanted| recording.image_topic(Some(wanted)).unwrap_err().to_string();
    assert!(refused("/front")
        .ends_with("has no topic /front; its image topics are: /camera (sensor_msgs/msg/Image, 5 messages)"));
    assert!(refused("/other").contains("the topic /other has no images; the image topics are: /camera"));
    assert!(recording.image_topic(Some("camera")).is_ok(), "without its slash");
    let none = Recording::open(&bag("mcap_no_images")).unwrap();
    let error = none.image_topic(None).unwrap_err();
    assert!(matches!(error, RecordingError::NoImages { .. }) && error.to_string().contains("/speed"), "{error}");
}

#[test]
fn a_time_range_and_every_nth_image_are_picked() {
    for name in ["mcap_raw", "mcap_chunks_zstd", "sqlite3_raw", "split"] {
        let recording = Recording::open(&bag(name)).unwrap();
        let indices = |from, to, every: &str| -> Vec<u64> {
            let selection = Selection { from, to, every: every.parse().unwrap() };
            let (found, _) = read(&recording, &selection);
            found.iter().map(|image| (image.log_time - 1_000_000_000_000) / 100_000_000).collect()
        };
        assert_eq!(indices(Some(0.1), Some(0.3), "1"), [1, 2, 3], "{name}");
        assert_eq!(indices(None, None, "2"), [0, 2, 4], "{name}");
        assert_eq!(indices(Some(0.05), None, "0.2s"), [1, 3], "{name}");
        assert!(indices(Some(9.0), None, "1").is_empty(), "{name}");
    }
}

#[test]
fn encodings_are_converted_and_others_refused_by_name() {
    let (found, _) = read_all(&bag("mcap_encodings"));
    let pixels: Vec<_> = found.into_iter().map(|image| image.pixels).collect();
    // rgb8, bgr8, mono8, all of 80; YUYV of Y = U = V = 80: BT.601 in limited range.
    let yuv = |y: f32, u: f32, v: f32| {
        let (y, u, v) = (1.164_384 * (y - 16.0), u - 128.0, v - 128.0);
        [y + 1.596_027 * v, y - 0.812_968 * v - 0.391_762 * u, y + 2.017_232 * u].map(|c| c.round() as u8)
    };
    let grey = Ok((8, 6, [80; 3]));
    assert_eq!(pixels[..4], [grey.clone(), grey.clone(), grey, Ok((8, 6, yuv(80.0, 80.0, 80.0)))]);
    assert!(pixels[4].as_ref().unwrap_err().contains("the encoding \"32FC1\" is not supported"));
}

#[test]
fn values_are_of_the_levels_that_are_given() {
    let recording = Recording::open(&bag("mcap_levels")).unwrap();
    let greys = |yuv, white| {
        let levels = Levels { yuv, white: NonZeroU16::new(white).unwrap() };
        let (found, _) = read_with(&recording, &Selection::default(), levels);
        found.into_iter().map(|image| image.pixels.unwrap().2).collect::<Vec<_>>()
    };
    // 2000 of 65535 and of 4095, in either byte order; luma of 80 in either range.
    assert_eq!(greys(YuvRange::Limited, 65535), [8, 8, 8, 75, 75].map(|grey| [grey; 3]));
    assert_eq!(greys(YuvRange::Full, 4095), [125, 125, 125, 80, 80].map(|grey| [grey; 3]));
}

#[test]
fn compressed_images_are_yielded_as_they_are() {
    let recording = Recording::open(&bag("mcap_jpeg")).unwrap();
    let mut images = recording.images(recording.image_topic(None).unwrap(), &Selection::default());
    let image = images.next().unwrap().unwrap();
    let Content::Compressed { format, data } = image.content else { panic!("{image:?}") };
    assert_eq!(format, "rgb8; jpeg compressed bgr8");
    assert!(data.starts_with(&[0xff, 0xd8]) && data.ends_with(&[0xff, 0xd9]));
}

#[test]
fn what_is_no_recording_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &std::path::Path| Recording::open(path).unwrap_err().to_string();
    assert!(refused(folder.path()).contains("has no metadata.yaml and no .mcap or .db3 file"));
    let ros1 = folder.path().join("old.bag");
    std::fs::write(&ros1, "#ROSBAG V2.0\n").unwrap();
    assert!(refused(&ros1).contains("is a bag of ROS 1; convert it with `rosbags-convert --src"));
    let other = folder.path().join("a.mcap");
    std::fs::write(&other, "hello").unwrap();
    assert!(refused(&other).contains("is no MCAP file"));
    let other = folder.path().join("a.db3");
    std::fs::write(&other, "hello, this is no database, and that is that").unwrap();
    assert!(refused(&other).contains("is no rosbag2 file of storage sqlite3"));
}
