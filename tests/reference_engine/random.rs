//! Random weights and inputs, and how far outputs are apart.

use peregrine_engine::{ConvWeights, Engine, Graph, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How many random networks a test takes: `usual`, or `PEREGRINE_CASES`, fewer, where each takes
/// seconds: under Miri, say.
pub fn cases(usual: u32) -> u32 {
    std::env::var("PEREGRINE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// Weights that keep activations of the order of one: uniform, with a variance of 2 / fan-in (He et
/// al. 2015).
pub fn random_weights(graph: &Graph, seed: u64) -> Weights {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut of = |w: [usize; 4]| {
        let bound = (6.0 / (w[1] * w[2] * w[3]) as f32).sqrt();
        ConvWeights {
            weight: (0..w.iter().product()).map(|_| rng.random_range(-bound..bound)).collect(),
            bias: (0..w[0]).map(|_| rng.random_range(-0.5..0.5)).collect(),
        }
    };
    Weights(graph.convs().map(|(layer, _, w)| (layer.name.clone(), of(w))).collect())
}

pub fn random_input(graph: &Graph, seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..graph.input_shape().len()).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// All outputs of one run.
pub fn outputs(graph: &Graph, engine: &mut dyn Engine, input: &[f32]) -> Vec<Vec<f32>> {
    engine.input().copy_from_slice(input);
    engine.run().unwrap();
    (0..graph.outputs.len()).map(|i| engine.output(i).to_vec()).collect()
}

/// The largest difference of any output, relative to the largest value that it should hold;
/// infinite for a NaN.
pub fn relative_error(expected: &[Vec<f32>], found: &[Vec<f32>]) -> f32 {
    let of = |(expected, found): (&Vec<f32>, &Vec<f32>)| {
        assert_eq!(expected.len(), found.len());
        let scale = expected.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
        let differences = expected.iter().zip(found).map(|(a, b)| (a - b).abs());
        differences.fold(0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }) / scale
    };
    expected.iter().zip(found).map(of).fold(0f32, f32::max)
}
