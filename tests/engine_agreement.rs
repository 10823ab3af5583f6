//! The CPU engine agrees with the reference on whole networks.

use peregrine::engine::cpu::CpuEngine;
use peregrine::engine::reference::Reference;
use peregrine::engine::{ConvWeights, Engine, Graph, Weights};
use peregrine::student::architecture::Architecture;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Weights that keep activations of the order of one: uniform, with a variance of 2 / fan-in (He et al. 2015).
fn random_weights(graph: &Graph, rng: &mut ChaCha8Rng) -> Weights {
    let of = |w: [usize; 4], rng: &mut ChaCha8Rng| {
        let bound = (6.0 / (w[1] * w[2] * w[3]) as f32).sqrt();
        ConvWeights {
            weight: (0..w.iter().product()).map(|_| rng.random_range(-bound..bound)).collect(),
            bias: (0..w[0]).map(|_| rng.random_range(-0.5..0.5)).collect(),
        }
    };
    Weights(graph.convs().map(|(layer, _, w)| (layer.name.clone(), of(w, rng))).collect())
}

fn assert_agreement(graph: &Graph, engine: &mut dyn Engine, weights: &Weights, rng: &mut ChaCha8Rng) {
    let mut reference = Reference::new(graph, weights).unwrap();
    let input: Vec<f32> = (0..graph.input_shape().len()).map(|_| rng.random_range(-1.0..1.0)).collect();
    reference.input().copy_from_slice(&input);
    engine.input().copy_from_slice(&input);
    reference.run().unwrap();
    engine.run().unwrap();
    for (i, &id) in graph.outputs.iter().enumerate() {
        let (expected, found) = (reference.output(i), engine.output(i));
        let scale = expected.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = expected.iter().zip(found).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(error <= 1e-4 * scale, "{}: error {error} at a scale of {scale}", graph.layers[id].name);
    }
}

#[test]
fn default_student_at_two_input_sizes() {
    for (width, height) in [(320, 256), (96, 160)] {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let graph = Architecture::default_student().graph(width, height);
        let weights = random_weights(&graph, &mut rng);
        let mut engine = CpuEngine::new(&graph, &weights, 1).unwrap();
        assert_agreement(&graph, &mut engine, &weights, &mut rng);
    }
}
