//! `distill evaluate`: a package judged on labelled images, through the very pipeline that the node runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use clap::Args;
use image::RgbImage;
use indicatif::ProgressBar;
use serde::Serialize;

use super::data::{load_image, Dataset, OnError, OpenOptions, Sample};
use super::metrics::{average_precision, Confusion, Evaluated};
use crate::pipeline::{Pipeline, PipelineOptions};
use crate::preprocess::ImageView;
use crate::student::package::write_atomically;
use crate::student::{Manifest, Student};

/// Measure a student on a folder of labelled images: AP50, AP and mIoU.
///
/// Only classes that the data set labels are scored. Masks are compared at the labels' size, each pixel with its nearest
/// cell. Example: distill evaluate data/vehicles/val --model models/peregrine-s --json out.json
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Data set folder: images/ and labels/.
    data: PathBuf,
    /// Student package; the embedded one by default.
    #[arg(long)]
    model: Option<PathBuf>,
    /// The dataset.toml to use instead of the one found.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to write the figures as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the figures into the package's manifest, too.
    #[arg(long, requires = "model")]
    record: bool,
    /// Detections below this score do not count.
    #[arg(long, default_value_t = 0.01)]
    score_threshold: f32,
    /// Leave out images that cannot be used, instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// A student's figures on one data set; fractions of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Evaluation {
    pub model: String,
    pub dataset: String,
    pub images: usize,
    pub skipped: usize,
    /// Means over the labelled classes that occur.
    #[serde(rename = "AP50")]
    pub ap50: Option<f64>,
    #[serde(rename = "AP")]
    pub ap: Option<f64>,
    #[serde(rename = "mIoU")]
    pub mean_iou: Option<f64>,
    /// By class: AP50, AP, labelled objects.
    pub detection: BTreeMap<String, (f64, f64, usize)>,
    /// By class: IoU.
    pub segmentation: BTreeMap<String, f64>,
}

/// Runs the command.
///
/// # Errors
/// Each names the file at fault.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let mut student = match &args.model {
        Some(folder) => Student::load(folder)?,
        None => Student::embedded(),
    };
    let architecture = &student.manifest.architecture;
    let options = OpenOptions {
        config: args.config.clone(),
        classes: architecture.detection.classes.clone(),
        segmentation: architecture.segmentation.classes.clone(),
        on_error: if args.skip_bad { OnError::Skip } else { OnError::Stop },
    };
    let dataset = Dataset::open_with(&args.data, &options)?;
    let pipeline = PipelineOptions {
        score_threshold: args.score_threshold,
        max_detections: 300,
        threads: args.threads,
        ..Default::default()
    };
    let progress = ProgressBar::new(dataset.samples.len() as u64);
    let evaluation = evaluate(&student, &dataset, pipeline, &|| progress.inc(1))?;
    progress.finish_and_clear();
    print!("{}", table(&evaluation));
    if let Some(path) = &args.json {
        write_atomically(path, &serde_json::to_vec_pretty(&evaluation)?)?;
    }
    if let (true, Some(folder)) = (args.record, &args.model) {
        record(&mut student.manifest, &evaluation);
        student.save(folder)?;
    }
    Ok(())
}

/// Runs every sample through the pipeline and works out the figures; calls `step` after each.
///
/// # Errors
/// When an image cannot be read, nothing is labelled, or the pipeline cannot be built.
pub fn evaluate(
    student: &Student,
    dataset: &Dataset,
    options: PipelineOptions,
    step: &dyn Fn(),
) -> anyhow::Result<Evaluation> {
    let labelled = |s: &&Sample| s.boxes.is_some() || s.mask.is_some();
    ensure!(dataset.samples.iter().any(|s| labelled(&s)), "{}: no image has a label to be judged by", dataset.name);
    let mut pipeline = Pipeline::new(student, options)?;
    let classes = &student.manifest.architecture.detection.classes;
    let mask_classes = &student.manifest.architecture.segmentation.classes;
    let (mut images, mut confusion) = (Vec::new(), Confusion::new(mask_classes.len()));
    for sample in &dataset.samples {
        let image = load_image(&sample.image)?;
        let result = pipeline.process(&view(&image, &sample.image)?)?;
        if let Some(boxes) = &sample.boxes {
            let labels = boxes.iter().map(|a| (a.class, a.bbox)).collect();
            images.push(Evaluated { detections: result.detections.clone(), labels, ignore: sample.ignore.clone() });
        }
        if let Some(path) = &sample.mask {
            let mask = dataset.load_mask(path)?;
            let size = (mask.width() as usize, mask.height() as usize);
            for (x, y, label) in mask.enumerate_pixels() {
                if let Some(class) = result.mask.at(x as usize, y as usize, size) {
                    confusion.add(label.0[0], class);
                }
            }
        }
        step();
    }
    let figures = (0..classes.len()).filter(|&c| dataset.labelled[c]);
    let detection: BTreeMap<_, _> = figures
        .filter_map(|c| average_precision(&images, c).map(|p| (classes[c].clone(), (p.ap50, p.ap, p.objects))))
        .collect();
    let mean = |of: &dyn Fn(&(f64, f64, usize)) -> f64| {
        (!detection.is_empty()).then(|| detection.values().map(of).sum::<f64>() / detection.len() as f64)
    };
    Ok(Evaluation {
        model: student.manifest.name.clone(),
        dataset: dataset.name.clone(),
        images: dataset.samples.len(),
        skipped: dataset.skipped.len(),
        ap50: mean(&|p| p.0),
        ap: mean(&|p| p.1),
        mean_iou: confusion.mean_iou(),
        segmentation: (0..mask_classes.len())
            .filter_map(|c| confusion.iou(c).map(|iou| (mask_classes[c].clone(), iou)))
            .collect(),
        detection,
    })
}

fn view<'a>(image: &'a RgbImage, path: &Path) -> anyhow::Result<ImageView<'a>> {
    let (width, height) = image.dimensions();
    ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).with_context(|| path.display().to_string())
}

fn record(manifest: &mut Manifest, evaluation: &Evaluation) {
    let figures = [("AP50", evaluation.ap50), ("AP", evaluation.ap), ("mIoU", evaluation.mean_iou)];
    let known = figures.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    manifest.accuracy.insert(evaluation.dataset.clone(), known.collect());
}

fn table(e: &Evaluation) -> String {
    use std::fmt::Write;
    let mut text = format!("{} on {}: {} images, {} left out\n", e.model, e.dataset, e.images, e.skipped);
    if let (Some(ap50), Some(ap)) = (e.ap50, e.ap) {
        let _ = writeln!(text, "{:<14}{:>8}{:>8}{:>9}", "class", "AP50", "AP", "objects");
        for (class, (ap50, ap, objects)) in &e.detection {
            let _ = writeln!(text, "{class:<14}{:>8.1}{:>8.1}{objects:>9}", 100.0 * ap50, 100.0 * ap);
        }
        let _ = writeln!(text, "{:<14}{:>8.1}{:>8.1}", "mean", 100.0 * ap50, 100.0 * ap);
    }
    if let Some(mean_iou) = e.mean_iou {
        let _ = writeln!(text, "{:<14}{:>8}", "class", "IoU");
        for (class, iou) in &e.segmentation {
            let _ = writeln!(text, "{class:<14}{:>8.1}", 100.0 * iou);
        }
        let _ = writeln!(text, "{:<14}{:>8.1}", "mean", 100.0 * mean_iou);
    }
    text
}
