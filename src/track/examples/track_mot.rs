//! The tracker on a file of detections, both in the text format of the MOT challenge: for measuring it.
//!
//!     track_mot FRAMES_PER_SECOND [OPTION=VALUE]... < det.txt > tracks.txt
//!
//! Reads `frame,-1,left,top,width,height,score[,class]` and writes `frame,id,left,top,width,height,score,class,-1,-1`
//! for what was seen in the frame. Frames count from 1. `tests/reference/track_quality.py` uses it.

use std::collections::BTreeMap;
use std::io::{read_to_string, stdin, Write};

use anyhow::{bail, Context, Result};
use peregrine_core::{BoundingBox, Detection};
use peregrine_track::{Tracker, TrackerOptions};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rate: f64 = arguments.next().context("the frame rate is missing")?.parse().context("the frame rate")?;
    let mut options = TrackerOptions::default();
    for argument in arguments {
        let (name, value) = argument.split_once('=').with_context(|| format!("{argument} is not OPTION=VALUE"))?;
        let value: f64 = value.parse().with_context(|| argument.clone())?;
        match name {
            "high_score" => options.high_score = value as f32,
            "low_score" => options.low_score = value as f32,
            "high_iou" => options.high_iou = value as f32,
            "low_iou" => options.low_iou = value as f32,
            "tentative_iou" => options.tentative_iou = value as f32,
            "confirm_frames" => options.confirm_frames = value as u32,
            "keep_unseen" => options.keep_unseen = value,
            "measurement" => options.noise.measurement = value,
            "acceleration" => options.noise.acceleration = value,
            "growth" => options.noise.growth = value,
            "first_velocity" => options.noise.first_velocity = value,
            "first_growth" => options.noise.first_growth = value,
            _ => bail!("there is no option {name}"),
        }
    }

    let mut frames: BTreeMap<i64, Vec<Detection>> = BTreeMap::new();
    for line in read_to_string(stdin())?.lines().filter(|l| !l.trim().is_empty()) {
        let fields: Vec<f32> =
            line.split(',').map(|f| f.trim().parse()).collect::<Result<_, _>>().with_context(|| line.to_owned())?;
        let [frame, _, left, top, width, height, score, ref rest @ ..] = fields[..] else { bail!("too short: {line}") };
        let bbox = BoundingBox::new(left, top, left + width, top + height);
        let class = rest.first().copied().unwrap_or(0.0).max(0.0) as usize;
        frames.entry(frame as i64).or_default().push(Detection { class, score, bbox });
    }

    let mut tracker = Tracker::new(options)?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut spent = std::time::Duration::ZERO;
    let last = frames.keys().next_back().copied().unwrap_or(0);
    for frame in 1..=last {
        let detections = frames.get(&frame).map_or(&[][..], |d| &d[..]);
        let start = std::time::Instant::now();
        tracker.update((frame as f64 / rate * 1e9) as i64, detections);
        spent += start.elapsed();
        for track in tracker.tracks().filter(|t| t.missed == 0) {
            let b = &track.bbox;
            let (id, class, score) = (track.id, track.class, track.score);
            let (left, top, width, height) = (b.x_min, b.y_min, b.width(), b.height());
            writeln!(out, "{frame},{id},{left:.2},{top:.2},{width:.2},{height:.2},{score:.3},{class},-1,-1")?;
        }
    }
    eprintln!("{:.1} us a frame", spent.as_secs_f64() * 1e6 / last.max(1) as f64);
    Ok(())
}
