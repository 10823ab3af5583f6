//! Cameras that send H.264 or H.265.

use peregrine_support::root;
use peregrine_video::Codec;

use crate::streams::sample_of;
use crate::support::*;

/// A folder of packets of a street; `None` where ffmpeg cannot make them, and the test is skipped.
fn street(codec: Codec) -> Option<tempfile::TempDir> {
    let picture = root().join("models/frames/street-20.jpg");
    let input = ["-loop", "1", "-i", picture.to_str().unwrap()];
    let sample = sample_of(codec, &input, "640x480", 10, &["-crf", "12"])?;
    let folder = tempfile::tempdir().unwrap();
    for (number, packet) in sample.packets.iter().enumerate() {
        std::fs::write(folder.path().join(format!("{number:03}")), packet).unwrap();
    }
    Some(folder)
}

#[test]
fn detections_of_a_video_have_the_stamps_of_its_packets() {
    if ros_is_absent() {
        return;
    }
    for (codec, format, transport) in [
        (Codec::H264, "h264", "compressed"),
        (Codec::H265, "hevc", "compressed"),
        (Codec::H264, "h264", "foxglove"),
        (Codec::H265, "h265", "foxglove"),
    ] {
        let Some(folder) = street(codec) else { return };
        let domain = Domain::new();
        let _node = domain.start_node(&[&format!("image_transport:={transport}"), "deadline_ms:=0.0"]);
        let answer = domain.ask_peer("send_video.py", &[folder.path().to_str().unwrap(), format, transport]);
        let numbers =
            |key: &str| answer[key].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect::<Vec<_>>();
        let (sent, answered) = (numbers("sent"), numbers("answered"));
        assert!(answered.len() >= 6 && answered.iter().all(|stamp| sent.contains(stamp)), "{answer}");
        let boxes = answer["boxes"].as_array().unwrap();
        assert!(!boxes.is_empty() && boxes.iter().all(|found| found["frame_id"] == "eye"), "{answer}");
    }
}

#[test]
fn without_the_library_the_diagnostics_say_what_to_install() {
    if ros_is_absent() {
        return;
    }
    let Some(folder) = street(Codec::H264) else { return };
    let domain = Domain::new();
    let mut command = domain.command(NODE);
    command.env("PEREGRINE_LIBAVCODEC", "/nowhere/libavcodec.so.59");
    command.args(["--ros-args", "-p", "image_transport:=compressed"]);
    let _node = Node(command.spawn().unwrap());
    let answer = domain.ask_peer("send_video.py", &[folder.path().to_str().unwrap(), "h264", "compressed"]);
    let said = answer["message"].as_str().unwrap();
    assert!(said.contains("PEREGRINE_LIBAVCODEC") && said.contains("libavcodec"), "{answer}");
}

#[test]
fn a_video_of_another_codec_is_rejected_with_its_name() {
    if ros_is_absent() {
        return;
    }
    let Some(folder) = street(Codec::H264) else { return };
    let domain = Domain::new();
    let _node = domain.start_node(&["image_transport:=foxglove"]);
    let answer = domain.ask_peer("send_video.py", &[folder.path().to_str().unwrap(), "av1", "foxglove"]);
    let said = answer["message"].as_str().unwrap();
    assert!(said.contains("'av1' is neither h264 nor h265"), "{answer}");
}
