//! Runs a student over a data set, through the pipeline that the node runs.

use std::path::Path;

use anyhow::{ensure, Context};
use image::{GrayImage, RgbImage};
use peregrine_core::files::sha256;
use peregrine_core::{ClassMask, Detection, ImageView};
use peregrine_pipeline::{Pipeline, PipelineOptions};
use peregrine_student::Student;
use peregrine_vision::decode::head::sigmoid;
use peregrine_vision::decode::scene::softmax;

use super::scene::SceneCounts;
use crate::data::{load_image, DataError, Dataset, OnError, Sample, Skipped};
use crate::metrics::{Calibration, Confusion, Evaluated};
use crate::soften::SoftTargets;
use crate::teacher::candidates::{detections, Candidate};
use crate::teacher::ensemble::SAME_OBJECT_IOU;
use crate::teacher::{Judged, OnnxTeacher, SoftTarget};

/// The raw results from which the metrics are computed.
#[derive(Debug, Clone)]
pub struct Observations {
    pub images: Vec<Observed>,
    pub confusion: Confusion,
    /// Calibration of the mask's cells, weighted by their labelled pixels.
    pub mask_calibration: Calibration,
    pub scenes: SceneCounts,
    /// Skipped files.
    pub skipped: Vec<Skipped>,
}

/// Predictions and ground truth of one image.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Index among the data set's samples.
    pub sample: usize,
    /// `None` if boxes are not labelled.
    pub objects: Option<Evaluated>,
    /// The predicted mask and its pixel accuracy; `None` if there is no labelled mask.
    pub mask: Option<(ClassMask, f64)>,
}

/// A network's outputs for one image.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub detections: Vec<Detection>,
    /// The class of each cell, and its confidence.
    pub mask: Option<(ClassMask, Vec<f32>)>,
    /// Probabilities of the classes of scenes, group by group.
    pub scene: Vec<f32>,
}

/// Runs every labelled sample through the student's pipeline; calls `step` after each sample.
///
/// # Errors
/// When nothing is labelled or the pipeline cannot be built; and, with [`OnError::Stop`], at the
/// first invalid image or mask.
pub fn observe(
    student: &Student,
    dataset: &Dataset,
    options: PipelineOptions,
    on_error: OnError,
    step: &dyn Fn(),
) -> anyhow::Result<Observations> {
    let mut pipeline = Pipeline::new(student, options)?;
    let see = |image: &RgbImage, path: &Path| {
        let result = pipeline.process(&view(image, path)?)?;
        let (detections, mask) = (result.detections.clone(), result.mask.clone());
        let scene = result.scene.clone();
        Ok(Seen { detections, mask: Some((mask, pipeline.mask_confidence())), scene })
    };
    observe_with(dataset, on_error, step, see)
}

/// As [`observe`], for a teacher's detections above `least`.
///
/// # Errors
/// As [`observe`]; and when the teacher fails.
pub fn observe_teacher(
    teacher: &mut OnnxTeacher,
    dataset: &Dataset,
    least: f32,
    on_error: OnError,
    step: &dyn Fn(),
) -> anyhow::Result<Observations> {
    let groups = groups(dataset);
    let see = |image: &RgbImage, path: &Path| {
        Ok(match teacher.judge(image, least).with_context(|| path.display().to_string())? {
            Judged::Boxes(detections) => Seen { detections, ..Seen::default() },
            Judged::Pixels(mask) => Seen { mask: Some(mask.decided()), ..Seen::default() },
            Judged::Image(logits) => Seen { scene: probabilities(logits, &groups), ..Seen::default() },
        })
    };
    observe_with(dataset, on_error, step, see)
}

/// As [`observe`], for what is stored of the images as soft targets: of each object every class above
/// `least`.
///
/// # Errors
/// As [`observe`]; and when an image has no soft targets, or has changed since.
pub fn observe_soft_targets(
    soft: &SoftTargets,
    dataset: &Dataset,
    least: f32,
    on_error: OnError,
    step: &dyn Fn(),
) -> anyhow::Result<Observations> {
    let see = |_: &RgbImage, path: &Path| {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let stored = soft.of(&dataset.name, &file).with_context(|| {
            format!("{}: these soft targets have none of this image; run distill soften on its set", path.display())
        })?;
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        soft.check(&dataset.name, &file, path, &sha256(&bytes))?;
        let found = stored.read()?;
        let candidates: Vec<_> = found.boxes.iter().map(candidate).collect();
        Ok(Seen {
            detections: detections(&candidates, soft.classes.len(), least, Some(SAME_OBJECT_IOU)),
            mask: found.mask.map(|mask| mask.soft_mask().decided()),
            scene: found.scene.map_or_else(Vec::new, |logits| probabilities(logits, &groups(dataset))),
        })
    };
    observe_with(dataset, on_error, step, see)
}

/// A stored object with its classes' probabilities.
fn candidate(object: &SoftTarget) -> Candidate {
    let probabilities = object.logits.iter().map(|&logit| sigmoid(logit)).collect();
    Candidate { bbox: object.bbox, probabilities, peaks: None }
}

/// The number of classes of each group of scenes.
fn groups(dataset: &Dataset) -> Vec<usize> {
    dataset.scenes().into_iter().flat_map(|head| head.0.values().map(Vec::len)).collect()
}

fn observe_with(
    dataset: &Dataset,
    on_error: OnError,
    step: &dyn Fn(),
    mut see: impl FnMut(&RgbImage, &Path) -> anyhow::Result<Seen>,
) -> anyhow::Result<Observations> {
    let labelled = |s: &Sample| s.boxes.is_some() || s.mask.is_some() || s.scene.is_labelled();
    ensure!(
        dataset.samples.iter().any(labelled),
        "{}: no image has a label to evaluate on; put label files with the images' names into labels/",
        dataset.name
    );
    ensure!(
        dataset.is_labelled(),
        "{}: nothing in it can be scored: {}",
        dataset.name,
        dataset.why_it_teaches_nothing()
    );
    let mut all = Observations {
        images: Vec::new(),
        confusion: Confusion::new(dataset.mask_names().len()),
        mask_calibration: Calibration::default(),
        scenes: SceneCounts::new(dataset.scenes()),
        skipped: Vec::new(),
    };
    for (index, sample) in dataset.samples.iter().enumerate() {
        if labelled(sample) {
            match read(dataset, sample) {
                Ok((image, labels)) => all.add(index, sample, see(&image, &sample.image)?, labels.as_ref()),
                Err(e) if on_error == OnError::Stop => return Err(e.into()),
                Err(e) => all.skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() }),
            }
        }
        step();
    }
    Ok(all)
}

fn read(dataset: &Dataset, sample: &Sample) -> Result<(RgbImage, Option<GrayImage>), DataError> {
    Ok((load_image(&sample.image)?, sample.mask.as_ref().map(|path| dataset.load_mask(path)).transpose()?))
}

impl Observations {
    fn add(&mut self, index: usize, sample: &Sample, seen: Seen, labels: Option<&GrayImage>) {
        self.scenes.add(&sample.scene.classes, &seen.scene);
        let mask = labels.zip(seen.mask).map(|(labels, (mask, confidence))| {
            let right = self.add_mask(&mask, &confidence, labels);
            (mask, right)
        });
        let objects = sample.boxes.as_ref().map(|boxes| Evaluated {
            detections: seen.detections,
            labels: boxes.iter().map(|a| (a.class, a.bbox)).collect(),
            ignore: sample.ignore.clone(),
        });
        self.images.push(Observed { sample: index, objects, mask });
    }

    /// The pixel accuracy.
    fn add_mask(&mut self, mask: &ClassMask, confidence: &[f32], labels: &GrayImage) -> f64 {
        let size = (labels.width() as usize, labels.height() as usize);
        let (mut known, mut right) = (0u64, 0u64);
        for (x, y, label) in labels.enumerate_pixels() {
            let Some(cell) = mask.cell(x as usize, y as usize, size) else { continue };
            let (label, class) = (label.0[0], mask.classes[cell]);
            if self.confusion.add(label, class) {
                self.mask_calibration.add(confidence[cell], label == class);
                known += 1;
                right += u64::from(label == class);
            }
        }
        if known > 0 {
            right as f64 / known as f64
        } else {
            1.0
        }
    }
}

/// The softmax of the logits of each of `groups`, which have so many classes.
fn probabilities(mut logits: Vec<f32>, groups: &[usize]) -> Vec<f32> {
    let mut rest = &mut logits[..];
    for &classes in groups {
        let (group, others) = rest.split_at_mut(classes.min(rest.len()));
        softmax(group);
        rest = others;
    }
    logits
}

fn view<'a>(image: &'a RgbImage, path: &Path) -> anyhow::Result<ImageView<'a>> {
    let (width, height) = image.dimensions();
    ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).with_context(|| path.display().to_string())
}
