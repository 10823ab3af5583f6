//! Running a teacher through ONNX Runtime, whose library is opened when it is first needed.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use image::imageops::{self, FilterType};
use image::RgbImage;
use ort::environment::Environment;
use ort::session::Session;
use ort::value::Tensor;

use super::description::{Colours, Description, Layout};
use super::{detect, SoftBox};
use crate::student::package::sha256;

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
        let builder = ort::init_from(path).with_context(|| format!("{}: {remedy}", path.display()))?;
        Ok(Self(builder.with_telemetry(false).build()?))
    }

    /// Loads the network at `path`.
    ///
    /// # Errors
    /// When the file is missing or no network that this runtime knows.
    pub fn session(&self, path: &Path, threads: usize) -> anyhow::Result<Session> {
        let at = || format!("{}: not a network that ONNX Runtime can load", path.display());
        let builder = Session::builder(&self.0)?.with_intra_threads(threads);
        builder.map_err(|e| anyhow::anyhow!("{e}"))?.commit_from_file(path).with_context(at)
    }
}

/// A teacher, ready to look at images.
pub struct Teacher {
    pub description: Description,
    /// Of the ONNX file.
    pub sha256: String,
    path: PathBuf,
    session: Session,
    groups: Vec<Vec<usize>>,
}

impl Teacher {
    /// Loads the ONNX file at `path` for the classes of a student.
    ///
    /// # Errors
    /// When the file is missing or no network, or has other tensors than its description names.
    pub fn load(
        runtime: &Runtime,
        path: &Path,
        description: Description,
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
        let groups = description.groups(classes);
        Ok(Self { description, sha256: sha256(&bytes), path: path.to_owned(), session, groups })
    }

    /// The objects in `image`, best first, in its pixels.
    ///
    /// # Errors
    /// When the network fails or its outputs do not have the shapes of its family.
    pub fn look(&mut self, image: &RgbImage) -> anyhow::Result<Vec<SoftBox>> {
        let d = &self.description;
        let side = d.size as usize;
        let input = Tensor::from_array((input_shape(d), input_tensor(image, d)))?;
        let outputs = self.session.run(vec![(d.input.as_str(), input)])?;
        let mut tensors = Vec::new();
        for name in &d.outputs {
            let (shape, values) = outputs[name.as_str()].try_extract_tensor::<f32>()?;
            tensors.push((shape.iter().map(|&n| n as usize).collect::<Vec<_>>(), values));
        }
        let scale = [image.width() as f32 / side as f32, image.height() as f32 / side as f32];
        detect::candidates(d, &self.groups, &tensors, scale).with_context(|| self.path.display().to_string())
    }
}

fn input_shape(d: &Description) -> [usize; 4] {
    let side = d.size as usize;
    match d.layout {
        Layout::Nchw => [1, 3, side, side],
        Layout::Nhwc => [1, side, side, 3],
    }
}

fn input_tensor(image: &RgbImage, d: &Description) -> Vec<f32> {
    let resized = imageops::resize(image, d.size, d.size, FilterType::Triangle);
    let pixels = (d.size * d.size) as usize;
    let mut tensor = vec![0.0; 3 * pixels];
    for (i, pixel) in resized.pixels().enumerate() {
        for c in 0..3 {
            let source = if d.colours == Colours::Rgb { c } else { 2 - c };
            let value = (f32::from(pixel.0[source]) - d.mean[c]) / d.std[c];
            match d.layout {
                Layout::Nchw => tensor[c * pixels + i] = value,
                Layout::Nhwc => tensor[3 * i + c] = value,
            }
        }
    }
    tensor
}
