//! What pruning cost and gained: size, accuracy and latency, before and after.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::importance::Criterion;
use crate::distill::data::{Dataset, OpenOptions};
use crate::distill::evaluate::{evaluate, Evaluation};
use crate::engine::cpu::CpuEngine;
use crate::engine::Engine;
use crate::pipeline::PipelineOptions;
use crate::student::Student;

/// Runs of each network that latency is measured by, after [`WARM_UP`] runs.
const RUNS: usize = 100;
const WARM_UP: usize = 10;

/// The report, as `--json` writes it.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub criterion: Criterion,
    /// Share of the operations that was to stay.
    pub keep: f64,
    pub before: Side,
    pub after: Side,
}

/// The figures of one network.
#[derive(Debug, Clone, Serialize)]
pub struct Side {
    pub name: String,
    pub parameters: usize,
    /// A multiply-accumulate counts as two.
    pub flops: usize,
    /// Median of the CPU engine's time with one thread, in ms; the two networks' runs alternate.
    pub inference_ms: f64,
    pub accuracy: Vec<Evaluation>,
}

impl Report {
    /// Measures both students; what is measured of `pruned` goes into its manifest.
    ///
    /// # Errors
    /// When a folder to judge by cannot be used.
    pub fn new(
        criterion: Criterion,
        keep: f64,
        student: &Student,
        pruned: &mut Student,
        judge: &[PathBuf],
    ) -> anyhow::Result<Self> {
        let [before_ms, after_ms] = latency([student, pruned])?;
        let (mut before, mut after) = (Side::new(student, before_ms), Side::new(pruned, after_ms));
        for folder in judge {
            let architecture = &student.manifest.architecture;
            let options = OpenOptions {
                classes: architecture.detection.classes.clone(),
                segmentation: architecture.segmentation.classes.clone(),
                ..OpenOptions::default()
            };
            let dataset = Dataset::open_with(folder, &options)?;
            let pipeline =
                || PipelineOptions { score_threshold: 0.01, max_detections: 300, threads: 2, ..Default::default() };
            before.accuracy.push(evaluate(student, &dataset, pipeline(), &|| ())?);
            let evaluation = evaluate(pruned, &dataset, pipeline(), &|| ())?;
            evaluation.record(&mut pruned.manifest);
            after.accuracy.push(evaluation);
        }
        Ok(Self { criterion, keep, before, after })
    }

    /// The report for people.
    pub fn text(&self) -> String {
        let (a, b) = (&self.before, &self.after);
        let mut text = format!("{:<28}{:>12}{:>12}\n", "", "before", "after");
        let mut row = |name: &str, before: String, after: String| {
            let _ = writeln!(text, "{name:<28}{before:>12}{after:>12}");
        };
        row("parameters", a.parameters.to_string(), b.parameters.to_string());
        let mega = |flops: usize| format!("{:.1}", flops as f64 / 1e6);
        row("operations, MFLOP", mega(a.flops), mega(b.flops));
        row("inference, 1 thread, ms", format!("{:.2}", a.inference_ms), format!("{:.2}", b.inference_ms));
        let percent = |v: Option<f64>| v.map(|v| format!("{:.1}", 100.0 * v));
        for (a, b) in a.accuracy.iter().zip(&b.accuracy) {
            for (name, of) in
                [("AP50", a.ap50.zip(b.ap50)), ("AP", a.ap.zip(b.ap)), ("mIoU", a.mean_iou.zip(b.mean_iou))]
            {
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
            flops: graph.flops(),
            inference_ms,
            accuracy: Vec::new(),
        }
    }
}

/// Median milliseconds of each student's inference, in turns so that what else the machine does falls on both.
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
