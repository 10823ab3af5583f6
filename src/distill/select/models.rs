//! The networks that look at the frames: the student, and its teachers.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use image::RgbImage;
use peregrine_core::Detection;
use peregrine_engine::Graph;
use peregrine_student::Student;

use super::disagreement::{among, disagreement};
use crate::teacher::description::Family;
use crate::teacher::package::PackagePrediction;
use crate::teacher::{ensemble, Compute, OnnxTeacher, PackageTeacher, Runtime, SoftTarget, TeacherDescription, Wanted};

/// Layers whose features describe a frame, in a student of the presets.
const LAYERS: [&str; 3] = ["neck.8.add", "neck.16.add", "neck.32"];

/// A teacher of either kind.
enum Teacher {
    Onnx(OnnxTeacher),
    Package(PackageTeacher),
}

/// The student and its teachers, ready for frames.
pub struct Models {
    student: PackageTeacher,
    teachers: Vec<Teacher>,
    /// For each teacher, which of the classes it knows.
    known: Vec<Vec<bool>>,
    /// Those that a teacher knows.
    known_by_any: Vec<bool>,
    /// The student's detection classes.
    pub classes: Vec<String>,
    layers: Vec<String>,
}

/// What the networks make of one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Impression {
    /// Between the student and the teachers' fused objects, and among the teachers.
    pub disagreements: [f32; 2],
    /// The means of the student's feature maps over the image.
    pub features: Vec<f32>,
    /// The teachers' fused objects, best first.
    pub objects: Vec<Detection>,
}

impl Models {
    /// Loads the student's package at `model`, and each of `teachers`, given as
    /// `DESCRIPTION.toml=NETWORK.onnx` or as the folder of a package.
    ///
    /// # Errors
    /// Names the network, and what is missing or does not fit.
    pub fn load(
        model: &Path,
        teachers: &[String],
        onnxruntime: Option<&PathBuf>,
        threads: usize,
    ) -> anyhow::Result<Self> {
        let student = Student::load(model)?;
        let classes = student.manifest.architecture.detection_classes().to_vec();
        ensure!(!classes.is_empty(), "{}: detects nothing; frames are selected by boxes", model.display());
        let layers = layers(&student.graph());
        let mut models = Self {
            student: PackageTeacher::load(model, boxes_of(&classes), &layers, Compute::cpu(threads))?,
            teachers: Vec::new(),
            known: Vec::new(),
            known_by_any: Vec::new(),
            classes,
            layers,
        };
        for teacher in teachers {
            models.add(teacher, onnxruntime, threads)?;
        }
        let any = |class: usize| models.known.iter().any(|known| known[class]);
        models.known_by_any = (0..models.classes.len()).map(any).collect();
        Ok(models)
    }

    fn add(&mut self, teacher: &str, onnxruntime: Option<&PathBuf>, threads: usize) -> anyhow::Result<()> {
        let Some((description, network)) = teacher.split_once('=') else {
            let folder = Path::new(teacher);
            ensure!(
                folder.is_dir(),
                "--teacher {teacher}: write DESCRIPTION.toml=NETWORK.onnx, or the folder of a package"
            );
            let package = PackageTeacher::load(folder, boxes_of(&self.classes), &[], Compute::cpu(threads))?;
            self.known.extend(package.knows_boxes());
            self.teachers.push(Teacher::Package(package));
            return Ok(());
        };
        let description = TeacherDescription::read(Path::new(description))?;
        ensure!(
            !matches!(description.family, Family::ClassLogits | Family::PixelLogits),
            "--teacher {teacher}: frames are selected by boxes; give a detector"
        );
        let library = onnxruntime.map_or(Path::new("libonnxruntime.so"), PathBuf::as_path);
        let runtime = Runtime::open(library)?;
        let onnx = OnnxTeacher::load(&runtime, Path::new(network), description, &self.classes, Compute::cpu(threads))?;
        self.known.push(onnx.knows());
        self.teachers.push(Teacher::Onnx(onnx));
        Ok(())
    }

    /// What determines an impression: hashes of the networks and descriptions, and the layers.
    pub fn identity(&self) -> Vec<String> {
        let of = |teacher: &Teacher| match teacher {
            Teacher::Onnx(t) => t.identity(),
            Teacher::Package(t) => t.identity.clone(),
        };
        let student = std::iter::once(self.student.identity.clone());
        student.chain(self.layers.iter().cloned()).chain(self.teachers.iter().map(of)).collect()
    }

    /// Runs all networks on `image`.
    ///
    /// # Errors
    /// When one fails.
    pub fn look_at(&mut self, image: &RgbImage) -> anyhow::Result<Impression> {
        let PackagePrediction { boxes, features, .. } = self.student.infer(image)?;
        let found = detections(&boxes);
        let by_teacher: Vec<Vec<SoftTarget>> =
            self.teachers.iter_mut().map(|teacher| teacher.detect(image)).collect::<anyhow::Result<_>>()?;
        let objects = detections(&ensemble::fuse(&by_teacher, &self.known));
        let each: Vec<(Vec<Detection>, &[bool])> =
            by_teacher.iter().zip(&self.known).map(|(found, known)| (detections(found), known.as_slice())).collect();
        let disagreements = [disagreement(&objects, &found, &self.known_by_any), among(&each)];
        let mut means = Vec::new();
        for layer in &self.layers {
            let feature = features.get(layer).with_context(|| format!("no feature of {layer}"))?;
            let cells = feature.width * feature.height;
            means.extend(feature.values.chunks(cells).map(|plane| plane.iter().sum::<f32>() / cells as f32));
        }
        Ok(Impression { disagreements, features: means, objects })
    }
}

impl Teacher {
    fn detect(&mut self, image: &RgbImage) -> anyhow::Result<Vec<SoftTarget>> {
        match self {
            Self::Onnx(teacher) => teacher.detect(image),
            Self::Package(teacher) => Ok(teacher.infer(image)?.boxes),
        }
    }
}

fn boxes_of(classes: &[String]) -> Wanted<'_> {
    Wanted { detection: classes, ..Wanted::default() }
}

fn detections(found: &[SoftTarget]) -> Vec<Detection> {
    found.iter().map(|t| Detection { class: t.best().0, score: t.score(), bbox: t.bbox }).collect()
}

/// The layers whose features describe a frame: those of a preset's neck, or else those that the
/// heads' last layers read.
fn layers(graph: &Graph) -> Vec<String> {
    let has = |name: &str| graph.layers.iter().any(|layer| layer.name == name);
    if LAYERS.iter().all(|name| has(name)) {
        return LAYERS.map(str::to_owned).into();
    }
    let mut names: Vec<String> = Vec::new();
    for input in graph.outputs.iter().flat_map(|&id| &graph.layers[id].inputs) {
        let name = &graph.layers[*input].name;
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}
