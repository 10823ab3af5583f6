//! Running a teacher with ONNX Runtime, whose library is opened on first use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{bail, ensure, Context};
use image::RgbImage;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;
use peregrine_core::files::sha256;

use super::candidates::OutputTensor;
use super::description::{Family, Layout, TeacherDescription};
use super::placement::Placement;
use super::{detect, logits, Feature, SoftMask, SoftTarget};

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

/// Compares the shape of the network's input, if the file specifies it, with the description.
fn check_input(session: &Session, d: &TeacherDescription) -> anyhow::Result<()> {
    let input = session.inputs().iter().find(|i| i.name() == d.input);
    let Some(shape) = input.and_then(|i| i.dtype().tensor_shape()) else { return Ok(()) };
    let side = i64::from(d.size);
    let expected = match d.layout {
        Layout::Nchw => [1, 3, side, side],
        Layout::Nhwc => [1, side, side, 3],
    };
    // A dynamic dimension is negative.
    let fits = shape.len() == 4 && shape.iter().zip(expected).all(|(&has, wants)| has < 0 || has == wants);
    let found: Vec<i64> = shape.iter().copied().collect();
    ensure!(
        fits,
        "its input {:?} is {found:?}, but size and layout of {} make it {expected:?}; correct the description",
        d.input,
        d.name
    );
    Ok(())
}

/// A teacher in ONNX, ready for images.
pub struct OnnxTeacher {
    pub description: TeacherDescription,
    /// SHA-256 of the ONNX file.
    pub sha256: String,
    path: PathBuf,
    session: Session,
    groups: Vec<Vec<usize>>,
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
        threads: usize,
    ) -> anyhow::Result<Self> {
        let at = || path.display().to_string();
        let bytes = std::fs::read(path).with_context(at)?;
        let session = runtime.session(path, threads)?;
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
        check_input(&session, &description).with_context(at)?;
        let groups = description.groups(classes);
        ensure!(
            groups.iter().any(|group| !group.is_empty()),
            "{}: [classes] of {} names none of the student's, which are {}",
            path.display(),
            description.name,
            classes.join(", ")
        );
        Ok(Self { description, sha256: sha256(&bytes), path: path.to_owned(), session, groups })
    }

    /// For each of the student's classes, whether the teacher knows it.
    pub fn knows(&self) -> Vec<bool> {
        self.groups.iter().map(|group| !group.is_empty()).collect()
    }

    /// A hash of its network and its description, both of which determine its outputs.
    pub fn identity(&self) -> String {
        let description = serde_json::to_string(&self.description).expect("a description is plain data");
        sha256(format!("{} {description}", self.sha256).as_bytes())
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
        let (d, side) = (&self.description, self.description.size as usize);
        let placement = Placement::new(d.fit, image.dimensions(), d.size);
        let shape = match d.layout {
            Layout::Nchw => [1, 3, side, side],
            Layout::Nhwc => [1, side, side, 3],
        };
        let at = || self.path.display().to_string();
        let input = Tensor::from_array((shape, placement.tensor(image, d)))?;
        let outputs = self.session.run(vec![(d.input.as_str(), input)]).with_context(at)?;
        let tensor = |name: &String| -> anyhow::Result<OutputTensor> {
            let (shape, values) = outputs[name.as_str()].try_extract_tensor::<f32>().with_context(at)?;
            Ok((shape.iter().map(|&n| n as usize).collect(), values))
        };
        let fault = || format!("{} does not fit its description {}", self.path.display(), d.name);
        let feature = |(layer, name): (&String, &String)| {
            Ok((layer.clone(), Feature::of_output(name, d.layout, &tensor(name)?, &placement)?))
        };
        let features = d.features.iter().map(feature).collect::<anyhow::Result<_>>().with_context(fault)?;
        let tensors = d.outputs.iter().map(tensor).collect::<anyhow::Result<Vec<_>>>()?;
        let prediction = match d.family {
            Family::ClassLogits => logits::of_image(d, &self.groups, &tensors[0]).map(Prediction::Image),
            Family::PixelLogits => logits::of_pixels(d, &self.groups, &tensors[0], &placement).map(Prediction::Pixels),
            _ => detect::candidates(d, &self.groups, &tensors, &placement).map(Prediction::Boxes),
        }
        .with_context(fault)?;
        Ok((prediction, features))
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
