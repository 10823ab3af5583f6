//! A Peregrine package as a teacher: run on whole images by the CPU engine, letterboxed as in
//! deployment.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{bail, ensure, Context};
use image::RgbImage;
use peregrine_core::files::sha256;
use peregrine_core::ImageView;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Graph, Shape};
use peregrine_student::Student;
use peregrine_vision::decode::head::logit;
use peregrine_vision::decode::HeadDecoder;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::candidates::{suppress, MIN_SCORE};
use super::{Feature, SoftTarget, UNKNOWN};

/// The teacher, ready for images.
pub struct PackageTeacher {
    pub name: String,
    /// A hash of its weights and of its architecture, input included.
    pub identity: String,
    engine: CpuEngine,
    input: (usize, usize),
    normalisation: Normalisation,
    head: HeadDecoder,
    /// For each of the student's classes its own class, where it has one.
    rows: Vec<Option<usize>>,
    /// The layers whose features are kept: name, index among the engine's outputs, and shape.
    features: Vec<(String, usize, Shape)>,
}

impl PackageTeacher {
    /// Loads the package in `folder`, to be run at its own input size; it gives the layers
    /// `features` besides boxes.
    ///
    /// # Errors
    /// When it cannot be read, detects none of the student's `classes`, or lacks one of `features`.
    pub fn load(folder: &Path, classes: &[String], features: &[String], threads: usize) -> anyhow::Result<Self> {
        let student = Student::load(folder)?;
        let architecture = &student.manifest.architecture;
        let (input, detected) = (&architecture.input, architecture.detection_classes());
        let of = |class: &String| detected.iter().position(|own| own == class);
        let rows: Vec<Option<usize>> = classes.iter().map(of).collect();
        ensure!(
            rows.iter().any(Option::is_some),
            "{}: detects {}; the student detects {}: none of its classes",
            folder.display(),
            if detected.is_empty() { "nothing".to_owned() } else { detected.join(", ") },
            classes.join(", ")
        );
        let described = serde_json::to_string(&student.manifest.architecture).expect("an architecture is plain data");
        let identity = sha256(format!("{} {described}", student.manifest.weights.sha256).as_bytes());
        let mut graph = student.graph();
        let layers = features.iter().map(|name| layer(&graph, name)).collect::<anyhow::Result<Vec<_>>>();
        let layers = layers.with_context(|| folder.display().to_string())?;
        let shown = features.iter().zip(&layers).zip(graph.outputs.len()..);
        let shown = shown.map(|((name, &id), output)| (name.clone(), output, graph.layers[id].shape)).collect();
        graph.outputs.extend(layers);
        Ok(Self {
            engine: CpuEngine::new(&graph, &student.weights, threads)?,
            features: shown,
            input: (input.width, input.height),
            normalisation: Normalisation { mean: input.mean, std: input.std },
            head: HeadDecoder::new(architecture, input.width, input.height),
            rows,
            name: student.manifest.name,
            identity,
        })
    }

    /// For each of the student's classes, whether it detects it.
    pub fn knows(&self) -> Vec<bool> {
        self.rows.iter().map(Option::is_some).collect()
    }

    /// The objects in `image`, best first, in its pixels; and its features, by layer.
    ///
    /// # Errors
    /// When the image is empty or the engine fails.
    pub fn infer(&mut self, image: &RgbImage) -> anyhow::Result<(Vec<SoftTarget>, BTreeMap<String, Feature>)> {
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).context("an unusable image")?;
        let letterbox = Letterbox::new(view.size(), self.input);
        letterbox.apply(&view, &self.normalisation, self.engine.input());
        self.engine.run()?;
        let mut found = Vec::new();
        self.head.anchors(
            |i| self.engine.output(i),
            logit(MIN_SCORE),
            |bbox, own| {
                let logits: Vec<f32> = self.rows.iter().map(|row| row.map_or(UNKNOWN, |c| own[c])).collect();
                let bbox = letterbox.to_source(bbox);
                let seen = logits.iter().any(|&l| l > logit(MIN_SCORE));
                if seen && bbox.width() > 1.0 && bbox.height() > 1.0 {
                    found.push(SoftTarget { bbox, logits });
                }
            },
        );
        Ok((suppress(found), self.features(&letterbox)))
    }

    /// The features of the image that the engine ran on last, which was placed by `letterbox`.
    fn features(&self, letterbox: &Letterbox) -> BTreeMap<String, Feature> {
        let ((left, top), (width, height)) = (letterbox.pad(), letterbox.content());
        let feature = |(name, output, shape): &(String, usize, Shape)| {
            let values = self.engine.output(*output);
            let x = |v: usize| v as f32 / self.input.0 as f32 * shape.width as f32;
            let y = |v: usize| v as f32 / self.input.1 as f32 * shape.height as f32;
            let at = |c: usize, y: usize, x: usize| values[(c * shape.height + y) * shape.width + x];
            let place = [x(left), y(top), x(left + width), y(top + height)];
            (name.clone(), Feature::cut((shape.channels, shape.height, shape.width), place, at))
        };
        self.features.iter().map(feature).collect()
    }
}

/// The layer called `name`.
///
/// # Errors
/// If there is none; names some that there are.
pub fn layer(graph: &Graph, name: &str) -> anyhow::Result<usize> {
    match graph.layers.iter().position(|l| l.name == name) {
        Some(id) => Ok(id),
        None => {
            let some: Vec<_> = graph.layers.iter().map(|l| l.name.as_str()).filter(|n| n.ends_with(".add")).collect();
            bail!("has no layer {name:?}; among those it has are {}", some.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::load_image;
    use peregrine_pipeline::{Pipeline, PipelineOptions};

    #[test]
    fn it_detects_the_objects_that_the_pipeline_does() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let image = load_image(&root.join("models/frames/highway-12.jpg")).unwrap();
        let student = Student::embedded();
        let classes = student.manifest.architecture.detection_classes();
        let mut teacher = PackageTeacher::load(&root.join("models/peregrine-s"), classes, &[], 1).unwrap();
        let found_by_teacher = teacher.infer(&image).unwrap().0;
        let options = PipelineOptions { score_threshold: 0.3, threads: 1, ..Default::default() };
        let mut pipeline = Pipeline::new(&student, options).unwrap();
        let (width, height) = image.dimensions();
        let view = ImageView::new("rgb8", width, height, 3 * width, image.as_raw()).unwrap();
        let found = pipeline.process(&view).unwrap().detections.clone();
        assert!(!found.is_empty());
        for (i, detection) in found.iter().enumerate() {
            // The pipeline may detect one object as two classes; the teacher keeps the likelier,
            // with all logits.
            if found[..i].iter().any(|d| d.bbox.iou(&detection.bbox) > 0.5) {
                continue;
            }
            let twin =
                found_by_teacher.iter().find(|s| s.best().0 == detection.class && s.bbox.iou(&detection.bbox) > 0.99);
            assert!((twin.unwrap().score() - detection.score).abs() < 1e-4);
        }
    }
}
