//! Comparison of a student before and after compression: size, accuracy and latency.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use peregrine_student::Student;
use serde::Serialize;
use tracing::warn;

use super::data::{Dataset, OnError, OpenOptions};
use super::evaluate::{evaluate, judged, Evaluation, STUDENT_SCORE};

/// Timed runs of each network, after [`WARM_UP`] runs.
const RUNS: usize = 100;
const WARM_UP: usize = 10;

/// Where the students are measured.
#[derive(Debug, Args)]
pub struct JudgeArgs {
    /// Labelled data to measure accuracy on before and after; may be given several times.
    #[arg(long, value_name = "FOLDER")]
    judge: Vec<PathBuf>,
    /// Skip invalid images, and report their number, instead of stopping.
    #[arg(long)]
    pub skip_bad: bool,
}

/// The figures of two students in floating point, as `--json` writes them.
#[derive(Debug, Clone, Serialize)]
pub struct BeforeAfter {
    pub before: Side,
    pub after: Side,
}

/// The figures of one student.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    pub name: String,
    pub parameters: usize,
    /// Size of the weights file.
    pub bytes: usize,
    /// A multiply-accumulate counts as two.
    pub flops: usize,
    /// Median of the CPU engine's time with one thread, in ms; the two networks' runs alternate.
    pub inference_ms: f64,
    pub accuracy: Vec<Evaluation>,
}

impl BeforeAfter {
    /// Measures both students on the data sets of `args`; the accuracy of `after` is also recorded
    /// in its manifest.
    ///
    /// # Errors
    /// When a folder cannot be used; and, unless they are skipped, at the first invalid image.
    pub fn measure(before: &Student, after: &mut Student, args: &JudgeArgs) -> anyhow::Result<Self> {
        let on_error = if args.skip_bad { OnError::Skip } else { OnError::Stop };
        let [before_ms, after_ms] = latency([before, after])?;
        let mut figures = Self { before: Side::new(before, before_ms), after: Side::new(after, after_ms) };
        for folder in &args.judge {
            let options = OpenOptions { on_error, ..OpenOptions::of(&before.manifest.architecture) };
            let dataset = Dataset::open_with(folder, &options)?;
            figures.before.accuracy.push(evaluate(before, &dataset, judged(STUDENT_SCORE, 2), on_error, &|| ())?);
            let evaluation = evaluate(after, &dataset, judged(STUDENT_SCORE, 2), on_error, &|| ())?;
            if evaluation.skipped > 0 {
                warn!("{}: skipped files: {}", folder.display(), evaluation.skipped);
            }
            evaluation.record(&mut after.manifest);
            figures.after.accuracy.push(evaluation);
        }
        Ok(figures)
    }

    /// The figures as a human-readable table.
    pub fn text(&self) -> String {
        let (a, b) = (&self.before, &self.after);
        let mut text = format!("{:<28}{:>12}{:>12}\n", "", "before", "after");
        let mut row = |name: &str, before: String, after: String| {
            let _ = writeln!(text, "{name:<28}{before:>12}{after:>12}");
        };
        row("parameters", a.parameters.to_string(), b.parameters.to_string());
        row("weights file, KiB", (a.bytes / 1024).to_string(), (b.bytes / 1024).to_string());
        let mega = |flops: usize| format!("{:.1}", flops as f64 / 1e6);
        row("operations, MFLOP", mega(a.flops), mega(b.flops));
        row("inference, 1 thread, ms", format!("{:.2}", a.inference_ms), format!("{:.2}", b.inference_ms));
        let percent = |v: Option<f64>| v.map(|v| format!("{:.1}", 100.0 * v));
        for (a, b) in a.accuracy.iter().zip(&b.accuracy) {
            for (name, of) in [
                ("AP50", a.ap50.zip(b.ap50)),
                ("AP", a.ap.zip(b.ap)),
                ("ECE", a.detection_error.zip(b.detection_error)),
                ("mIoU", a.mean_iou.zip(b.mean_iou)),
                ("scene_accuracy", a.scene_accuracy.zip(b.scene_accuracy)),
            ] {
                let of = of.and_then(|(a, b)| percent(Some(a)).zip(percent(Some(b))));
                if let Some((before, after)) = of {
                    row(&format!("{} {name}", a.dataset), before, after);
                }
            }
        }
        text
    }
}

impl Side {
    fn new(student: &Student, inference_ms: f64) -> Self {
        let graph = student.graph();
        Self {
            name: student.manifest.name.clone(),
            parameters: graph.parameters(),
            bytes: student.weights_file().len(),
            flops: graph.flops(),
            inference_ms,
            accuracy: Vec::new(),
        }
    }
}

/// Median inference time of each student in ms, measured alternately so that other load affects
/// both equally.
fn latency(students: [&Student; 2]) -> anyhow::Result<[f64; 2]> {
    let mut engines = Vec::new();
    for student in students {
        engines.push(CpuEngine::new(&student.graph(), &student.weights, 1)?);
    }
    let mut times = [Vec::new(), Vec::new()];
    for run in 0..WARM_UP + RUNS {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            let start = Instant::now();
            engine.run()?;
            if run >= WARM_UP {
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    Ok(times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}
