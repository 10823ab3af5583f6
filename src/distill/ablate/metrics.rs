//! The metrics of the table's cells: accuracy on each evaluation set, and the latency of each row's
//! package.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use peregrine_core::files::write_atomically;
use peregrine_core::ImageView;
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::Student;
use serde::{Deserialize, Serialize};

use super::config::Ablation;
use super::runs::{distill, Cell};

/// The compared metrics, as `distill evaluate` names them.
const METRICS: [&str; 4] = ["AP50", "AP", "mIoU", "scene_accuracy"];
/// Number of images for the median latency, and their size.
const FRAMES: usize = 50;
const FRAME: (u32, u32) = (640, 360);

/// Values by `data set metric`, such as `vehicles/val AP50`; fractions of one.
pub type Figures = BTreeMap<String, f64>;

/// The results of a cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CellResult {
    pub row: usize,
    pub seed: u64,
    /// `None` until it is finished.
    pub figures: Option<Figures>,
    pub failure: Option<String>,
    /// Median latency of the whole pipeline on one thread in ms; for the first finished seed of a
    /// row.
    pub latency_ms: Option<f64>,
}

/// Cached in the run's folder, so that a package is evaluated once.
#[derive(Serialize, Deserialize)]
struct CachedFigures {
    weights: String,
    figures: Figures,
    sets: Vec<String>,
}

/// Evaluates every finished cell.
///
/// # Errors
/// When a package or an evaluation set cannot be read.
pub fn evaluate(ablation: &Ablation, cells: &[Cell]) -> anyhow::Result<Vec<CellResult>> {
    let mut results = Vec::new();
    for cell in cells {
        let figures = if cell.finished() {
            Some(figures(cell, ablation).with_context(|| cell.folder.display().to_string())?)
        } else {
            None
        };
        let failure = cell.failure.clone();
        results.push(CellResult { row: cell.row, seed: cell.seed, figures, failure, latency_ms: None });
    }
    let first = |row: usize| results.iter().position(|r| r.row == row && r.figures.is_some());
    let timed: Vec<usize> = (0..ablation.rows.len()).filter_map(first).collect();
    let packages =
        timed.iter().map(|&i| Ok(Student::load(&cells[i].package())?)).collect::<anyhow::Result<Vec<_>>>()?;
    for (i, latency) in timed.into_iter().zip(latencies(&packages)?) {
        results[i].latency_ms = Some(latency);
    }
    Ok(results)
}

fn figures(cell: &Cell, ablation: &Ablation) -> anyhow::Result<Figures> {
    let package = cell.package();
    let weights = Student::load(&package)?.manifest.weights.sha256;
    let sets: Vec<String> = ablation.evaluate.iter().map(|p| p.display().to_string()).collect();
    let path = cell.folder.join("figures.json");
    let cached = fs::read(&path).ok().and_then(|b| serde_json::from_slice::<CachedFigures>(&b).ok());
    if let Some(cached) = cached.filter(|c| c.weights == weights && c.sets == sets) {
        return Ok(cached.figures);
    }
    let mut figures = Figures::new();
    for set in &ablation.evaluate {
        let json = cell.folder.join("evaluation.json");
        let words: [&OsStr; 6] =
            ["evaluate".as_ref(), set.as_ref(), "--model".as_ref(), package.as_ref(), "--json".as_ref(), json.as_ref()];
        distill(&words).with_context(|| set.display().to_string())?;
        figures.extend(read_figures(&json)?);
    }
    write_atomically(&path, &serde_json::to_vec_pretty(&CachedFigures { weights, figures: figures.clone(), sets })?)?;
    Ok(figures)
}

fn read_figures(json: &Path) -> anyhow::Result<Figures> {
    let evaluation: serde_json::Value = serde_json::from_slice(&fs::read(json)?)?;
    let name = evaluation["dataset"].as_str().context("the evaluation names no data set")?;
    let known = METRICS.iter().filter_map(|m| Some((format!("{name} {m}"), evaluation[*m].as_f64()?)));
    Ok(known.collect())
}

/// The median latency of each student's pipeline in ms, measured alternately so that other load
/// affects all equally.
fn latencies(students: &[Student]) -> anyhow::Result<Vec<f64>> {
    let options = || PipelineOptions { threads: 1, ..Default::default() };
    let mut pipelines =
        students.iter().map(|s| Ok(Pipeline::new(s, options())?)).collect::<anyhow::Result<Vec<_>>>()?;
    let (width, height) = FRAME;
    let pixels: Vec<u8> = (0..width * height * 3).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut times = vec![Vec::with_capacity(FRAMES); students.len()];
    for _ in 0..FRAMES {
        for (pipeline, times) in pipelines.iter_mut().zip(&mut times) {
            let begun = Instant::now();
            pipeline.process(&ImageView::new("rgb8", width, height, 3 * width, &pixels)?)?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
