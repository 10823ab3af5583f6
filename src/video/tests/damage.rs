//! Streams that begin in the middle, lose packets, or are damaged: no picture where libavcodec
//! finds damage, and every packet gets its answer.

use peregrine_video::{Codec, Stream, VideoFault};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::support::*;

/// Red, green and blue in H.264, which is no layout of a camera's.
const RGB: &[&str] = &["-c:v", "libx264rgb", "-pix_fmt", "rgb24"];

const CODECS: [Codec; 2] = [Codec::H264, Codec::H265];

fn reasons(answers: &Answers) -> Vec<&'static str> {
    answers.iter().map(|(_, result)| result.as_ref().map_or_else(|fault| fault.reason(), |_| "")).collect()
}

#[test]
fn nothing_is_decoded_before_a_key_frame() {
    for codec in CODECS {
        let Some(sample) = sample(codec, "320x240", 25, &[]) else { return };
        let Some(mut stream) = open(codec) else { return };
        let answers = decode(&mut stream, numbered(&sample).skip(3));
        let expected: Vec<_> = (3..25).map(|number| if number < 10 { "no_key_frame" } else { "" }).collect();
        assert_eq!(reasons(&answers), expected, "{codec:?}");
        for (number, result) in answers.iter().skip(7) {
            assert!(result.as_ref().unwrap().data() == sample.pictures[*number], "{codec:?} {number}");
        }
    }
}

#[test]
fn after_a_lost_packet_all_is_rejected_until_the_next_key_frame() {
    for codec in CODECS {
        let Some(sample) = sample(codec, "320x240", 25, &[]) else { return };
        for lost in [1, 4, 9] {
            let Some(mut stream) = open(codec) else { return };
            let answers = decode(&mut stream, numbered(&sample).filter(|(number, _)| *number != lost));
            for (number, result) in &answers {
                let bad = *number > lost && *number < 10;
                let reason = result.as_ref().map_or_else(|fault| fault.reason(), |_| "");
                let expected = match number {
                    _ if !bad => "",
                    number if *number == lost + 1 => "damaged",
                    _ => "no_key_frame",
                };
                assert_eq!(reason, expected, "{codec:?}, {lost} is lost: {number}");
            }
            let pictures = answers.iter().filter_map(|(number, result)| Some((number, result.as_ref().ok()?)));
            pictures.for_each(|(number, picture)| assert!(picture.data() == sample.pictures[*number]));
        }
    }
}

/// Without the hash libavcodec notices no bit of a frame of H.265 that changes.
#[test]
fn a_hash_of_each_picture_finds_damage_in_h265() {
    let Some(mut sample) = sample(Codec::H265, "320x240", 12, &["-x265-params", "hash=1"]) else { return };
    let Some(mut stream) = open(Codec::H265) else { return };
    let whole = decode(&mut stream, numbered(&sample));
    assert!(whole.iter().all(|(number, result)| result.as_ref().unwrap().data() == sample.pictures[*number]));
    let middle = sample.packets[5].len() / 2;
    sample.packets[5][middle] ^= 0x10;
    let Some(mut stream) = open(Codec::H265) else { return };
    let expected = [&[""; 5][..], &["damaged"], &["no_key_frame"; 4], &[""; 2]].concat();
    assert_eq!(reasons(&decode(&mut stream, numbered(&sample))), expected);
}

#[test]
fn what_is_no_byte_stream_is_refused_with_its_remedy() {
    let Some(mut stream) = open(Codec::H264) else { return };
    let answers =
        decode(&mut stream, [&[][..], &[0, 0, 0, 9, 0x65, 1, 2, 3], &[0xff, 0xd8, 0xff]].into_iter().enumerate());
    assert_eq!(reasons(&answers), ["video_format"; 3]);
    let sentence = answers[0].1.as_ref().unwrap_err().to_string();
    assert!(sentence.contains("h264_mp4toannexb"), "{sentence}");
}

#[test]
fn other_pixel_formats_and_larger_pictures_are_named() {
    let Some(high) = sample_of(Codec::H264, &["-f", "lavfi", "-i", "testsrc2"], "64x48", 2, RGB) else { return };
    let Some(mut stream) = open(Codec::H264) else { return };
    let answers = decode(&mut stream, numbered(&high));
    assert_eq!(answers[0].1.as_ref().unwrap_err(), &VideoFault::PixelFormat("gbrp"));
    for codec in CODECS {
        let Some(sample) = sample(codec, "320x240", 2, &[]) else { return };
        let Ok(mut stream) = Stream::open(codec, 320 * 240 - 1) else { return };
        let answers = decode(&mut stream, numbered(&sample));
        assert_eq!(answers[0].1.as_ref().unwrap_err().reason(), "too_large", "{codec:?}");
    }
}

#[test]
fn parameters_in_a_packet_of_their_own_are_used() {
    for (codec, picture) in [(Codec::H264, 0x65), (Codec::H265, 0x28)] {
        let Some(sample) = sample(codec, "320x240", 3, &["-forced-idr", "1"]) else { return };
        let Some(mut stream) = open(codec) else { return };
        let key = &sample.packets[0];
        let cut =
            key.windows(4).position(|bytes| bytes[..3] == [0, 0, 1] && bytes[3] & 0x7e == picture & 0x7e).unwrap();
        let packets = [&key[..cut], &key[cut..], &sample.packets[1]];
        let answers = decode(&mut stream, packets.into_iter().enumerate());
        assert_eq!(reasons(&answers), ["no_picture", "", ""], "{codec:?}");
        assert!(answers[2].1.as_ref().unwrap().data() == sample.pictures[1]);
    }
}

/// Bytes that are changed, cut off or doubled: what is decoded then may differ, but nothing crashes,
/// and every packet gets one answer.
#[test]
fn any_damage_costs_frames_and_nothing_else() {
    for codec in CODECS {
        let Some(sample) = sample(codec, "160x120", 20, &[]) else { return };
        let change = (0usize..20, any::<prop::sample::Index>(), any::<u8>(), 0..3);
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
        let mut runner =
            TestRunner::new_with_rng(Config { cases: 60, failure_persistence: None, ..Config::default() }, rng);
        let changes = prop::collection::vec(change, 1..6);
        runner
            .run(&changes, |changes| {
                let mut packets = sample.packets.clone();
                for (packet, at, value, kind) in changes {
                    let packet = &mut packets[packet];
                    let at = at.index(packet.len().max(1)).min(packet.len().saturating_sub(1));
                    match kind {
                        0 => packet.truncate(at),
                        1 => packet.extend_from_within(at..),
                        _ => packet.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
                    }
                }
                let Some(mut stream) = open(codec) else { return Ok(()) };
                let answers = decode(&mut stream, packets.iter().map(Vec::as_slice).enumerate());
                let mut numbers: Vec<_> = answers.iter().map(|(number, _)| *number).collect();
                numbers.sort_unstable();
                prop_assert_eq!(numbers, (0..20).collect::<Vec<_>>());
                Ok(())
            })
            .unwrap();
    }
}
