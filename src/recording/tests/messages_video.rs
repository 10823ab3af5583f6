//! Videos whose frames the messages of a topic carry: streams that ffmpeg encodes, recorded by
//! PyPI's writer, and what ffmpeg decodes of them.

use std::path::Path;

use peregrine_recording::{Content, Recording, Selection};
use peregrine_support::skip;
use peregrine_video::Codec;

use super::recorder::{record, record_in_sqlite, IMAGE, PERIOD, START, VIDEO};
use super::streams::{sample, Sample};

/// What was read.
#[derive(Default)]
struct Read {
    /// Numbers of the messages, by their log times, and the pictures.
    pictures: Vec<(u64, Vec<u8>)>,
    /// Why a message has no picture, with its number.
    without: Vec<(u64, String)>,
    passed_over: u64,
    warnings: Vec<String>,
}

impl Read {
    fn numbers(&self) -> Vec<u64> {
        self.pictures.iter().map(|(number, _)| *number).collect()
    }
}

/// Reads the only topic; `None`, with a word, where there is no decoder.
fn read(path: &Path, from: Option<f64>, every: &str) -> Option<Read> {
    let recording = Recording::open(path).unwrap();
    let topic = recording.image_topic(None).unwrap();
    let mut images = recording.images(topic, &Selection { from, to: None, every: every.parse().unwrap() });
    let mut found = Read::default();
    let number = |log_time: u64| (log_time - START) / PERIOD;
    while let Some(image) = images.next() {
        match image {
            Ok(image) => {
                let Content::Decoded(picture) = image.content else { panic!("{image:?}") };
                assert_eq!((image.stamp, &image.frame_id[..]), (image.log_time - 20_000_000, "front"));
                found.pictures.push((number(image.log_time), picture.data().to_vec()));
            }
            Err(unreadable) => found.without.push((number(unreadable.log_time), unreadable.why)),
        }
    }
    if let Err(error) = images.ended() {
        skip("ffmpeg", &error.to_string());
        return None;
    }
    found.passed_over = images.passed_over();
    found.warnings = recording.warnings().iter().chain(images.warnings()).cloned().collect();
    Some(found)
}

fn assert_pictures(found: &Read, sample: &Sample) {
    for (number, picture) in &found.pictures {
        assert!(*picture == sample.pictures[*number as usize], "picture {number}");
    }
}

#[test]
fn every_frame_of_a_recorded_video_is_ffmpegs_own_picture() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, format) in [(Codec::H264, "h264"), (Codec::H265, "h265")] {
        let Some(sample) = sample(codec, "64x48", 25, &[]) else { return };
        let sqlite = record_in_sqlite(folder.path(), format, &sample.packets);
        let mut files = vec![sqlite.clone()];
        for type_name in [IMAGE, VIDEO] {
            files.extend(record(folder.path(), type_name, format, &sample.packets));
            let Some(found) = read(files.last().unwrap(), None, "1") else { return };
            assert_eq!((found.numbers(), found.without), ((0..25).collect(), vec![]), "{codec:?} {type_name}");
            assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        }
        let Some(found) = read(&sqlite, None, "1") else { return };
        assert_eq!(found.numbers(), (0..25).collect::<Vec<_>>());
        assert_pictures(&found, &sample);
    }
}

#[test]
fn pictures_in_another_order_are_all_there_and_in_order() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, format) in [(Codec::H264, "h264"), (Codec::H265, "hevc")] {
        let Some(sample) = sample(codec, "64x48", 30, &["-tune", "animation", "-bf", "2"]) else { return };
        let Some(path) = record(folder.path(), VIDEO, format, &sample.packets) else { return };
        let Some(found) = read(&path, None, "1") else { return };
        assert!(found.pictures.iter().map(|(_, picture)| picture).eq(&sample.pictures), "{codec:?}");
    }
}

#[test]
fn frames_before_the_first_key_frame_are_counted_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let Some(sample) = sample(Codec::H264, "64x48", 25, &[]) else { return };
    let Some(path) = record(folder.path(), IMAGE, "h264", &sample.packets[3..]) else { return };
    let Some(found) = read(&path, None, "5") else { return };
    // Messages 0 to 6 are packets 3 to 9; every fifth of the others.
    assert_eq!((found.numbers(), found.passed_over), (vec![7, 12, 17], 12));
    assert!(found.pictures[0].1 == sample.pictures[10] && found.pictures[2].1 == sample.pictures[20]);
    let why = "H.264 cannot be decoded before its first key frame";
    assert_eq!(found.without, (0..7).map(|number| (number, why.to_owned())).collect::<Vec<_>>());
    let named = format!("/drive.mcap: /camera: message 1, logged at {START} ns: {why}; 7 frames are skipped");
    assert!(found.warnings.len() == 1 && found.warnings[0].ends_with(&named), "{:?}", found.warnings);
}

#[test]
fn damage_is_named_once_by_file_topic_and_message() {
    let folder = tempfile::tempdir().unwrap();
    for (codec, format) in [(Codec::H264, "h264"), (Codec::H265, "h265")] {
        let Some(mut sample) = sample(codec, "64x48", 25, &[]) else { return };
        sample.packets.remove(4);
        let (mut numbers, mut damaged): (Vec<u64>, _) = ((0..4).chain(9..24).collect(), vec![5]);
        // That a frame of H.265 breaks off libavcodec does not notice.
        if codec == Codec::H264 {
            let broken = &mut sample.packets[14];
            broken.truncate(broken.len() / 2);
            numbers.retain(|number| !(14..19).contains(number));
            damaged.push(15);
        }
        let Some(path) = record(folder.path(), VIDEO, format, &sample.packets) else { return };
        let Some(found) = read(&path, None, "1") else { return };
        assert_eq!((found.numbers(), found.without.len()), (numbers, 5 * damaged.len()), "{codec:?}");
        let name = codec.name();
        assert_eq!(found.warnings.len(), damaged.len());
        for (number, warning) in damaged.into_iter().zip(&found.warnings) {
            let named = format!(
                "/drive.mcap: /camera: message {number}, logged at {} ns: the {name} frame is damaged, or one before it \
                 was lost; 5 frames are skipped, up to the next key frame",
                START + (number - 1) * PERIOD
            );
            assert!(warning.ends_with(&named), "{warning}");
        }
    }
}

#[test]
fn a_time_range_begins_with_its_own_picture() {
    let folder = tempfile::tempdir().unwrap();
    let Some(sample) = sample(Codec::H264, "64x48", 35, &[]) else { return };
    let files = [
        record(folder.path(), IMAGE, "h264", &sample.packets),
        Some(record_in_sqlite(folder.path(), "h264", &sample.packets)),
    ];
    for path in files.into_iter().flatten() {
        for from in [0, 9, 10, 17, 29] {
            let Some(found) = read(&path, Some(from as f64 / 10.0), "1") else { return };
            assert_eq!((found.numbers(), found.without), ((from..35).collect(), vec![]), "{}", path.display());
            assert!(found.warnings.is_empty(), "{:?}", found.warnings);
        }
        let Some(found) = read(&path, Some(1.25), "4") else { return };
        assert_eq!(found.numbers(), [13, 17, 21, 25, 29, 33]);
        assert_pictures(&found, &sample);
        let Some(found) = read(&path, Some(60.0), "1") else { return };
        assert!(found.pictures.is_empty() && found.without.is_empty() && found.warnings.is_empty());
    }
}

#[test]
fn a_codec_that_is_not_decoded_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = record_in_sqlite(folder.path(), "vp9", &[vec![1, 2, 3], vec![4]]);
    let Some(found) = read(&path, None, "1") else { return };
    assert_eq!(found.without[1], (1, "the video's format is \"vp9\"; h264 and h265 are read".to_owned()));
}

#[test]
fn a_video_that_is_no_byte_stream_is_refused_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let packets = [vec![0, 0, 0, 9, 0x65, 1, 2, 3], vec![0xff, 0xd8]];
    let path = record_in_sqlite(folder.path(), "h264", &packets);
    let Some(found) = read(&path, None, "1") else { return };
    assert!(found.without.len() == 2 && found.warnings.len() == 1, "{:?}", found.warnings);
    assert!(found.warnings[0].contains("h264_mp4toannexb"), "{:?}", found.warnings);
    assert!(found.warnings[0].ends_with("2 frames are skipped, up to the end"), "{:?}", found.warnings);
}
