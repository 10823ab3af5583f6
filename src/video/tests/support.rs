//! Streams, packet by packet, and ffmpeg's own decoding of them.

#![allow(dead_code, reason = "each test program uses its part")]

use std::path::Path;
use std::process::Command;

use peregrine_support::skip;
use peregrine_video::{Codec, Picture, Stream, VideoFault};

pub const MAX_PIXELS: usize = 1 << 24;

/// A stream: its packets, and all pictures in I420 as ffmpeg decodes them, in the order in which
/// they are shown.
pub struct Sample {
    pub packets: Vec<Vec<u8>>,
    pub pictures: Vec<Vec<u8>>,
}

/// Runs ffmpeg; false if it is not installed or lacks an encoder, and the test is skipped.
fn ffmpeg(arguments: &[&str], output: &Path) -> bool {
    let mut command = Command::new("ffmpeg");
    command.args(["-nostdin", "-y", "-loglevel", "error"]).args(arguments).arg(output);
    let why = match command.output() {
        Ok(output) if output.status.success() => return true,
        Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
        Err(error) => error.to_string(),
    };
    skip("ffmpeg", &format!("ffmpeg did not make a stream: {why}"));
    false
}

/// `frames` pictures of `size`, encoded with `options` beside what a live camera uses; `None` where
/// ffmpeg cannot make them, and the test is skipped.
pub fn sample(codec: Codec, size: &str, frames: usize, options: &[&str]) -> Option<Sample> {
    let source = format!("testsrc2=size={size}:rate=30");
    sample_of(codec, &["-f", "lavfi", "-i", &source], size, frames, options)
}

/// The same of an input of ffmpeg's.
pub fn sample_of(codec: Codec, input: &[&str], size: &str, frames: usize, options: &[&str]) -> Option<Sample> {
    let folder = tempfile::tempdir().unwrap();
    let (encoder, format, filter, kind) = match codec {
        Codec::H264 => ("libx264", "h264", "h264_metadata=aud=insert", 9),
        Codec::H265 => ("libx265", "hevc", "hevc_metadata=aud=insert", 35),
    };
    let (encoded, raw) = (folder.path().join("stream"), folder.path().join("raw"));
    let count = frames.to_string();
    let mut arguments = [input, &["-frames:v", &count, "-s", size, "-c:v", encoder]].concat();
    arguments.extend(["-preset", "ultrafast", "-tune", "zerolatency", "-pix_fmt", "yuv420p", "-g", "10"]);
    arguments.extend(options);
    arguments.extend(["-bsf:v", filter, "-f", format]);
    if !ffmpeg(&arguments, &encoded) {
        return None;
    }
    let input = encoded.to_str().unwrap();
    let decode = ["-f", format, "-i", input, "-fps_mode", "passthrough", "-f", "rawvideo"];
    if !ffmpeg(&decode, &raw) {
        return None;
    }
    let (width, height) = size.split_once('x').unwrap();
    let bytes = width.parse::<usize>().unwrap() * height.parse::<usize>().unwrap() * 3 / 2;
    let pictures = std::fs::read(raw).unwrap().chunks(bytes).map(<[u8]>::to_vec).collect();
    let packets = access_units(codec, &std::fs::read(&encoded).unwrap(), kind);
    Some(Sample { packets, pictures })
}

/// The pictures of a sample as ffmpeg decodes them and brings them to I420, through `filter`.
pub fn by_ffmpeg(codec: Codec, sample: &Sample, size: (usize, usize), filter: &str) -> Option<Vec<Vec<u8>>> {
    let folder = tempfile::tempdir().unwrap();
    let (encoded, raw) = (folder.path().join("stream"), folder.path().join("raw"));
    std::fs::write(&encoded, sample.packets.concat()).unwrap();
    let format = if codec == Codec::H264 { "h264" } else { "hevc" };
    let input = ["-f", format, "-i", encoded.to_str().unwrap()];
    let arguments = [&input[..], &["-vf", filter, "-pix_fmt", "yuv420p", "-f", "rawvideo"]].concat();
    ffmpeg(&arguments, &raw)
        .then(|| std::fs::read(raw).unwrap().chunks(size.0 * size.1 * 3 / 2).map(<[u8]>::to_vec).collect())
}

/// The stream cut before each delimiter, a unit of type `kind`.
fn access_units(codec: Codec, stream: &[u8], kind: u8) -> Vec<Vec<u8>> {
    let type_of = |head: u8| if codec == Codec::H264 { head & 0x1f } else { head >> 1 & 0x3f };
    let is_start = |at: &usize| stream[*at..].starts_with(&[0, 0, 0, 1]) && type_of(stream[at + 4]) == kind;
    let mut starts: Vec<usize> = (0..stream.len() - 4).filter(is_start).collect();
    starts.push(stream.len());
    starts.windows(2).map(|ends| stream[ends[0]..ends[1]].to_vec()).collect()
}

/// A packet with its number in the stream.
pub struct Packet<'a>(pub usize, pub &'a [u8]);

impl AsRef<[u8]> for Packet<'_> {
    fn as_ref(&self) -> &[u8] {
        self.1
    }
}

/// What became of each packet, in the order in which it was told.
pub type Answers = Vec<(usize, Result<Picture, VideoFault>)>;

/// A stream; `None` where there is no decoder, and the test is skipped.
pub fn open<'a>(codec: Codec) -> Option<Stream<Packet<'a>>> {
    match Stream::open(codec, MAX_PIXELS) {
        Ok(stream) => Some(stream),
        Err(fault) => {
            skip("ffmpeg", &fault.to_string());
            None
        }
    }
}

/// Decodes `packets`, which are numbered from 0.
pub fn decode<'a>(stream: &mut Stream<Packet<'a>>, packets: impl Iterator<Item = (usize, &'a [u8])>) -> Answers {
    let mut answers = Vec::new();
    for (number, packet) in packets {
        stream.push(Packet(number, packet), |Packet(number, _), result| answers.push((number, result)));
    }
    stream.end(|Packet(number, _), result| answers.push((number, result)));
    answers
}

/// The packets of a sample with their numbers.
pub fn numbered(sample: &Sample) -> impl Iterator<Item = (usize, &[u8])> {
    sample.packets.iter().map(Vec::as_slice).enumerate()
}
