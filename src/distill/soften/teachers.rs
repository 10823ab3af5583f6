//! The teachers of one `distill soften`, and what they make of an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{ensure, Context};
use image::{imageops, RgbImage};
use peregrine_core::BoundingBox;
use peregrine_student::Architecture;
use peregrine_vision::decode::mask::MASK_STRIDE;
use tracing::warn;

use super::ahead::Loaded;
use super::index::Index;
use super::map::HalfMap;
use super::shard::ImageSoftTargets;
use super::SoftenArgs;
use crate::data::{OnError, Sample, Skipped};
use crate::teacher::description::Family;
use crate::teacher::{
    ensemble, Compute, Feature, OnnxTeacher, PackageTeacher, Prediction, Runtime, SoftMask, SoftTarget,
    TeacherDescription, Wanted,
};

/// All teachers.
pub(super) struct Teachers {
    all: Vec<AnyTeacher>,
    /// For each detector, which of the student's detection classes it knows; with `flip` again for
    /// what each sees mirrored, as in the two below.
    detectors: Vec<Vec<bool>>,
    /// For each segmenter, which of the student's segmentation classes it knows.
    segmenters: Vec<Vec<bool>>,
    /// For each classifier, which of the student's classes of scenes it knows.
    classifiers: Vec<Vec<bool>>,
    /// The student's input size, to whose cells masks are resized.
    input: (usize, usize),
    /// The student's layers for which a teacher gives features.
    features: BTreeSet<String>,
    /// Whether each sees the image mirrored, too.
    flip: bool,
}

/// A teacher of either kind.
enum AnyTeacher {
    Onnx(OnnxTeacher),
    Package(PackageTeacher),
}

/// What all teachers see in one or two views of an image.
#[derive(Default)]
struct Seen {
    /// By detector.
    boxes: Vec<Vec<SoftTarget>>,
    /// By segmenter.
    masks: Vec<SoftMask>,
    /// By classifier, as masks of one cell.
    scenes: Vec<SoftMask>,
    /// By the student's layer, of the first view.
    features: BTreeMap<String, Arc<HalfMap>>,
}

impl Seen {
    /// Adds what was seen in the image mirrored, in the places of the image as it is, which is so many
    /// pixels wide.
    fn add_mirrored(&mut self, mirrored: Self, width: u32) {
        let width = width as f32;
        let back = |object: SoftTarget| {
            let b = object.bbox;
            SoftTarget { bbox: BoundingBox::new(width - b.x_max, b.y_min, width - b.x_min, b.y_max), ..object }
        };
        self.boxes.extend(mirrored.boxes.into_iter().map(|objects| objects.into_iter().map(back).collect()));
        self.masks.extend(mirrored.masks.into_iter().map(SoftMask::mirrored));
        self.scenes.extend(mirrored.scenes);
    }
}

/// What became of an image.
pub(super) enum Softened {
    Done {
        soft_targets: ImageSoftTargets,
        /// Of the image's file.
        sha256: String,
    },
    Skipped(Skipped),
}

impl Teachers {
    /// Loads the teachers of `args`.
    ///
    /// # Errors
    /// Names the teacher, and what is missing or does not fit.
    pub fn load(args: &SoftenArgs, student: &Architecture) -> anyhow::Result<Self> {
        let mut teachers = Self {
            all: Vec::new(),
            detectors: Vec::new(),
            segmenters: Vec::new(),
            classifiers: Vec::new(),
            input: (student.input.width, student.input.height),
            features: BTreeSet::new(),
            flip: args.flip,
        };
        let mut runtime = None;
        for teacher in &args.teachers {
            match teacher.split_once('=') {
                None => teachers.add_package(teacher, args, student)?,
                Some((description, network)) => {
                    let description = TeacherDescription::read(Path::new(description))?;
                    teachers.reserve_features(teacher, description.features.keys())?;
                    ensure!(
                        description.family != Family::ClassLogits || student.scene.is_some(),
                        "--teacher {teacher}: a classifier does not locate objects, and the student has no scene head; give \
                         a detector or a segmenter, or name the student with --student"
                    );
                    if runtime.is_none() {
                        let library = args.onnxruntime.as_deref().unwrap_or(Path::new("libonnxruntime.so"));
                        runtime = Some(Runtime::open(library)?);
                    }
                    let runtime = runtime.as_ref().context("opened just above")?;
                    teachers.add_onnx(runtime, Path::new(network), description, student, args.compute())?;
                }
            }
        }
        let has_package = teachers.all.iter().any(|teacher| matches!(teacher, AnyTeacher::Package(_)));
        ensure!(
            has_package || args.features.is_empty(),
            "--feature needs a package as --teacher; an ONNX teacher's features are in [features] of its description"
        );
        if teachers.flip {
            // The second view of each counts as one more teacher that knows the same.
            for known in [&mut teachers.detectors, &mut teachers.segmenters, &mut teachers.classifiers] {
                known.extend_from_within(..);
            }
        }
        Ok(teachers)
    }

    fn add_package(&mut self, teacher: &str, args: &SoftenArgs, student: &Architecture) -> anyhow::Result<()> {
        let (folder, wanted, wants_scenes) = package_address(teacher, student);
        ensure!(
            folder.is_dir(),
            "--teacher {teacher}: write DESCRIPTION.toml=NETWORK.onnx, or the folder of a package, as FOLDER, \
             FOLDER:boxes, FOLDER:masks or FOLDER:scenes"
        );
        self.reserve_features(teacher, &args.features)?;
        let scenes = scene_classes(student);
        let wanted = Wanted { scene: if wants_scenes { &scenes[..] } else { &[] }, ..wanted };
        let package = PackageTeacher::load(folder, wanted, &args.features, args.compute())?;
        self.detectors.extend(package.knows_boxes());
        if let Some(knows) = package.knows_masks() {
            self.add_segmenter(&package.name, knows, student);
        }
        if let Some(knows) = package.knows_scenes() {
            self.add_classifier(&package.name, knows, student);
        }
        self.all.push(AnyTeacher::Package(package));
        Ok(())
    }

    /// Adds what a segmenter knows; warns of classes that it does not.
    fn add_segmenter(&mut self, name: &str, knows: Vec<bool>, student: &Architecture) {
        let classes = student.segmentation_classes();
        let unknown = classes.iter().zip(&knows).filter(|(_, &knows)| !knows).map(|(class, _)| class.as_str());
        let unknown: Vec<&str> = unknown.collect();
        if !unknown.is_empty() {
            warn!("{name} maps nothing to {}: its masks will never contain these classes", unknown.join(", "));
        }
        self.segmenters.push(knows);
    }

    /// Adds what a classifier knows; warns of classes that it does not.
    fn add_classifier(&mut self, name: &str, knows: Vec<bool>, student: &Architecture) {
        let classes = scene_classes(student);
        let unknown = classes.iter().zip(&knows).filter(|(_, &knows)| !knows).map(|(class, _)| class.as_str());
        let unknown: Vec<&str> = unknown.collect();
        if !unknown.is_empty() {
            warn!("{name} maps nothing to {}: to it no image shows these scenes", unknown.join(", "));
        }
        self.classifiers.push(knows);
    }

    fn add_onnx(
        &mut self,
        runtime: &Runtime,
        network: &Path,
        description: TeacherDescription,
        student: &Architecture,
        compute: Compute,
    ) -> anyhow::Result<()> {
        let family = description.family;
        let classes = match family {
            Family::PixelLogits => student.segmentation_classes().to_vec(),
            Family::ClassLogits => scene_classes(student),
            _ => student.detection_classes().to_vec(),
        };
        let name = description.name.clone();
        let onnx = OnnxTeacher::load(runtime, network, description, &classes, compute)?;
        let knows = onnx.knows();
        match family {
            Family::PixelLogits => self.add_segmenter(&name, knows, student),
            Family::ClassLogits => self.add_classifier(&name, knows, student),
            _ => self.detectors.push(knows),
        }
        self.all.push(AnyTeacher::Onnx(onnx));
        Ok(())
    }

    /// Reserves layers for the features of `teacher`.
    fn reserve_features<'a>(
        &mut self,
        teacher: &str,
        layers: impl IntoIterator<Item = &'a String>,
    ) -> anyhow::Result<()> {
        for layer in layers {
            ensure!(
                self.features.insert(layer.clone()),
                "--teacher {teacher}: the feature of {layer} is given twice; features of different teachers cannot be \
                 averaged: use those of one"
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
        let classes = student.detection_classes();
        let known = classes.iter().enumerate().filter(|(class, _)| self.detectors.iter().any(|known| known[*class]));
        Index {
            teachers: self.all.iter().map(identity).collect(),
            classes: classes.to_vec(),
            known: Some(known.map(|(_, name)| name.clone()).collect()),
            features: self.features.iter().cloned().collect(),
            flip: self.flip,
            segmentation: (!self.segmenters.is_empty()).then(|| student.segmentation_classes().to_vec()),
            scene: student.scene.clone().filter(|_| !self.classifiers.is_empty()),
            share: None,
            shards: Vec::new(),
        }
    }

    /// Runs the teachers on a sample's image.
    ///
    /// # Errors
    /// When the image could not be read, unless `on_error` is to skip it; when a teacher fails.
    pub fn infer(&mut self, sample: &Sample, image: Loaded, on_error: OnError) -> anyhow::Result<Softened> {
        let (image, sha256) = match image {
            Err(e) if on_error == OnError::Skip => {
                return Ok(Softened::Skipped(Skipped { path: sample.image.clone(), reason: e.to_string() }));
            }
            image => image?,
        };
        let soft_targets = self.soften(&image).with_context(|| sample.image.display().to_string())?;
        Ok(Softened::Done { soft_targets, sha256 })
    }

    fn soften(&mut self, image: &RgbImage) -> anyhow::Result<ImageSoftTargets> {
        let mut seen = self.see(image)?;
        if self.flip {
            seen.add_mirrored(self.see(&imageops::flip_horizontal(image))?, image.width());
        }
        let (columns, rows) = self.cells(image);
        let mask = || HalfMap::from(&SoftMask::mean(&seen.masks, &self.segmenters, columns, rows));
        Ok(ImageSoftTargets {
            boxes: ensemble::fuse(&seen.boxes, &self.detectors),
            mask: (!seen.masks.is_empty()).then(|| Arc::new(mask())),
            scene: (!seen.scenes.is_empty()).then(|| SoftMask::mean(&seen.scenes, &self.classifiers, 1, 1).logits),
            features: seen.features,
        })
    }

    /// What each teacher sees in a view of an image.
    fn see(&mut self, image: &RgbImage) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        for teacher in &mut self.all {
            let layers = match teacher {
                AnyTeacher::Package(teacher) => {
                    let found = teacher.infer(image)?;
                    if teacher.knows_boxes().is_some() {
                        seen.boxes.push(found.boxes);
                    }
                    seen.masks.extend(found.mask);
                    seen.scenes.extend(found.scene.map(of_image));
                    found.features
                }
                AnyTeacher::Onnx(teacher) => {
                    let (prediction, features) = teacher.infer(image)?;
                    match prediction {
                        Prediction::Boxes(found) => seen.boxes.push(found),
                        Prediction::Pixels(mask) => seen.masks.push(mask),
                        Prediction::Image(logits) => seen.scenes.push(of_image(logits)),
                    }
                    features
                }
            };
            for (layer, feature) in &layers {
                seen.features.insert(layer.clone(), Arc::new(half(layer, feature)?));
            }
        }
        Ok(seen)
    }

    /// Columns and rows of the student's mask that the image covers when it fills the input.
    fn cells(&self, image: &RgbImage) -> (usize, usize) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let scale = (self.input.0 as f64 / width).min(self.input.1 as f64 / height) / MASK_STRIDE as f64;
        let cells = |side: f64| ((side * scale).round() as usize).max(1);
        (cells(width), cells(height))
    }
}

/// The student's classes of scenes, group by group.
fn scene_classes(student: &Architecture) -> Vec<String> {
    student.scene.as_ref().map_or_else(Vec::new, |head| head.classes())
}

/// The logits of an image as a mask of one cell.
fn of_image(logits: Vec<f32>) -> SoftMask {
    SoftMask { width: 1, height: 1, logits }
}

/// A package's folder, and what it is wanted for, last whether for scenes: `FOLDER:boxes`,
/// `FOLDER:masks`, `FOLDER:scenes` or, as `FOLDER`, all. What is there as it stands is a folder, even
/// with a colon in its name.
fn package_address<'a>(teacher: &'a str, student: &'a Architecture) -> (&'a Path, Wanted<'a>, bool) {
    let (detection, segmentation) = (student.detection_classes(), student.segmentation_classes());
    let part = teacher.rsplit_once(':').filter(|_| !Path::new(teacher).exists());
    let none = Wanted::default();
    match part {
        Some((folder, "boxes")) => (Path::new(folder), Wanted { detection, ..none }, false),
        Some((folder, "masks")) => (Path::new(folder), Wanted { segmentation, ..none }, false),
        Some((folder, "scenes")) => (Path::new(folder), none, true),
        _ => (Path::new(teacher), Wanted { detection, segmentation, ..none }, true),
    }
}

fn half(layer: &str, feature: &Feature) -> anyhow::Result<HalfMap> {
    HalfMap::try_from(feature).with_context(|| format!("the feature of {layer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_seen_mirrored_is_put_back_in_its_place() {
        let object = |left: f32, right: f32| SoftTarget {
            bbox: BoundingBox::new(left, 2.0, right, 8.0),
            logits: vec![1.0, -1.0],
        };
        let mask = |logits: [f32; 6]| SoftMask { width: 3, height: 1, logits: logits.into() };
        let view = |object, mask| Seen { boxes: vec![vec![object]], masks: vec![mask], ..Seen::default() };
        let mut seen = view(object(10.0, 30.0), mask([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
        seen.add_mirrored(view(object(70.0, 90.0), mask([3.0, 2.0, 1.0, 6.0, 5.0, 4.0])), 100);
        assert_eq!(seen.boxes[0], seen.boxes[1]);
        assert_eq!(seen.masks[0], seen.masks[1]);
    }
}
