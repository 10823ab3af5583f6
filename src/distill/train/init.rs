//! What a training may start from: a student package, a safetensors file, or an ImageNet classifier as ONNX.

use std::fs;
use std::path::Path;

use anyhow::{Context, Error};
use peregrine_core::files::sha256;
use peregrine_engine::Weights;
use peregrine_student::package::deserialize;
use peregrine_student::Student;
use safetensors::SafeTensors;

use super::imagenet;

/// Reads the weights at `path`, and says in a line where they came from.
///
/// # Errors
/// Names the file, and what it is not.
pub fn weights(path: &Path) -> anyhow::Result<(Weights, String)> {
    let at = || path.display().to_string();
    if path.is_dir() {
        let student = Student::load(path)?;
        let origin = format!("{} (sha256 {})", student.manifest.name, student.manifest.weights.sha256);
        return Ok((student.weights, origin));
    }
    let bytes = fs::read(path).with_context(at)?;
    let weights = match path.extension().and_then(|e| e.to_str()) {
        Some("onnx") => imagenet::from_onnx(&bytes),
        _ => from_safetensors(&bytes),
    };
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    Ok((weights.with_context(at)?, format!("{file} (sha256 {})", sha256(&bytes))))
}

/// By this project's names, or a ResNet by torchvision's.
fn from_safetensors(bytes: &[u8]) -> anyhow::Result<Weights> {
    let file = SafeTensors::deserialize(bytes).context("not a safetensors file")?;
    if imagenet::is_torch_resnet(&file) {
        return imagenet::from_torch_resnet(&file);
    }
    deserialize(bytes).map_err(Error::msg)
}
