//! The teachers of one `distill soften`, and what they make of an image together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, ensure, Context};
use image::RgbImage;
use indicatif::ProgressBar;
use peregrine_student::Architecture;
use peregrine_vision::decode::mask::MASK_STRIDE;

use super::shard::{HalfMap, ImageSoftTargets};
use super::targets::Index;
use super::SoftenArgs;
use crate::data::{load_image, OnError, Sample, Skipped};
use crate::teacher::description::Family;
use crate::teacher::{
    ensemble, Feature, OnnxTeacher, PackageTeacher, Prediction, Runtime, SoftMask, TeacherDescription,
};

/// All that are asked.
pub(super) struct Teachers {
    all: Vec<AnyTeacher>,
    /// For each detector and detection class of the student's, whether it knows it.
    detectors: Vec<Vec<bool>>,
    /// The same of segmenters and segmentation classes.
    segmenters: Vec<Vec<bool>>,
    /// The student's input, whose cells masks are brought to.
    input: (usize, usize),
    /// The student's layers for which some teacher keeps a feature.
    features: BTreeSet<String>,
}

/// A teacher of either kind.
enum AnyTeacher {
    Onnx(OnnxTeacher),
    Package(PackageTeacher),
}

/// What the teachers made of some images, and the images that could not be read.
pub(super) struct TeacherOutputs {
    pub images: Vec<String>,
    pub soft_targets: Vec<ImageSoftTargets>,
    pub skipped: Vec<Skipped>,
}

impl Teachers {
    /// Loads those that `args` name.
    ///
    /// # Errors
    /// Names the teacher, and what it lacks or what does not fit.
    pub fn load(args: &SoftenArgs, student: &Architecture) -> anyhow::Result<Self> {
        let input = (student.input.width, student.input.height);
        let (all, detectors, segmenters) = (Vec::new(), Vec::new(), Vec::new());
        let mut teachers = Self { all, detectors, segmenters, input, features: BTreeSet::new() };
        let detection = &student.detection.classes;
        let mut runtime = None;
        for teacher in &args.teachers {
            let Some((description, network)) = teacher.split_once('=') else {
                let folder = Path::new(teacher);
                ensure!(
                    folder.is_dir(),
                    "--teacher {teacher}: write DESCRIPTION.toml=NETWORK.onnx, or the folder of a package"
                );
                teachers.keep(teacher, &args.features)?;
                let package = PackageTeacher::load(folder, detection, &args.features, args.threads)?;
                teachers.detectors.push(vec![true; detection.len()]);
                teachers.all.push(AnyTeacher::Package(package));
                continue;
            };
            let description = TeacherDescription::read(Path::new(description))?;
            teachers.keep(teacher, description.features.keys())?;
            let (family, name) = (description.family, description.name.clone());
            ensure!(
                family != Family::ClassLogits,
                "--teacher {teacher}: a classifier does not say where anything is; give a detector or a segmenter"
            );
            let classes = if family == Family::PixelLogits { &student.segmentation.classes } else { detection };
            let library = args.onnxruntime.as_deref().unwrap_or(Path::new("libonnxruntime.so"));
            if runtime.is_none() {
                runtime = Some(Runtime::open(library)?);
            }
            let runtime = runtime.as_ref().context("opened just above")?;
            let onnx = OnnxTeacher::load(runtime, Path::new(network), description, classes, args.threads)?;
            if family == Family::PixelLogits {
                let unknown: Vec<&str> = classes
                    .iter()
                    .zip(onnx.knows())
                    .filter(|(_, knows)| !knows)
                    .map(|(class, _)| class.as_str())
                    .collect();
                if !unknown.is_empty() {
                    eprintln!("{name} maps nothing to {}: by its masks there is none of that", unknown.join(", "));
                }
                teachers.segmenters.push(onnx.knows());
            } else {
                teachers.detectors.push(onnx.knows());
            }
            teachers.all.push(AnyTeacher::Onnx(onnx));
        }
        let has_package = teachers.all.iter().any(|teacher| matches!(teacher, AnyTeacher::Package(_)));
        ensure!(
            has_package || args.features.is_empty(),
            "--feature is for a package, of which there is none; [features] of a description says what an ONNX teacher keeps"
        );
        Ok(teachers)
    }

    /// Notes the features that `teacher` is to keep.
    fn keep<'a>(&mut self, teacher: &str, layers: impl IntoIterator<Item = &'a String>) -> anyhow::Result<()> {
        for layer in layers {
            ensure!(
                self.features.insert(layer.clone()),
                "--teacher {teacher}: the feature of {layer} is asked for twice; the features of different teachers have \
                 no mean: keep those of one"
            );
        }
        Ok(())
    }

    /// An index without shards.
    pub fn index(&self, student: &Architecture) -> Index {
        let identity = |teacher: &AnyTeacher| match teacher {
            AnyTeacher::Onnx(t) => (t.description.name.clone(), t.identity()),
            AnyTeacher::Package(t) => (t.name.clone(), t.identity.clone()),
        };
        let classes = &student.detection.classes;
        let known = classes.iter().enumerate().filter(|(class, _)| self.detectors.iter().any(|known| known[*class]));
        Index {
            teachers: self.all.iter().map(identity).collect(),
            classes: classes.to_vec(),
            known: Some(known.map(|(_, name)| name.clone()).collect()),
            features: self.features.iter().cloned().collect(),
            segmentation: (!self.segmenters.is_empty()).then(|| student.segmentation.classes.clone()),
            shards: Vec::new(),
        }
    }

    /// Shows them `samples`.
    ///
    /// # Errors
    /// When an image cannot be read, unless those are to be left out; when a teacher fails.
    pub fn infer(
        &mut self,
        samples: &[Sample],
        on_error: OnError,
        progress: &ProgressBar,
    ) -> anyhow::Result<TeacherOutputs> {
        let mut outputs = TeacherOutputs { images: Vec::new(), soft_targets: Vec::new(), skipped: Vec::new() };
        for sample in samples {
            progress.inc(1);
            let image = match load_image(&sample.image) {
                Err(e) if on_error == OnError::Skip => {
                    outputs.skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() });
                    continue;
                }
                image => image?,
            };
            outputs.soft_targets.push(self.soften(&image).with_context(|| sample.image.display().to_string())?);
            outputs.images.push(sample.file_name().to_owned());
        }
        Ok(outputs)
    }

    fn soften(&mut self, image: &RgbImage) -> anyhow::Result<ImageSoftTargets> {
        let (mut boxes, mut masks, mut features) = (Vec::new(), Vec::new(), BTreeMap::new());
        for teacher in &mut self.all {
            let (opinion, shown) = match teacher {
                AnyTeacher::Package(t) => t.infer(image).map(|(seen, shown)| (Prediction::Boxes(seen), shown))?,
                AnyTeacher::Onnx(t) => t.infer(image)?,
            };
            match opinion {
                Prediction::Boxes(seen) => boxes.push(seen),
                Prediction::Pixels(mask) => masks.push(mask),
                Prediction::Image(_) => bail!("a teacher gives neither boxes nor masks"),
            }
            for (layer, feature) in &shown {
                features.insert(layer.clone(), Arc::new(half(layer, feature)?));
            }
        }
        let (columns, rows) = self.cells(image);
        let mask = || HalfMap::from(&SoftMask::mean(&masks, &self.segmenters, columns, rows));
        Ok(ImageSoftTargets {
            boxes: ensemble::fuse(&boxes, &self.detectors),
            mask: (!masks.is_empty()).then(|| Arc::new(mask())),
            features,
        })
    }

    /// Cells of the student's mask that the whole image covers when it fills the input, across and down.
    fn cells(&self, image: &RgbImage) -> (usize, usize) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let scale = (self.input.0 as f64 / width).min(self.input.1 as f64 / height) / MASK_STRIDE as f64;
        let cells = |side: f64| ((side * scale).round() as usize).max(1);
        (cells(width), cells(height))
    }
}

fn half(layer: &str, feature: &Feature) -> anyhow::Result<HalfMap> {
    HalfMap::try_from(feature).with_context(|| format!("the feature of {layer}"))
}
