//! Sensitivity of each layer to quantization.

use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Quantization};
use serde::{Deserialize, Serialize};

use super::assemble::Calibrated;
use super::observe::Inputs;

/// Effect of quantizing one convolution alone on the network's outputs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sensitivity {
    pub layer: String,
    /// Mean squared error of the outputs divided by their variance, averaged over outputs.
    pub error: f64,
}

/// Measures every convolution over `inputs`, the most sensitive first. Calls `step` after each.
///
/// # Errors
/// When the student cannot be run.
pub fn measure(
    calibrated: &Calibrated,
    inputs: &Inputs,
    threads: usize,
    step: &dyn Fn(),
) -> anyhow::Result<Vec<Sensitivity>> {
    let (graph, student) = (&calibrated.graph, calibrated.f32_student);
    let mut f32_engine = CpuEngine::new(graph, &student.weights, threads)?;
    let expected: Vec<_> =
        inputs.0.iter().map(|i| outputs(&mut f32_engine, graph.outputs.len(), i)).collect::<Result<_, _>>()?;
    let whole = calibrated.quantization(&|_| true);
    let mut table = vec![];
    for layer in calibrated.convs() {
        let convs = [(layer.clone(), whole.convs[&layer].clone())].into();
        let alone = Quantization { tensors: whole.tensors.clone(), convs };
        let mut engine = Int8Engine::new(graph, &student.weights, &alone, threads)?;
        let mut error = 0.0;
        for (input, expected) in inputs.0.iter().zip(&expected) {
            error += relative_error(expected, &outputs(&mut engine, graph.outputs.len(), input)?);
        }
        table.push(Sensitivity { layer, error: error / inputs.0.len() as f64 });
        step();
    }
    table.sort_by(|a, b| b.error.total_cmp(&a.error));
    Ok(table)
}

fn outputs(engine: &mut dyn Engine, count: usize, input: &[f32]) -> anyhow::Result<Vec<Vec<f32>>> {
    engine.input().copy_from_slice(input);
    engine.run()?;
    Ok((0..count).map(|i| engine.output(i).to_vec()).collect())
}

/// Mean squared error divided by the variance, averaged over outputs.
fn relative_error(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f64 {
    let of = |(expected, found): (&Vec<f32>, &Vec<f32>)| {
        let n = expected.len() as f64;
        let mean = expected.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = expected.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>();
        let error: f64 = expected.iter().zip(found).map(|(&a, &b)| f64::from(a - b).powi(2)).sum();
        error / variance.max(f64::MIN_POSITIVE)
    };
    expected.iter().zip(found).map(of).sum::<f64>() / expected.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_relative_to_the_variance() {
        let expected = vec![vec![1.0, 3.0], vec![0.0, 4.0]];
        // Errors 1 of a variance of 1 + 1, and none: half, averaged with zero.
        assert_eq!(relative_error(&expected, &[vec![1.0, 4.0], vec![0.0, 4.0]]), 0.25);
    }
}
