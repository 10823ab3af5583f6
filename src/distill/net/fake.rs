//! Fake quantization: the network computes in floating point, but with weights and tensors rounded
//! as in an integer engine, so that training accounts for the quantization error (Jacob et al.
//! 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", section 3).
//!
//! Weights and tensors are rounded to the grids of [`Int8Engine`], ties to even. In the backward
//! pass, rounding is the identity (the straight-through estimator: Bengio et al. 2013, "Estimating
//! or Propagating Gradients Through Stochastic Neurons", section 3), except that clipped values
//! have no gradient.

use std::collections::BTreeMap;

use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::quantization::{QuantizedConv, TensorScale};
use peregrine_engine::{ConvWeights, EngineError, Graph, LayerId, Quantization, Weights};
use rayon::prelude::*;

use super::gradients::PARALLEL_CHUNK;
use super::{ConvParams, NetParams};

/// The grids of a network's weights and tensors.
#[derive(Debug, Clone)]
pub struct FakeQuantization {
    /// For each layer, the scale of its tensor; `None` if it is not held in bytes.
    pub tensors: Vec<Option<TensorScale>>,
    /// For each quantized convolution, the scales of its output channels.
    pub weights: BTreeMap<String, Vec<f32>>,
    /// The largest weight in magnitude.
    pub largest: i8,
}

impl FakeQuantization {
    /// The grids of `quantization`. A tensor that both integer and f32 layers read is rounded for
    /// both.
    ///
    /// # Errors
    /// When it does not fit `graph`.
    pub fn new(graph: &Graph, quantization: &Quantization) -> Result<Self, EngineError> {
        let largest = quantization.convs.values().flat_map(|c| &c.weight).map(|w| w.unsigned_abs()).max();
        Ok(Self {
            tensors: Int8Engine::byte_tensors(graph, quantization)?,
            weights: quantization.convs.iter().map(|(name, conv)| (name.clone(), conv.scale.clone())).collect(),
            largest: largest.map_or(i8::MAX, |w| w as i8),
        })
    }

    /// The weights of a convolution on their grid; unchanged if it is not quantized.
    pub fn rounded(&self, name: &str, weight: &[f32]) -> Vec<f32> {
        let Some(scales) = self.weights.get(name) else { return weight.to_vec() };
        let channels = weight.chunks_exact(weight.len() / scales.len()).zip(scales);
        channels.flat_map(|(channel, &s)| channel.iter().map(move |&w| f32::from(self.byte(w, s)) * s)).collect()
    }

    /// The quantization of `weights` for an integer engine.
    pub fn quantization(&self, weights: &Weights, tensors: &BTreeMap<String, TensorScale>) -> Quantization {
        let convs = self.weights.iter().map(|(name, scale)| {
            let ConvWeights { weight, bias } = weights.of(name);
            let channels = weight.chunks_exact(weight.len() / scale.len()).zip(scale);
            let bytes = channels.flat_map(|(channel, &s)| channel.iter().map(move |&w| self.byte(w, s))).collect();
            (name.clone(), QuantizedConv { weight: bytes, scale: scale.clone(), bias: bias.clone() })
        });
        Quantization { tensors: tensors.clone(), convs: convs.collect() }
    }

    fn byte(&self, weight: f32, scale: f32) -> i8 {
        let most = f32::from(self.largest);
        (weight / scale).round_ties_even().clamp(-most, most) as i8
    }
}

/// The rounding of a network's passes, and what was there before.
pub(super) struct FakePass {
    quantization: FakeQuantization,
    /// For each convolution, its weights on their grid in the last forward pass.
    weights: Vec<Vec<f32>>,
    /// For each layer, its tensor before it was rounded; empty if it is not rounded.
    unrounded: Vec<Vec<f32>>,
}

impl FakePass {
    /// For layers whose tensors are as long as `values`.
    pub fn new(quantization: FakeQuantization, values: &[Vec<f32>]) -> Self {
        let kept = |(scale, values): (&Option<_>, &Vec<f32>)| vec![0.0; if scale.is_some() { values.len() } else { 0 }];
        let unrounded = quantization.tensors.iter().zip(values).map(kept).collect();
        Self { quantization, weights: Vec::new(), unrounded }
    }

    /// Rounds the weights for a forward pass.
    pub fn round_weights(&mut self, params: &NetParams) {
        let rounded = |conv: &ConvParams| self.quantization.rounded(&conv.name, &conv.weight.value);
        self.weights = params.convs.par_iter().map(rounded).collect();
    }

    /// A convolution's weights in the last forward pass, by its index in [`NetParams::convs`].
    pub fn weight(&self, index: usize) -> &[f32] {
        &self.weights[index]
    }

    /// Rounds a layer's tensor to its grid, if it has one.
    pub fn round(&mut self, id: LayerId, values: &mut [f32]) {
        let Some(scale) = self.quantization.tensors[id] else { return };
        let chunks = values.par_chunks_mut(PARALLEL_CHUNK).zip(self.unrounded[id].par_chunks_mut(PARALLEL_CHUNK));
        chunks.for_each(|(values, unrounded)| {
            unrounded.copy_from_slice(values);
            values.iter_mut().for_each(|v| *v = scale.dequantize(scale.quantize(*v)));
        });
    }

    /// A layer's tensor before rounding; `None` if it is not rounded.
    pub fn unrounded(&self, id: LayerId) -> Option<&[f32]> {
        self.quantization.tensors[id].map(|_| &self.unrounded[id][..])
    }

    /// Zeroes the gradient of the values that the range of the layer's tensor clipped.
    pub fn clip_gradient(&self, id: LayerId, gradient: &mut [f32]) {
        let Some(scale) = self.quantization.tensors[id] else { return };
        let half = 0.5 * scale.scale;
        let (low, high) = (scale.dequantize(0) - half, scale.dequantize(u8::MAX) + half);
        let chunks = gradient.par_chunks_mut(PARALLEL_CHUNK).zip(self.unrounded[id].par_chunks(PARALLEL_CHUNK));
        chunks.for_each(|(gradient, unrounded)| {
            for (d, &v) in gradient.iter_mut().zip(unrounded) {
                if v < low || v > high {
                    *d = 0.0;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{check, Mode, TrainNet};
    use peregrine_engine::{Activation, Conv, Engine, Padding, Shape};
    use peregrine_student::Architecture;

    /// The network of `quantization` in training.
    fn net(graph: &Graph, weights: &Weights, quantization: &Quantization) -> TrainNet {
        let mut params = NetParams::random(graph, 1);
        params.adopt(weights);
        TrainNet::new(graph.clone(), params, 1).with_fake(FakeQuantization::new(graph, quantization).unwrap())
    }

    /// The default student on scales that are powers of two, with small weights: f32 then computes
    /// without rounding.
    fn exact() -> (Graph, Weights, Quantization) {
        let graph = Architecture::default_student().graph(64, 64);
        let mut weights = Weights::default();
        let mut scales = BTreeMap::new();
        for (i, (layer, _, shape)) in graph.convs().enumerate() {
            let fan_in = shape[1..].iter().product::<usize>() as f32;
            let scale = (-(4.0 * fan_in.sqrt()).log2().ceil()).exp2();
            let weight = check::values(shape.iter().product(), i as u64).iter().map(|w| 15.0 * w * scale).collect();
            let bias = check::values(shape[0], 9).iter().map(|b| (b * 64.0).round() / 64.0).collect();
            weights.0.insert(layer.name.clone(), ConvWeights { weight, bias });
            scales.insert(layer.name.clone(), vec![scale; shape[0]]);
        }
        let tensor = TensorScale { scale: 1.0 / 32.0, zero_point: 128 };
        let tensors = graph.layers.iter().map(|layer| (layer.name.clone(), tensor)).collect();
        let grid = FakeQuantization { tensors: vec![], weights: scales, largest: 15 };
        let quantization = grid.quantization(&weights, &tensors);
        (graph, weights, quantization)
    }

    #[test]
    fn in_exact_arithmetic_it_equals_the_integer_engine_bit_for_bit() {
        let (graph, weights, quantization) = exact();
        let input: Vec<f32> = check::values(graph.input_shape().len(), 5).iter().map(|v| v * 3.0).collect();
        let mut net = net(&graph, &weights, &quantization);
        net.input().copy_from_slice(&input);
        net.forward(Mode::Train).unwrap();
        let mut engine = Int8Engine::new(&graph, &weights, &quantization, 1).unwrap();
        engine.input().copy_from_slice(&input);
        engine.run().unwrap();
        for (i, &output) in graph.outputs.iter().enumerate() {
            assert!(net.value(output).iter().any(|v| v.abs() > 0.1), "output {i} says nothing");
            assert_eq!(net.value(output), engine.output(i), "output {i}");
        }
    }

    #[test]
    fn rounding_is_the_identity_and_clipped_values_have_no_gradient() {
        let identity =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let mut graph = Graph::new(Shape::new(1, 1, 4));
        let x = graph.conv("x", 0, 1, identity);
        let out = graph.conv("out", x, 1, identity);
        graph.outputs.push(out);
        let one = |weight: f32| ConvWeights { weight: vec![weight], bias: vec![0.0] };
        let weights = Weights([("x".to_owned(), one(1.3)), ("out".to_owned(), one(0.7))].into());
        let tensors = ["input", "x", "out"].map(|n| (n.to_owned(), TensorScale { scale: 0.25, zero_point: 100 }));
        let scales = ["x", "out"].map(|n| (n.to_owned(), vec![0.5]));
        let grid = FakeQuantization { tensors: vec![], weights: scales.into(), largest: 127 };
        let quantization = grid.quantization(&weights, &tensors.into());
        let mut net = net(&graph, &weights, &quantization);
        // The range of x = 1.5 · input is −25 to 38.75, which clips the last value.
        net.input().copy_from_slice(&[1.0, -2.1, 0.3, 30.0]);
        net.forward(Mode::Train).unwrap();
        assert_eq!(net.value(x), [1.5, -3.0, 0.5, 38.75]);
        net.params.zero_gradients();
        net.backward([(out, &[1.0f32, 10.0, 100.0, 1000.0][..])]).unwrap();
        // d out / d x = 0.5, as the weight 0.7 lies at 0.5; the inputs lie at 1, −2 and 0.25.
        assert_eq!(net.params.convs[0].weight.gradient, [0.5 * (1.0 - 20.0 + 25.0)]);
        assert_eq!(net.params.convs[1].weight.gradient, [1.5 - 30.0 + 50.0 + 38750.0]);
    }
}
