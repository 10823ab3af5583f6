//! Several cameras on one pipeline, in this process: throughput, fairness and latency.
//!
//!     cargo bench --bench cameras [-- SECONDS [HZ [DEADLINE_MS]] [--model FOLDER] [--precision f32] [--results bench/RESULTS.md]]
//!
//! For 1, 2, 4 and 8 cameras of 640×480 at HZ each (default 30), with phases spread over a period,
//! for SECONDS (5): one thread puts their images into a [`FrameMailbox`], another takes the most
//! urgent one and processes it, as the node does. The table has, over all cameras: frames per
//! second in and out, the lowest and highest rate of a single camera, Jain's fairness index of the
//! rates ((Σx)²/(n·Σx²), 1 for equal rates; Jain, Chiu, Hawe, DEC-TR-301, 1984), deadline misses,
//! and the latency from arrival.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use hdrhistogram::Histogram;
use peregrine_bench::results_file::{conditions, replace_section};
use peregrine_core::{now_ns, Encoding, FrameMailbox, ImageView};
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::{Precision, Student};

const WIDTH: usize = 640;
const HEIGHT: usize = 480;

#[derive(Parser)]
#[command(about = "Several cameras on one pipeline: 1, 2, 4 and 8")]
struct Arguments {
    /// Seconds for each number of cameras.
    #[arg(default_value_t = 5.0)]
    seconds: f64,

    /// Frame rate of each camera.
    #[arg(default_value_t = 30.0)]
    hz: f64,

    /// Deadline from arrival to result.
    #[arg(default_value_t = 100.0)]
    deadline_ms: f64,

    /// The student package; the embedded one by default.
    #[arg(long, value_name = "FOLDER")]
    model: Option<PathBuf>,

    /// auto, f32 or int8, as the node's parameter.
    #[arg(long, default_value = "auto", value_parser = str::parse::<Precision>)]
    precision: Precision,

    /// Write the table into this Markdown file, replacing the last one.
    #[arg(long, value_name = "FILE")]
    results: Option<PathBuf>,

    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let Arguments { seconds, hz, deadline_ms, model, precision, results, .. } = Arguments::parse();
    let student = Student::in_precision(model.as_deref(), None, precision, true)?;
    let threads = thread::available_parallelism().map_or(1, |n| n.get());
    let heading = format!(
        "{} in {}, {seconds} s at {hz} Hz per camera, {WIDTH}×{HEIGHT}, deadline {deadline_ms} ms, {threads} threads for inference",
        student.manifest.name,
        student.precision()
    );
    println!("{heading}");
    let mut table = format!("| {} |\n|{}\n", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len()));
    println!("{}", COLUMNS.map(|name| format!("{name:>10}")).concat());
    for cameras in [1, 2, 4, 8] {
        let row = run(&student, cameras, seconds, hz, deadline_ms, threads);
        println!("{}", row.iter().map(|figure| format!("{figure:>10}")).collect::<String>());
        table += &format!("| {} |\n", row.join(" | "));
    }
    if let Some(file) = results {
        let section = format!("## Several cameras on one pipeline\n\n{}. {heading}.\n\n{table}", conditions());
        replace_section(&file, "make bench-cameras", &section)?;
    }
    Ok(())
}

const COLUMNS: [&str; 11] =
    ["cameras", "in/s", "out/s", "least/s", "most/s", "fairness", "superseded", "missed", "p50 ms", "p99 ms", "max ms"];

/// Measures a number of cameras; a row of the table.
fn run(
    student: &Student,
    cameras: usize,
    seconds: f64,
    hz: f64,
    deadline_ms: f64,
    threads: usize,
) -> [String; COLUMNS.len()] {
    let options = PipelineOptions { threads, ..PipelineOptions::default() };
    let mut pipeline = Pipeline::new(student, options).expect("the student runs");
    let pixels: Vec<u8> = (0..WIDTH * HEIGHT * 3).map(|i| (i * 7 % 251) as u8).collect();
    let image = ImageView::with_encoding(Encoding::Rgb8, WIDTH as u32, HEIGHT as u32, 3 * WIDTH as u32, &pixels);
    let image = image.expect("the size fits");
    for camera in 0..cameras {
        pipeline.process_from(camera, &image, now_ns() as i64).expect("it runs");
    }
    let (mailbox, done) = (FrameMailbox::new(cameras), AtomicBool::new(false));
    let (arrived, superseded) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut served = vec![0u64; cameras];
    let mut missed = 0u64;
    let mut latency = Histogram::<u64>::new_with_bounds(1, 600_000_000, 3).expect("constant bounds are sound");
    let deadline = (deadline_ms * 1e6) as u64;
    thread::scope(|scope| {
        scope.spawn(|| {
            let (start, slot) = (Instant::now(), Duration::from_secs_f64(1.0 / (hz * cameras as f64)));
            for i in 0.. {
                let due = start + slot * i;
                if due - start >= Duration::from_secs_f64(seconds) {
                    break;
                }
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let now = now_ns();
                arrived.fetch_add(1, Relaxed);
                if mailbox.put(i as usize % cameras, now, now + deadline).is_some() {
                    superseded.fetch_add(1, Relaxed);
                }
            }
            done.store(true, Relaxed);
        });
        while !(done.load(Relaxed) && mailbox.is_empty()) {
            let Some((camera, arrival)) = mailbox.take_timeout(Duration::from_millis(100)) else { continue };
            pipeline.process_from(camera, &image, now_ns() as i64).expect("it runs");
            let took = now_ns() - arrival;
            served[camera] += 1;
            missed += u64::from(took > deadline);
            latency.saturating_record(took / 1_000);
        }
    });
    let out: u64 = served.iter().sum();
    let squares: u64 = served.iter().map(|n| n * n).sum();
    let fairness = (out * out) as f64 / (cameras as u64 * squares).max(1) as f64;
    let rate = |n: u64| n as f64 / seconds;
    let ms = |q: f64| latency.value_at_quantile(q) as f64 / 1e3;
    let (least, most) = (served.iter().min().copied(), served.iter().max().copied());
    let one = |value: f64| format!("{value:.1}");
    let two = |value: f64| format!("{value:.2}");
    [
        cameras.to_string(),
        one(rate(arrived.load(Relaxed))),
        one(rate(out)),
        one(rate(least.unwrap_or(0))),
        one(rate(most.unwrap_or(0))),
        format!("{fairness:.4}"),
        superseded.load(Relaxed).to_string(),
        missed.to_string(),
        two(ms(0.5)),
        two(ms(0.99)),
        two(latency.max() as f64 / 1e3),
    ]
}
