//! Comparison of what was imported with the file itself, run by ONNX Runtime on the same image.

use anyhow::{ensure, Context};
use ort::value::Tensor;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::Engine;
use prost::Message;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::description::NetworkDescription;
use super::head::Part;
use super::model::OnnxFile;
use super::Imported;
use crate::export::check::Difference;
use crate::export::messages::{GraphBody, Model, Value};
use crate::teacher::description::Colours;
use crate::teacher::Runtime;

/// The file with `tensors` among its outputs. Messages of protocol buffers that follow each other
/// are one, of all their fields.
fn with_outputs(file: &OnnxFile, tensors: &[&Part]) -> Vec<u8> {
    let mut names: Vec<&str> = tensors.iter().map(|part| part.tensor.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names.retain(|name| !file.outputs.iter().any(|output| output == name));
    let output = names.into_iter().map(|name| Value { name: name.to_owned(), ..Value::default() }).collect();
    let more = Model { graph: Some(GraphBody { output, ..GraphBody::default() }), ..Model::default() };
    [file.bytes.clone(), more.encode_to_vec()].concat()
}

/// Runs the file and the imported network on one random image of the file's size.
///
/// # Errors
/// When one of them cannot be run.
pub fn compare(
    runtime: &Runtime,
    file: &OnnxFile,
    d: &NetworkDescription,
    imported: &Imported,
) -> anyhow::Result<Vec<Difference>> {
    let parts: Vec<&Part> = imported.levels.iter().flat_map(|level| level.parts()).collect();
    let mut session = runtime.session_of(&with_outputs(file, &parts), 1)?;
    let (width, height) = imported.file_size;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let pixels: Vec<f32> = (0..3 * width * height).map(|_| rng.random_range(0.0f32..256.0).floor()).collect();
    let planar = file.is_planar();
    let dims = if planar { [1, 3, height, width] } else { [1, height, width, 3] };
    let image = theirs(d, &pixels, planar);
    let found = session.run(vec![(file.input.as_str(), Tensor::from_array((dims, image))?)])?;
    let architecture = &imported.student.manifest.architecture;
    let graph = architecture.try_graph(width, height).map_err(anyhow::Error::msg)?;
    let mut engine = CpuEngine::new(&graph, &imported.student.weights, 1)?;
    let input = &architecture.input;
    for (i, value) in engine.input().iter_mut().enumerate() {
        let c = i / (width * height);
        *value = (pixels[i] - input.mean[c]) / input.std[c];
    }
    engine.run()?;
    let mut differences = Vec::new();
    for (output, part) in parts.iter().enumerate() {
        let (shape, values) = found.get(&part.tensor).context("an output is missing")?.try_extract_tensor::<f32>()?;
        let ours = engine.output(output);
        let cells = graph.layers[graph.outputs[output]].shape.pixels();
        let channels = shape.get(1).copied().unwrap_or(0) as usize;
        ensure!(
            values.len() == channels * cells,
            "tensor {:?} has {} values, for {cells} cells",
            part.tensor,
            values.len()
        );
        let all: Vec<usize> = (0..channels).collect();
        let rows = part.rows.as_ref().unwrap_or(&all);
        ensure!(rows.len() * cells == ours.len(), "tensor {:?} has {channels} channels", part.tensor);
        let theirs = rows.iter().flat_map(|&row| &values[row * cells..][..cells]).map(|v| v * part.factor);
        let mut difference = Difference { output: part.tensor.clone(), largest: 0.0, magnitude: 0.0 };
        for (a, b) in ours.iter().zip(theirs) {
            let apart = (a - b).abs();
            // Unlike f32::max, keeps what is not a number.
            if apart > difference.largest || apart.is_nan() {
                difference.largest = apart;
            }
            difference.magnitude = difference.magnitude.max(b.abs());
        }
        differences.push(difference);
    }
    Ok(differences)
}

/// The image as the file takes it.
fn theirs(d: &NetworkDescription, pixels: &[f32], planar: bool) -> Vec<f32> {
    let count = pixels.len() / 3;
    let value = |c: usize, i: usize| {
        let from = if d.colours == Colours::Bgr { 2 - c } else { c };
        (pixels[from * count + i] - d.mean[c]) / d.std[c]
    };
    if planar {
        (0..3 * count).map(|k| value(k / count, k % count)).collect()
    } else {
        (0..3 * count).map(|k| value(k % 3, k / 3)).collect()
    }
}
