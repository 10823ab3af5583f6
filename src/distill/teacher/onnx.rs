//! Running a teacher with ONNX Runtime, whose library is opened on first use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{bail, ensure, Context};
use image::RgbImage;
use ort::environment::Environment;
use ort::session::Session;
use peregrine_core::files::sha256;
use peregrine_core::Detection;
use tracing::warn;

use super::candidates::{detections, soft_targets, Candidate, OutputTensor, MIN_SCORE};
use super::description::{Family, TeacherDescription};
use super::network_input::NetworkInput;
use super::placement::Placement;
use super::{detect, device, external, logits, Compute, Feature, SoftMask, SoftTarget};

/// ONNX Runtime, opened.
pub struct Runtime(Environment);

impl Runtime {
    /// Opens the library at `path`.
    ///
    /// # Errors
    /// Says where to get one.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let remedy =
            "give the libonnxruntime.so of an onnxruntime wheel (pip install onnxruntime) with --onnxruntime or \
                      in ORT_DYLIB_PATH; `make setup` installs one";
        ensure!(path.is_file(), "{}: there is no ONNX Runtime here; {remedy}", path.display());
        // ONNX Runtime allows one environment in a process: the first one opened serves all.
        static OPENED: Mutex<Option<Environment>> = Mutex::new(None);
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*opened {
            return Ok(Self(environment.clone()));
        }
        let builder = ort::init_from(path).with_context(|| format!("{}: {remedy}", path.display()))?;
        let environment = builder.with_telemetry(false).build()?;
        *opened = Some(environment.clone());
        Ok(Self(environment))
    }

    /// Loads the network at `path`.
    ///
    /// # Errors
    /// When the file is missing or is not a network that ONNX Runtime can load.
    pub fn session(&self, path: &Path, threads: usize) -> anyhow::Result<Session> {
        let at = || format!("{}: not a network that ONNX Runtime can load", path.display());
        let builder = Session::builder(&self.0)?.with_intra_threads(threads);
        builder.map_err(|e| anyhow::anyhow!("{e}"))?.commit_from_file(path).with_context(at)
    }

    /// Loads the network at `path` on the device that is asked for, and says whether that is CUDA.
    ///
    /// # Errors
    /// As [`session`](Self::session); when the device is not to be had.
    fn session_on(&self, path: &Path, compute: Compute) -> anyhow::Result<(Session, bool)> {
        let on_cuda = || {
            let providers = [device::onnx_cuda()?];
            let builder = Session::builder(&self.0)?.with_intra_threads(compute.threads);
            let builder = builder.map_err(|e| anyhow::anyhow!("{e}"))?.with_execution_providers(providers);
            Ok(builder.map_err(|e| anyhow::anyhow!("{e}"))?.commit_from_file(path)?)
        };
        compute.choose(&path.display().to_string(), on_cuda, || self.session(path, compute.threads))
    }

    /// Loads a network that is in memory.
    ///
    /// # Errors
    /// When ONNX Runtime cannot load it.
    pub fn session_of(&self, bytes: &[u8], threads: usize) -> anyhow::Result<Session> {
        let builder = Session::builder(&self.0)?.with_intra_threads(threads);
        let session = builder.map_err(|e| anyhow::anyhow!("{e}"))?.commit_from_memory(bytes);
        session.context("not a network that ONNX Runtime can load")
    }
}

/// A teacher in ONNX, ready for images.
pub struct OnnxTeacher {
    pub description: TeacherDescription,
    /// SHA-256 of the ONNX file and of those that it loads.
    pub sha256: String,
    path: PathBuf,
    session: Session,
    input: NetworkInput,
    groups: Vec<Vec<usize>>,
    on_cuda: bool,
}

impl OnnxTeacher {
    /// Loads the ONNX file at `path` for the classes of a student.
    ///
    /// # Errors
    /// When the file is missing, is not a network, or lacks a tensor that its description names.
    pub fn load(
        runtime: &Runtime,
        path: &Path,
        description: TeacherDescription,
        classes: &[String],
        compute: Compute,
    ) -> anyhow::Result<Self> {
        let at = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(at)?;
        let (session, on_cuda) = runtime.session_on(path, compute)?;
        let has = |list: &[ort::value::Outlet], name: &str| list.iter().any(|o| o.name() == name);
        if !has(session.inputs(), &description.input) {
            bail!("{}: has no input {:?}, which {} names", path.display(), description.input, description.name);
        }
        if let Some(missing) = description.outputs.iter().find(|name| !has(session.outputs(), name)) {
            bail!("{}: has no output {missing:?}, which {} names", path.display(), description.name);
        }
        if let Some((layer, missing)) = description.features.iter().find(|(_, name)| !has(session.outputs(), name)) {
            bail!(
                "{}: has no output {missing:?}, which [features] of {} names for {layer}; an inner tensor must be made an \
                 output of the file first",
                path.display(),
                description.name
            );
        }
        let input = NetworkInput::of(&session, &description).with_context(at)?;
        if input.batch > 1 {
            warn!(
                "{} always computes {} images at once, of which one is used; exported with a batch of 1 it takes less time",
                path.display(),
                input.batch
            );
        }
        let groups = description.groups(classes);
        ensure!(
            groups.iter().any(|group| !group.is_empty()),
            "{}: [classes] of {} names none of the student's, which are {}",
            path.display(),
            description.name,
            classes.join(", ")
        );
        Ok(Self {
            description,
            sha256: external::hash(path, &bytes).with_context(at)?,
            path: path.to_owned(),
            session,
            input,
            groups,
            on_cuda,
        })
    }

    /// For each of the student's classes, whether the teacher knows it.
    pub fn knows(&self) -> Vec<bool> {
        self.groups.iter().map(|group| !group.is_empty()).collect()
    }

    /// A hash of its network, its description and its device, which determine its outputs.
    pub fn identity(&self) -> String {
        let description = serde_json::to_string(&self.description).expect("a description is plain data");
        let device = if self.on_cuda { " cuda" } else { "" };
        sha256(format!("{} {description}{device}", self.sha256).as_bytes())
    }

    /// The prediction for `image`.
    ///
    /// # Errors
    /// When the network fails or its outputs do not have the shapes of its family.
    pub fn predict(&mut self, image: &RgbImage) -> anyhow::Result<Prediction> {
        Ok(self.infer(image)?.0)
    }

    /// The prediction for `image`, and the features that the description names, by the student's
    /// layer.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn infer(&mut self, image: &RgbImage) -> anyhow::Result<(Prediction, BTreeMap<String, Feature>)> {
        let outputs = self.run(image)?;
        let d = &self.description;
        let feature = |(layer, name): (&String, &String)| {
            Ok((layer.clone(), Feature::of_output(name, d.layout, &outputs.tensor(name)?, &outputs.placement)?))
        };
        let features = d.features.iter().map(feature).collect::<anyhow::Result<_>>();
        let features = features.with_context(|| self.fault())?;
        let prediction = match d.family {
            Family::ClassLogits => self.class_logits(&outputs).map(Prediction::Image),
            Family::PixelLogits => self.pixel_logits(&outputs).map(Prediction::Pixels),
            _ => self.candidates(&outputs, MIN_SCORE).map(|c| Prediction::Boxes(soft_targets(&c, &self.groups))),
        };
        Ok((prediction.with_context(|| self.fault())?, features))
    }

    /// What the teacher is to be judged by: a detector's own detections above `least`, every class
    /// of a box apart, with no more suppression than its family needs; a segmenter's mask; or a
    /// classifier's logits.
    ///
    /// # Errors
    /// As [`predict`](Self::predict).
    pub fn judge(&mut self, image: &RgbImage, least: f32) -> anyhow::Result<Judged> {
        let outputs = self.run(image)?;
        let d = &self.description;
        let judged = match d.family {
            Family::ClassLogits => self.class_logits(&outputs).map(Judged::Image),
            Family::PixelLogits => self.pixel_logits(&outputs).map(Judged::Pixels),
            _ => {
                let all = |c: Vec<Candidate>| detections(&c, self.groups.len(), least, d.nms_iou());
                self.candidates(&outputs, least).map(all).map(Judged::Boxes)
            }
        };
        judged.with_context(|| self.fault())
    }

    fn candidates(&self, outputs: &Outputs, least: f32) -> anyhow::Result<Vec<Candidate>> {
        detect::candidates(&self.description, &self.groups, &outputs.all()?, &outputs.placement, least)
    }

    fn class_logits(&self, outputs: &Outputs) -> anyhow::Result<Vec<f32>> {
        logits::of_image(&self.description, &self.groups, &outputs.all()?[0])
    }

    fn pixel_logits(&self, outputs: &Outputs) -> anyhow::Result<SoftMask> {
        logits::of_pixels(&self.description, &self.groups, &outputs.all()?[0], &outputs.placement)
    }

    fn fault(&self) -> String {
        format!("{} does not fit its description {}", self.path.display(), self.description.name)
    }

    /// Runs the network on `image`.
    fn run(&mut self, image: &RgbImage) -> anyhow::Result<Outputs> {
        let (d, network_input) = (&self.description, self.input);
        let placement = Placement::new(d.fit, image.dimensions(), d.size);
        let at = || self.path.display().to_string();
        let input = network_input.tensor(image, &placement, d).with_context(at)?;
        let outputs = self.session.run(vec![(d.input.as_str(), input)]).with_context(at)?;
        let names = d.outputs.iter().chain(d.features.values());
        let tensors = names.map(|name| Ok((name.clone(), network_input.output(name, &outputs[name.as_str()])?)));
        let tensors = tensors.collect::<anyhow::Result<_>>().with_context(at)?;
        Ok(Outputs { placement, names: d.outputs.clone(), tensors })
    }

    /// The objects in `image`, best first, in its pixels.
    ///
    /// # Errors
    /// As [`predict`](Self::predict), and if the teacher is not a detector.
    pub fn detect(&mut self, image: &RgbImage) -> anyhow::Result<Vec<SoftTarget>> {
        match self.predict(image)? {
            Prediction::Boxes(boxes) => Ok(boxes),
            _ => bail!("{}: {} is not a detector", self.path.display(), self.description.name),
        }
    }
}

/// A network's outputs for one image.
struct Outputs {
    placement: Placement,
    /// Those of the family, in its order.
    names: Vec<String>,
    /// Shape and values, by name.
    tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl Outputs {
    fn tensor(&self, name: &str) -> anyhow::Result<OutputTensor<'_>> {
        let (shape, values) = self.tensors.get(name).with_context(|| format!("no output {name:?}"))?;
        Ok((shape.clone(), values))
    }

    fn all(&self) -> anyhow::Result<Vec<OutputTensor<'_>>> {
        self.names.iter().map(|name| self.tensor(name)).collect()
    }
}

/// What a teacher is judged by, in the student's classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Judged {
    /// A detector's detections, best first, in source pixels.
    Boxes(Vec<Detection>),
    /// A segmenter's logits of each cell.
    Pixels(SoftMask),
    /// A classifier's logits of the whole image.
    Image(Vec<f32>),
}

/// A teacher's prediction for an image, in the student's classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Prediction {
    /// A detector's objects, best first, in source pixels.
    Boxes(Vec<SoftTarget>),
    /// A classifier's logits of the whole image.
    Image(Vec<f32>),
    /// A segmenter's logits of each cell.
    Pixels(SoftMask),
}
