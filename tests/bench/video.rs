//! Bags of H.264 and H.265 as the simulated camera's images.

use std::path::Path;
use std::process::{Command, Output};

use crate::recorder::record_in_sqlite;

/// The benchmark of the smallest network on the images of `bag`, with the decoder in `library`.
fn bench(bag: &Path, library: Option<&str>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_latency_bench"));
    command.args(["--closed-loop", "--input-size", "32x32", "--no-segmentation", "--frames"]).arg(bag);
    if let Some(library) = library {
        command.env("PEREGRINE_LIBAVCODEC", library);
    }
    command.output().expect("the program starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn without_a_decoder_one_sentence_names_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let bag = record_in_sqlite(folder.path(), "h264", &[vec![0, 0, 1, 0x65], vec![0, 0, 1, 0x41]]);
    let output = bench(&bag, Some("/nowhere/libavcodec.so"));
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    let remedy = if cfg!(feature = "video") {
        "the file that PEREGRINE_LIBAVCODEC names cannot be loaded as ffmpeg's libavcodec; name its path"
    } else {
        "build it with --features video"
    };
    let said = text(&output);
    let named = "drive.db3: the images of /camera are a video, which cannot be decoded here: ";
    assert!(said.contains(named) && said.contains(remedy), "{said}");
    assert_eq!(said.matches("/camera").count(), 1, "{said}");
}

#[cfg(feature = "video")]
#[test]
fn frames_of_a_recorded_video_are_sent_and_those_without_a_picture_named() {
    use peregrine_video::Codec;

    let folder = tempfile::tempdir().unwrap();
    let Some(sample) = crate::streams::sample(Codec::H265, "64x48", 25, &[]) else { return };
    let Some(_) = crate::streams::open(Codec::H265) else { return };
    let bag = record_in_sqlite(folder.path(), "hevc", &sample.packets[5..]);
    let output = bench(&bag, None);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    assert!(said.contains("15 of 15 images of /camera in ") && said.contains("drive.db3, 64x48"), "{said}");
    assert!(said.contains("H.265 cannot be decoded before its first key frame; 5 frames are skipped"), "{said}");
}
