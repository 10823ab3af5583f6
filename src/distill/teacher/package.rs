//! A Peregrine package as a teacher: whole images through the CPU engine, letterboxed as in deployment.

use std::path::Path;

use anyhow::{ensure, Context};
use image::RgbImage;

use super::detect::{suppress, MIN_SCORE};
use super::SoftBox;
use crate::decode::head::{logit, softmax_mean};
use crate::decode::BoundingBox;
use crate::distill::loss::assign::{self, Cell};
use crate::engine::cpu::CpuEngine;
use crate::engine::Engine;
use crate::preprocess::{ImageView, Letterbox, Normalisation};
use crate::student::package::sha256;
use crate::student::{Architecture, Student};

/// The teacher, ready to look at images.
pub struct PackageTeacher {
    pub name: String,
    /// A hash of its weights and of its architecture, input included.
    pub identity: String,
    engine: CpuEngine,
    input: (usize, usize),
    normalisation: Normalisation,
    cells: Vec<Cell>,
    classes: usize,
    bins: usize,
}

impl PackageTeacher {
    /// Loads the package in `folder`, to be run at its own input size.
    ///
    /// # Errors
    /// When it cannot be read, or knows other classes than the student's `classes`.
    pub fn load(folder: &Path, classes: &[String], threads: usize) -> anyhow::Result<Self> {
        let student = Student::load(folder)?;
        let Architecture { input, detection, .. } = &student.manifest.architecture;
        ensure!(
            detection.classes == classes,
            "{}: detects {}; the student detects {}",
            folder.display(),
            detection.classes.join(", "),
            classes.join(", ")
        );
        let described = serde_json::to_string(&student.manifest.architecture).expect("an architecture is plain data");
        let identity = sha256(format!("{} {described}", student.manifest.weights.sha256).as_bytes());
        Ok(Self {
            engine: CpuEngine::new(&student.graph(), &student.weights, threads)?,
            input: (input.width, input.height),
            normalisation: Normalisation { mean: input.mean, std: input.std },
            cells: assign::cells(input.width, input.height),
            classes: classes.len(),
            bins: detection.bins,
            name: student.manifest.name,
            identity,
        })
    }

    /// The objects in `image`, best first, in its pixels.
    ///
    /// # Errors
    /// When the image is empty or the engine fails.
    pub fn look(&mut self, image: &RgbImage) -> anyhow::Result<Vec<SoftBox>> {
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).context("an unusable image")?;
        let letterbox = Letterbox::new(view.size(), self.input);
        letterbox.apply(&view, &self.normalisation, self.engine.input());
        self.engine.run()?;
        let mut found = Vec::new();
        let mut first = 0;
        for level in Architecture::detection_levels() {
            let (class, sides) = (self.engine.output(level.class), self.engine.output(level.sides));
            let count = class.len() / self.classes;
            for (at, cell) in self.cells[first..first + count].iter().enumerate() {
                let logits: Vec<f32> = (0..self.classes).map(|c| class[c * count + at]).collect();
                if logits.iter().all(|&l| l <= logit(MIN_SCORE)) {
                    continue;
                }
                let distance = |side: usize| {
                    let bins = (0..self.bins).map(|bin| sides[(side * self.bins + bin) * count + at]);
                    cell.stride * softmax_mean(bins)
                };
                let [left, top, right, bottom] = std::array::from_fn(distance);
                let bbox = BoundingBox::new(cell.x - left, cell.y - top, cell.x + right, cell.y + bottom);
                let bbox = letterbox.to_source(bbox);
                if bbox.width() > 1.0 && bbox.height() > 1.0 {
                    found.push(SoftBox { bbox, logits });
                }
            }
            first += count;
        }
        Ok(suppress(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distill::data::load_image;
    use crate::pipeline::{Pipeline, PipelineOptions};

    #[test]
    fn it_sees_the_objects_that_the_pipeline_finds() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let image = load_image(&root.join("models/frames/highway-12.jpg")).unwrap();
        let student = Student::embedded();
        let classes = &student.manifest.architecture.detection.classes;
        let mut teacher = PackageTeacher::load(&root.join("models/peregrine-s"), classes, 1).unwrap();
        let seen = teacher.look(&image).unwrap();
        let options = PipelineOptions { score_threshold: 0.3, threads: 1, ..Default::default() };
        let mut pipeline = Pipeline::new(&student, options).unwrap();
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).unwrap();
        let found = pipeline.process(&view).unwrap().detections.clone();
        assert!(!found.is_empty());
        for (i, detection) in found.iter().enumerate() {
            // The pipeline may see one object as two classes; the teacher keeps the likelier, with the logits of both.
            if found[..i].iter().any(|d| d.bbox.iou(&detection.bbox) > 0.5) {
                continue;
            }
            let twin = seen.iter().find(|s| s.best().0 == detection.class && s.bbox.iou(&detection.bbox) > 0.99);
            assert!((twin.unwrap().score() - detection.score).abs() < 1e-4);
        }
    }
}
