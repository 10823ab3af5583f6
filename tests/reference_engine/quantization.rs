//! Random 8-bit networks, and what candle says of a network.

use peregrine_engine::quantization::{scale_groups, QuantizedConv, TensorScale};
use peregrine_engine::{Graph, Quantization, Weights};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{outputs, Reference};

/// The weights that half precision keeps.
pub fn rounded(weights: &Weights) -> Weights {
    let mut weights = weights.clone();
    for conv in weights.0.values_mut() {
        conv.weight.iter_mut().for_each(|w| *w = half::f16::from_f32(*w).to_f32());
    }
    weights
}

pub fn reference_outputs(graph: &Graph, weights: &Weights, input: &[f32]) -> Vec<Vec<f32>> {
    outputs(graph, &mut Reference::new(graph, weights).unwrap(), input)
}

/// A quantization under which results spread over the whole of a byte, and saturate now and then.
/// Of the convolutions, about one in three has weights of which the pairs fit 16 bits, and each
/// stays f32 with a chance of `float`.
pub fn random_quantization(graph: &Graph, seed: u64, float: f64) -> Quantization {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut quantization = Quantization::default();
    for layer in &graph.layers {
        let scale = TensorScale { scale: rng.random_range(0.004..0.05), zero_point: rng.random() };
        quantization.tensors.insert(layer.name.clone(), scale);
    }
    for group in scale_groups(graph) {
        let scale = quantization.tensors[&graph.layers[group[0]].name];
        for &id in &group {
            quantization.tensors.insert(graph.layers[id].name.clone(), scale);
        }
    }
    for (layer, _, w) in graph.convs() {
        if rng.random_bool(float) {
            continue;
        }
        let largest: i8 = if rng.random_bool(0.3) { 63 } else { 127 };
        let input = quantization.tensors[&graph.layers[layer.inputs[0]].name].scale;
        let output = quantization.tensors[&layer.name].scale;
        let terms = w[1] * w[2] * w[3];
        // Sums have a standard deviation of about √terms · 74 · 0.58 · largest.
        let typical = 40.0 * output / (input * (terms as f32).sqrt() * 74.0 * 0.58 * f32::from(largest));
        let conv = QuantizedConv {
            weight: (0..w.iter().product()).map(|_| rng.random_range(-largest..=largest)).collect(),
            scale: (0..w[0]).map(|_| typical * rng.random_range(0.5..2.0)).collect(),
            bias: (0..w[0]).map(|_| output * rng.random_range(-60.0..60.0)).collect(),
        };
        quantization.convs.insert(layer.name.clone(), conv);
    }
    quantization
}
