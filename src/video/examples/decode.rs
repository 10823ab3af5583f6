//! How long decoding takes: `decode h264 FILE` of a byte stream whose frames begin with access unit
//! delimiters, as `ffmpeg -bsf:v h264_metadata=aud=insert` (or `hevc_metadata`) writes them.

use std::process::ExitCode;
use std::time::Instant;

use peregrine_video::{Codec, Stream};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [format, file] = &arguments[..] else {
        eprintln!("usage: decode h264|hevc FILE");
        return ExitCode::FAILURE;
    };
    match time(format, file) {
        Ok(line) => println!("{line}"),
        Err(why) => eprintln!("{file}: {why}"),
    }
    ExitCode::SUCCESS
}

fn time(format: &str, file: &str) -> Result<String, Box<dyn std::error::Error>> {
    let codec = Codec::named(format.as_bytes()).ok_or("the codec is h264 or hevc")?;
    let bytes = std::fs::read(file)?;
    // H.264, table 7-1: 9; H.265, table 7-1: 35 in the upper bits.
    let head = if codec == Codec::H264 { 0x09 } else { 0x46 };
    let starts = bytes.windows(5).enumerate().filter(|(_, code)| code[..4] == [0, 0, 0, 1] && code[4] == head);
    let starts: Vec<usize> = starts.map(|(at, _)| at).chain([bytes.len()]).collect();
    let mut stream = Stream::open(codec, 1 << 24)?;
    let (mut times, mut size) = (Vec::new(), (0, 0));
    for ends in starts.windows(2) {
        let start = Instant::now();
        stream.push(&bytes[ends[0]..ends[1]], |_, result| {
            if let Ok(picture) = result {
                size = (picture.width(), picture.height());
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        });
    }
    times.sort_by(f64::total_cmp);
    let percent = |p: usize| times.get((times.len() * p / 100).min(times.len().saturating_sub(1))).unwrap_or(&f64::NAN);
    let (median, slow) = (percent(50), percent(99));
    Ok(format!("{}x{}, {} pictures: median {median:.2} ms, 99 % {slow:.2} ms", size.0, size.1, times.len()))
}
