//! Comparison of an exported model with the engine that the node runs, on the same input.

use std::path::Path;

use anyhow::{ensure, Context};
use ort::session::Session;
use ort::value::Tensor;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Graph, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::teacher::Runtime;

/// Largest difference attributed to rounding, relative to the largest value of an output (or to 1).
pub const TOLERANCE: f32 = 1e-3;

/// One output's difference between ONNX Runtime and the CPU engine.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub output: String,
    pub largest: f32,
    /// Largest magnitude of the output's values.
    pub magnitude: f32,
}

impl Difference {
    /// Whether it is larger than rounding errors.
    pub fn is_fault(&self) -> bool {
        self.largest.is_nan() || self.largest > TOLERANCE * self.magnitude.max(1.0)
    }
}

/// Runs the model at `path` in ONNX Runtime and `graph` on the CPU engine, on one random image.
///
/// # Errors
/// When the model cannot be loaded or run, or lacks one of `outputs`.
pub fn compare(
    runtime: &Runtime,
    path: &Path,
    graph: &Graph,
    weights: &Weights,
    input: &str,
    outputs: &[String],
) -> anyhow::Result<Vec<Difference>> {
    let at = || path.display().to_string();
    let mut session: Session = runtime.session(path, 1)?;
    let mut engine = CpuEngine::new(graph, weights, 1)?;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    // The range of normalised pixels.
    engine.input().iter_mut().for_each(|v| *v = rng.random_range(-1.0..1.0));
    let shape = graph.input_shape();
    let image = Tensor::from_array(([1, shape.channels, shape.height, shape.width], engine.input().to_vec()))?;
    engine.run()?;
    let found = session.run(vec![(input, image)]).with_context(at)?;
    let mut differences = Vec::new();
    for (i, name) in outputs.iter().enumerate() {
        let (_, theirs) = found.get(name).with_context(at)?.try_extract_tensor::<f32>().with_context(at)?;
        let ours = engine.output(i);
        ensure!(theirs.len() == ours.len(), "{}: output {name} has {} values, not {}", at(), theirs.len(), ours.len());
        let pairs = ours.iter().zip(theirs);
        // Unlike f32::max, propagates NaN.
        let larger = |a: f32, b: f32| if a >= b { a } else { b };
        differences.push(Difference {
            output: name.clone(),
            largest: pairs.map(|(a, b)| (a - b).abs()).fold(0.0, larger),
            magnitude: ours.iter().fold(0.0, |m, v| larger(m, v.abs())),
        });
    }
    Ok(differences)
}
