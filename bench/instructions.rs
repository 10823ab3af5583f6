//! Instruction counts of each stage, by valgrind: a figure that does not depend on the load of the
//! machine.
//!
//! ```text
//! make bench-instructions                      counts, and compares with bench/instructions.json
//! make bench-instructions ARGS=--save          saves the counts there
//! ```
//! The program starts itself under `valgrind --tool=callgrind` once for each stage, and counts
//! within a single function. Valgrind supports AVX2 and not AVX-512, so the engine's AVX2 kernels
//! are counted. A stage that takes over 2 % more than the saved count fails (exit code 1); counts
//! of another compiler or architecture are shown and not judged.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{bail, ensure, Context, Result};
use peregrine_bench::frames::Frames;
use peregrine_core::{BoundingBox, ClassMask, Detection};
use peregrine_distill::quantize::quantize;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::Student;
use peregrine_track::{Tracker, TrackerOptions};
use peregrine_vision::decode::{non_max_suppression, HeadDecoder, MaskDecoder};
use peregrine_vision::preprocess::{Letterbox, Normalisation};
use serde::{Deserialize, Serialize};

/// Allowed relative increase.
const ALLOWED: f64 = 0.02;

/// Names the stage to count, in the process that valgrind runs.
const STAGE: &str = "PEREGRINE_COUNT_STAGE";

/// Instructions are counted within this function; callgrind is given its name.
#[no_mangle]
#[inline(never)]
fn peregrine_counted_region(work: &mut dyn FnMut()) {
    work();
}

/// Counts, with the compiler and architecture that they depend on.
#[derive(Serialize, Deserialize, PartialEq)]
struct Figures {
    compiler: String,
    architecture: String,
    instructions: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions: {error:#}");
            ExitCode::from(3)
        }
    }
}

fn run() -> Result<bool> {
    if let Ok(stage) = std::env::var(STAGE) {
        count(&stage);
        return Ok(true);
    }
    // `cargo bench` passes `--bench`; `cargo test` also runs benches, without it.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|a| a == "--bench") {
        return Ok(true);
    }
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("instructions: skipped: valgrind is not installed (Debian, Ubuntu: apt-get install valgrind)");
        return Ok(true);
    }
    ensure!(!cfg!(debug_assertions), "this is a debug build; run `make bench-instructions`");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/instructions.json");
    let last: Option<Figures> = match std::fs::read(&path) {
        Ok(bytes) => Some(serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?),
        Err(_) => None,
    };
    let mut instructions = BTreeMap::new();
    for stage in STAGES {
        eprint!("{stage} … \r");
        instructions.insert(stage.to_owned(), under_valgrind(stage)?);
    }
    let figures = Figures { compiler: compiler()?, architecture: std::env::consts::ARCH.into(), instructions };
    let passed = show(&figures, last.as_ref());
    if arguments.iter().any(|a| a == "--save") {
        std::fs::write(&path, serde_json::to_string_pretty(&figures)? + "\n")?;
        println!("saved in {}", path.display());
        return Ok(true);
    }
    Ok(passed)
}

/// Prints the counts beside the saved ones. Returns whether none grew by more than is allowed.
fn show(figures: &Figures, last: Option<&Figures>) -> bool {
    let alike = last.is_some_and(|l| l.compiler == figures.compiler && l.architecture == figures.architecture);
    println!("{:24} {:>14} {:>14} {:>9}", "stage", "instructions", "saved", "change");
    let mut passed = true;
    for (stage, &count) in &figures.instructions {
        let Some(&before) = last.and_then(|last| last.instructions.get(stage)) else {
            println!("{stage:24} {count:>14}");
            continue;
        };
        let change = count as f64 / before as f64 - 1.0;
        let grown = alike && change > ALLOWED;
        passed &= !grown;
        let mark = if grown { "  MORE THAN ALLOWED" } else { "" };
        println!("{stage:24} {count:>14} {before:>14} {:>+8.2}%{mark}", change * 100.0);
    }
    if let Some(last) = last.filter(|_| !alike) {
        println!("not judged: the saved counts are of {}, {}", last.compiler, last.architecture);
    }
    passed
}

/// Counts the instructions of one stage.
fn under_valgrind(stage: &str) -> Result<u64> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("callgrind.out");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--toggle-collect=peregrine_counted_region"])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .env(STAGE, stage)
        .output()
        .context("valgrind")?;
    let file = std::fs::read_to_string(&out);
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{stage} failed under valgrind:\n{log}");
    }
    let file = file.with_context(|| format!("valgrind wrote no file; its output:\n{log}"))?;
    let total = file.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
    let total = total.and_then(|total| total.trim().parse().ok()).unwrap_or(0);
    ensure!(total > 0, "{stage}: valgrind counted nothing; is the binary stripped of its symbols?");
    Ok(total)
}

fn compiler() -> Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

const STAGES: [&str; 10] = [
    "letterbox 640x480",
    "letterbox 1920x1080",
    "letterbox yuyv 640x480",
    "inference",
    "inference in 8 bits",
    "decode boxes",
    "suppression",
    "decode mask",
    "track 20 objects",
    "pipeline 640x480",
];

/// Prepares a stage, runs it once to warm up, and counts the second run.
fn count(stage: &str) {
    let student = Student::embedded();
    let architecture = &student.manifest.architecture;
    let options = PipelineOptions::default();
    let (width, height) = (architecture.input.width, architecture.input.height);
    let normalisation = Normalisation { mean: architecture.input.mean, std: architecture.input.std };
    let measure = |work: &mut dyn FnMut()| {
        work();
        peregrine_counted_region(work);
    };
    let letterbox = |source: (usize, usize)| Letterbox::new(source, (width, height));
    let engine = || {
        let mut engine = CpuEngine::new(&graph_for(architecture, &options), &student.weights, 1).expect("embedded");
        let frames = Frames::shipped_or_synthetic().resized(640, 480);
        letterbox((640, 480)).apply(&frames.image(0), &normalisation, engine.input());
        engine
    };
    match stage {
        "letterbox 640x480" | "letterbox 1920x1080" => {
            let size = if stage.ends_with("480") { (640, 480) } else { (1920, 1080) };
            let frames = Frames::synthetic(size.0, size.1);
            let letterbox = letterbox(size);
            let mut engine = engine();
            let input = engine.pixels().expect("the CPU engine takes pixels");
            measure(&mut || letterbox.apply_to(&frames.image(0), &normalisation, black_box(input)));
        }
        "letterbox yuyv 640x480" => {
            let bytes = vec![128; 640 * 480 * 2];
            let encoding = peregrine_core::Encoding::Yuyv(peregrine_core::encoding::YuvRange::Limited);
            let view = peregrine_core::ImageView::with_encoding(encoding, 640, 480, 1280, &bytes);
            let (view, letterbox) = (view.expect("the size fits"), letterbox((640, 480)));
            let mut engine = engine();
            let input = engine.pixels().expect("the CPU engine takes pixels");
            measure(&mut || letterbox.apply_to(&view, &normalisation, black_box(input)));
        }
        "inference" => {
            let mut engine = engine();
            measure(&mut || engine.run().expect("the CPU engine does not fail"));
        }
        "inference in 8 bits" => {
            let frames = ["highway-00.jpg", "highway-12.jpg"].map(|name| Path::new("models/frames").join(name));
            let quantized = quantize(&student, &frames).expect("the shipped frames are images");
            let mut engine = quantized.cpu_engine(&graph_for(architecture, &options), 1, false).expect("quantized");
            let frames = Frames::shipped_or_synthetic().resized(640, 480);
            letterbox((640, 480)).apply(&frames.image(0), &normalisation, engine.input());
            measure(&mut || engine.run().expect("the CPU engine does not fail"));
        }
        "decode boxes" => {
            let mut engine = engine();
            engine.run().expect("the CPU engine does not fail");
            let mut head = HeadDecoder::new(architecture, width, height);
            let mut found = Vec::with_capacity(head.max_detections());
            measure(&mut || head.decode(|index| engine.output(index), options.score_threshold, black_box(&mut found)));
        }
        "suppression" => {
            let mut found = Vec::with_capacity(200);
            measure(&mut || {
                found.clear();
                found.extend((0..200).map(candidate));
                non_max_suppression(black_box(&mut found), options.nms, options.max_detections);
            });
        }
        "decode mask" => {
            let mut engine = engine();
            engine.run().expect("the CPU engine does not fail");
            let (mut decoder, mut mask) = (MaskDecoder::new(&letterbox((640, 480))), ClassMask::default());
            let logits = architecture.segmentation_output().expect("the shipped student segments");
            measure(&mut || decoder.decode(engine.output(logits), black_box(&mut mask)));
        }
        "track 20 objects" => {
            let mut tracker = Tracker::new(TrackerOptions::default()).expect("its own defaults");
            let found: Vec<_> = (0..20).map(|i| candidate(i * 5)).collect();
            let mut stamp = 0;
            measure(&mut || {
                stamp += 33_000_000;
                tracker.update(stamp, black_box(&found));
            });
        }
        "pipeline 640x480" => {
            let mut pipeline = Pipeline::new(&student, options).expect("embedded");
            let frames = Frames::shipped_or_synthetic().resized(640, 480);
            measure(&mut || {
                black_box(pipeline.process(&frames.image(0)).expect("the CPU engine does not fail"));
            });
        }
        other => unreachable!("unknown stage {other}"),
    }
}

/// Clustered boxes, as a detection head returns them; always the same.
fn candidate(i: usize) -> Detection {
    let (x, y) = ((i % 20) as f32 * 25.0 + (i / 100) as f32, (i / 20 % 5) as f32 * 40.0);
    let score = 0.3 + 0.6 * ((i * 37 % 101) as f32 / 101.0);
    Detection { class: i % 3, score, bbox: BoundingBox::new(x, y, x + 60.0, y + 50.0) }
}
