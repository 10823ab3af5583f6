//! Videos: packets of H.264 and H.265, as libavcodec decodes them where it is installed. The library
//! itself is not instrumented: what guides the fuzzer is this project's code around it.

use peregrine_video::{Codec, Picture, Stream, VideoFault};

use crate::tracked;

/// Larger pictures are refused: most of the time would go into their pixels.
const MAX_PIXELS: usize = 128 * 128;

/// Bits of the first byte: H.265, a packet that was lost after the third, and a whole end.
const H265: u8 = 1;
const LOST: u8 = 2;
const WHOLE_END: u8 = 4;

/// `[bits]`, then a byte stream, cut into packets before each delimiter.
pub fn packets(data: &[u8]) {
    let Some((&bits, bytes)) = data.split_first() else { return };
    let codec = if bits & H265 == 0 { Codec::H264 } else { Codec::H265 };
    let Ok(mut stream) = Stream::open(codec, MAX_PIXELS) else { return };
    let packets = cut(codec, bytes);
    let mut answers = vec![0; packets.len()];
    let mut answer = |Packet(number, _): Packet, result: Result<Picture, VideoFault>| {
        answers[number] += 1;
        match result {
            Ok(picture) => {
                let view = picture.view().expect("an image");
                assert!(view.width() * view.height() <= MAX_PIXELS, "too large a picture");
            }
            Err(fault) => assert!(!fault.to_string().is_empty()),
        }
    };
    for (number, packet) in packets.iter().enumerate() {
        if bits & LOST != 0 && number == 3 {
            stream.interrupt(&mut answer);
        }
        stream.push(Packet(number, packet), &mut answer);
    }
    if bits & WHOLE_END != 0 {
        stream.finish(&mut answer);
    } else {
        stream.end(&mut answer);
    }
    assert!(answers.iter().all(|&count| count == 1), "answers to each packet: {answers:?}");
}

struct Packet<'a>(usize, &'a [u8]);

impl AsRef<[u8]> for Packet<'_> {
    fn as_ref(&self) -> &[u8] {
        self.1
    }
}

fn cut(codec: Codec, bytes: &[u8]) -> Vec<&[u8]> {
    let head = if codec == Codec::H264 { 0x09 } else { 0x46 };
    let starts = bytes.windows(5).enumerate().filter(|(_, window)| *window == [0, 0, 0, 1, head]);
    let mut ends: Vec<usize> = starts.map(|(at, _)| at).filter(|&at| at > 0).collect();
    ends.push(bytes.len());
    let mut start = 0;
    ends.into_iter().map(|end| &bytes[std::mem::replace(&mut start, end)..end]).collect()
}

/// Live streams and reordered ones, of both codecs, in each way.
pub fn packets_seeds() -> Vec<Vec<u8>> {
    let files = [("live.h264", 0), ("reordered.h264", 0), ("live.h265", H265), ("reordered.h265", H265)];
    let ways = [0, WHOLE_END, LOST, LOST | WHOLE_END];
    let of = |(name, codec): (&str, u8)| {
        let stream = tracked(&format!("tests/reference/video/{name}"));
        ways.map(|way| [&[codec | way][..], &stream].concat())
    };
    files.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_whole_streams_of_eight_packets() {
        for seed in packets_seeds() {
            let codec = if seed[0] & H265 == 0 { Codec::H264 } else { Codec::H265 };
            assert_eq!(cut(codec, &seed[1..]).len(), 8);
        }
    }
}
