//! Videos, where ffmpeg is installed.

use std::path::Path;
use std::process::Command;

use peregrine_recording::{Recording, Selection};
use peregrine_support::skip;

use super::support::read;

/// A video of 2 s at 10 Hz, of one colour each second. `None`, with a word, without ffmpeg.
fn video(folder: &Path) -> Option<std::path::PathBuf> {
    let path = folder.join("drive.mkv");
    let mut ffmpeg = Command::new("ffmpeg");
    ffmpeg.args(["-v", "error", "-f", "lavfi", "-i", "color=c=0x204060:s=64x48:r=10:d=1"]);
    ffmpeg.args(["-f", "lavfi", "-i", "color=c=0xe0c0a0:s=64x48:r=10:d=1", "-filter_complex", "concat=n=2"]);
    let made = ffmpeg.args(["-c:v", "ffv1", "-pix_fmt", "bgr0"]).arg(&path).status();
    if !made.is_ok_and(|status| status.success()) {
        skip("ffmpeg", "ffmpeg is not installed");
        return None;
    }
    Some(path)
}

#[test]
fn a_video_gives_its_pictures_with_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let Some(path) = video(folder.path()) else { return };
    let recording = Recording::open(&path).unwrap();
    let (found, warnings) = read(&recording, &Selection::default());
    assert_eq!((found.len(), warnings), (20, vec![]));
    for (i, picture) in found.iter().enumerate() {
        assert_eq!(picture.stamp, i as u64 * 100_000_000);
        let colour = if i < 10 { [0x20, 0x40, 0x60] } else { [0xe0, 0xc0, 0xa0] };
        let (width, height, found) = picture.pixels.clone().unwrap();
        // The colours pass through YUV.
        assert!((width, height) == (64, 48) && (0..3).all(|c| found[c].abs_diff(colour[c]) <= 2), "{picture:?}");
    }
    let selection = Selection { from: Some(0.5), to: Some(1.5), every: "0.5s".parse().unwrap() };
    let stamps: Vec<_> = read(&recording, &selection).0.iter().map(|picture| picture.stamp / 1_000_000).collect();
    assert_eq!(stamps[..2], [500, 1000]);
    let refused = recording.image_topic(Some("/camera")).unwrap_err().to_string();
    assert!(refused.contains("a video has no topics"), "{refused}");
}

#[test]
fn what_is_no_video_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    if video(folder.path()).is_none() {
        return;
    }
    let path = folder.path().join("a.mp4");
    std::fs::write(&path, "no video").unwrap();
    let refused = Recording::open(&path).unwrap_err().to_string();
    assert!(refused.contains("a.mp4: ffprobe cannot read this video"), "{refused}");
}
