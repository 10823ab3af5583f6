//! Whole streams: every picture is ffmpeg's own, bit by bit, and belongs to its packet.

use peregrine_video::Codec;

use crate::support::*;

const CODECS: [Codec; 2] = [Codec::H264, Codec::H265];

#[test]
fn every_packet_gives_its_picture_as_ffmpeg_decodes_it() {
    for codec in CODECS {
        for size in ["320x240", "332x250"] {
            let Some(sample) = sample(codec, size, 35, &[]) else { return };
            let Some(mut stream) = open(codec) else { return };
            let answers = decode(&mut stream, numbered(&sample));
            assert_eq!((sample.packets.len(), sample.pictures.len(), answers.len()), (35, 35, 35));
            for (at, ((number, result), expected)) in answers.iter().zip(&sample.pictures).enumerate() {
                assert_eq!(*number, at, "{codec:?}: none is held back");
                let picture = result.as_ref().unwrap();
                assert_eq!(format!("{}x{}", picture.width(), picture.height()), size);
                assert!(picture.data() == expected, "{codec:?} {size}, picture {at}");
                assert!(!picture.is_full_range());
            }
        }
    }
}

#[test]
fn pictures_in_another_order_keep_their_packets() {
    for codec in CODECS {
        let Some(sample) = sample(codec, "320x240", 30, &["-tune", "animation", "-bf", "2"]) else { return };
        let Some(mut stream) = open(codec) else { return };
        let answers = decode(&mut stream, numbered(&sample));
        assert_eq!(answers.len(), 30);
        let shown: Vec<_> =
            answers.iter().filter_map(|(number, result)| Some((number, result.as_ref().ok()?))).collect();
        assert!(shown.len() >= 25, "{codec:?}: {answers:?}");
        assert!(shown.windows(2).any(|two| two[0].0 > two[1].0), "{codec:?}: the order is another");
        for ((_, picture), expected) in shown.iter().zip(&sample.pictures) {
            assert!(picture.data() == expected, "{codec:?}");
        }
    }
}

#[test]
fn the_range_of_values_and_grey_streams_are_told() {
    for (codec, full) in [(Codec::H264, "-color_range"), (Codec::H265, "-color_range")] {
        let Some(sample) = sample(codec, "64x48", 3, &[full, "pc"]) else { return };
        let Some(mut stream) = open(codec) else { return };
        for (_, result) in decode(&mut stream, numbered(&sample)) {
            assert!(result.unwrap().is_full_range(), "{codec:?}");
        }
    }
    let Some(sample) = sample(Codec::H264, "64x48", 3, &["-pix_fmt", "gray"]) else { return };
    let Some(mut stream) = open(Codec::H264) else { return };
    for (_, result) in decode(&mut stream, numbered(&sample)) {
        let picture = result.unwrap();
        assert!(picture.data().len() == 64 * 48 * 3 / 2 && picture.data()[64 * 48..].iter().all(|&value| value == 128));
    }
}

#[test]
fn a_size_that_changes_at_a_key_frame_is_followed() {
    for codec in CODECS {
        let (Some(first), Some(second)) = (sample(codec, "320x240", 5, &[]), sample(codec, "160x120", 5, &[])) else {
            return;
        };
        let Some(mut stream) = open(codec) else { return };
        let packets = first.packets.iter().chain(&second.packets).map(Vec::as_slice).enumerate();
        let answers = decode(&mut stream, packets);
        let expected: Vec<_> = first.pictures.iter().chain(&second.pictures).collect();
        assert_eq!(answers.len(), 10);
        for ((number, result), expected) in answers.into_iter().zip(expected) {
            assert!(result.unwrap().data() == expected, "{codec:?} {number}");
        }
    }
}

#[test]
fn pictures_that_are_held_back_come_at_the_end() {
    for codec in CODECS {
        let Some(sample) = sample(codec, "320x240", 30, &["-tune", "animation", "-bf", "2"]) else { return };
        let Some(mut stream) = open(codec) else { return };
        // Twice: a stream may follow one that has ended.
        for _ in 0..2 {
            let mut shown = Vec::new();
            for (number, packet) in numbered(&sample) {
                stream.push(Packet(number, packet), |_, result| shown.push(result.unwrap()));
            }
            assert!(shown.len() < 30, "{codec:?}: some are held back");
            stream.finish(|_, result| shown.push(result.unwrap()));
            assert!(shown.iter().map(|picture| picture.data()).eq(&sample.pictures), "{codec:?}");
        }
    }
}

/// Where chroma is joined, the two differ in the filter: so the scene is smooth.
#[test]
fn other_layouts_become_what_ffmpeg_makes_of_them() {
    let frame = peregrine_support::root().join("models/frames/street-20.jpg");
    let input = ["-loop", "1", "-i", frame.to_str().unwrap()];
    for codec in CODECS {
        for layout in ["yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"] {
            let options = ["-vf", "gblur=sigma=8", "-crf", "8", "-pix_fmt", layout];
            let Some(sample) = sample_of(codec, &input, "320x240", 2, &options) else { return };
            let Some(far) = levels_from_ffmpeg(codec, &sample, "null") else { return };
            assert!(far <= 2, "{codec:?} {layout}: {far} levels");
        }
    }
}

#[test]
fn colours_of_bt709_are_brought_to_bt601() {
    for codec in CODECS {
        for range in ["tv", "pc"] {
            let to = format!("scale=out_color_matrix=bt709:out_range={range}");
            let options = ["-vf", &to, "-colorspace", "bt709", "-color_range", range, "-crf", "8"];
            let Some(sample) = sample(codec, "320x240", 2, &options) else { return };
            let scale =
                |out| format!("scale=in_color_matrix=bt709:out_color_matrix={out}:in_range={range}:out_range={range}");
            let Some(far) = levels_from_ffmpeg(codec, &sample, &scale("bt601")) else { return };
            let Some(without) = levels_from_ffmpeg(codec, &sample, &scale("bt709")) else { return };
            assert!(far <= 2 && without > 10, "{codec:?} {range}: {far} levels, {without}");
        }
    }
}

/// The difference that 98 % of the values of our pictures of a sample of 320x240 keep to from ffmpeg's through
/// `filter`, which at sharp edges goes by other values of chroma.
fn levels_from_ffmpeg(codec: Codec, sample: &Sample, filter: &str) -> Option<u8> {
    let expected = by_ffmpeg(codec, sample, (320, 240), filter)?;
    let mut stream = open(codec)?;
    let answers = decode(&mut stream, numbered(sample));
    assert_eq!((answers.len(), expected.len()), (sample.packets.len(), sample.packets.len()));
    let far = answers.iter().zip(&expected).flat_map(|((_, result), expected)| {
        let found = result.as_ref().unwrap().data();
        assert_eq!(found.len(), expected.len());
        found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b))
    });
    let mut far: Vec<u8> = far.collect();
    far.sort_unstable();
    Some(far[far.len() * 98 / 100])
}
