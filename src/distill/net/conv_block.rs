//! A convolution with its batch-norm and activation, forward and backward over a whole batch.

use peregrine_engine::op::LEAK;
use peregrine_engine::{Activation, Graph, LayerId, Op};
use rayon::prelude::*;

use super::gradients::add_or_copy;
use super::norm::{self, BatchStatistics, Mode};
use super::vectors::{sum, vectorised};
use super::{activation, convolve, ConvParams, Geometry, Norm};
use crate::ranks::Ranks;

/// What one convolution keeps between the passes; its parameters are in
/// [`NetParams`](super::NetParams).
pub(super) struct ConvBlock {
    /// Index of its parameters in [`NetParams::convs`](super::NetParams::convs).
    pub index: usize,
    geometry: Geometry,
    /// The convolution's output alone, where the backward pass needs it: ahead of batch-norm, or of
    /// an activation whose derivative does not follow from its result. Empty otherwise.
    alone: Vec<f32>,
    /// Those that normalised in the last forward pass.
    statistics: BatchStatistics,
    /// Those whose part of the batch counts in these statistics.
    ranks: Ranks,
}

impl ConvBlock {
    pub fn new(graph: &Graph, id: LayerId, index: usize, params: &ConvParams, batch: usize) -> Self {
        let layer = &graph.layers[id];
        let Op::Conv(conv) = layer.op else { unreachable!("only convolutions have parameters") };
        let geometry = Geometry::new(conv, graph.layers[layer.inputs[0]].shape, layer.shape);
        let keep = params.norm.is_some() || !activation::is_known_by_result(conv.activation);
        let alone = vec![0.0; if keep { batch * layer.shape.len() } else { 0 }];
        Self { index, geometry, alone, statistics: BatchStatistics::default(), ranks: Ranks::alone() }
    }

    /// Normalises over the part of the batch that the other `ranks` have too.
    pub fn normalise_with(&mut self, ranks: &Ranks) {
        self.ranks = ranks.clone();
    }

    /// Frees the buffer of a block that will not be run.
    #[cfg(feature = "cuda")]
    pub fn free(&mut self) {
        self.alone = Vec::new();
    }

    /// Writes `output` and, in training, moves the running statistics. `rounded`: the weights to
    /// use in place of those of `params`, for quantization-aware training.
    pub fn forward(
        &mut self,
        params: &mut ConvParams,
        rounded: Option<&[f32]>,
        input: &[f32],
        output: &mut [f32],
        mode: Mode,
    ) {
        let g = &self.geometry;
        let weight = rounded.unwrap_or(&params.weight.value);
        let (channels, pixels) = (g.output.channels, g.output.pixels());
        let beta = &params.bias.value;
        let Some(norm) = &mut params.norm else {
            convolve::forward(g, input, weight, output);
            if !self.alone.is_empty() {
                add_or_copy(&mut self.alone, output, false);
            }
            let planes = output.par_chunks_mut(pixels).enumerate();
            planes.for_each(|(i, plane)| scale_and_activate(plane, (1.0, beta[i % channels]), g.conv.activation));
            return;
        };
        convolve::forward(g, input, weight, &mut self.alone);
        self.statistics = match mode {
            Mode::Train => {
                let batch = BatchStatistics::of(&self.alone, channels, pixels, &self.ranks);
                norm.running.follow(&batch);
                batch
            }
            Mode::Evaluate => norm.running.clone(),
        };
        let planes = output.par_chunks_mut(pixels).zip(self.alone.par_chunks(pixels)).enumerate();
        planes.for_each(|(i, (plane, z))| {
            plane.copy_from_slice(z);
            let affine = norm::affine(&self.statistics, &norm.gamma.value, beta, i % channels);
            scale_and_activate(plane, affine, g.conv.activation);
        });
    }

    /// Turns the `gradient` of the output (whose values before any rounding are `output`) into that
    /// of the convolution alone, and adds to the gradients of the parameters.
    pub fn backward(&self, params: &mut ConvParams, input: &[f32], output: &[f32], gradient: &mut [f32]) {
        let g = &self.geometry;
        let pixels = g.output.pixels();
        self.backward_activation(params, output, gradient);
        if let Some(Norm { gamma, .. }) = &mut params.norm {
            let d_affine = [&mut gamma.gradient[..], &mut params.bias.gradient[..]];
            norm::backward(&self.alone, &self.statistics, &gamma.value, gradient, d_affine, pixels, &self.ranks);
        } else {
            let gradient = &*gradient;
            params.bias.gradient.par_iter_mut().enumerate().for_each(|(c, bias)| {
                let planes = gradient.chunks(pixels).skip(c).step_by(g.output.channels);
                *bias += planes.map(|plane| vectorised!(sum(plane))).sum::<f32>();
            });
        }
        if !params.frozen {
            convolve::backward_weight(g, input, gradient, &mut params.weight.gradient);
        }
    }

    /// Multiplies the `gradient` of the output by the activation's derivative.
    fn backward_activation(&self, params: &ConvParams, output: &[f32], gradient: &mut [f32]) {
        let (activation, pixels) = (self.geometry.conv.activation, self.geometry.output.pixels());
        if activation == Activation::Identity {
            return;
        }
        if activation::is_known_by_result(activation) {
            let planes = gradient.par_chunks_mut(pixels).zip(output.par_chunks(pixels));
            planes.for_each(|(gradient, value)| vectorised!(by_result(activation, value, gradient)));
            return;
        }
        let planes = gradient.par_chunks_mut(pixels).zip(self.alone.par_chunks(pixels)).enumerate();
        planes.for_each(|(i, (gradient, z))| {
            let c = i % self.geometry.output.channels;
            let (scale, shift) = match &params.norm {
                Some(norm) => norm::affine(&self.statistics, &norm.gamma.value, &params.bias.value, c),
                None => (1.0, params.bias.value[c]),
            };
            for (d, &z) in gradient.iter_mut().zip(z) {
                *d *= activation::slope(activation, z * scale + shift);
            }
        });
    }

    /// The input's gradient, from what [`backward`](Self::backward) left; added to `into` if
    /// `keep`, else written over it.
    pub fn backward_input(&self, weight: &[f32], gradient: &[f32], into: &mut [f32], keep: bool) {
        convolve::backward_input(&self.geometry, weight, gradient, into, keep);
    }
}

/// Multiplies a plane's `gradient` by the derivatives where the activated values are `value`.
#[inline(always)]
fn by_result(activation: Activation, value: &[f32], gradient: &mut [f32]) {
    let pairs = gradient.iter_mut().zip(value);
    match activation {
        // Without a product, which would turn an infinite gradient of a dead unit into NaN.
        Activation::Relu => pairs.for_each(|(d, &v)| *d = if v > 0.0 { *d } else { 0.0 }),
        Activation::Relu6 => pairs.for_each(|(d, &v)| *d = if v > 0.0 && v < 6.0 { *d } else { 0.0 }),
        Activation::LeakyRelu => pairs.for_each(|(d, &v)| *d *= if v > 0.0 { 1.0 } else { LEAK }),
        other => pairs.for_each(|(d, &v)| *d *= activation::slope_at_result(other, v)),
    }
}

fn scale_and_activate(plane: &mut [f32], (scale, shift): (f32, f32), activation: Activation) {
    vectorised!(match activation {
        Activation::Identity => plane.iter_mut().for_each(|v| *v = *v * scale + shift),
        Activation::Relu6 => plane.iter_mut().for_each(|v| *v = (*v * scale + shift).clamp(0.0, 6.0)),
        Activation::Relu => plane.iter_mut().for_each(|v| *v = (*v * scale + shift).max(0.0)),
        Activation::LeakyRelu => plane.iter_mut().for_each(|v| {
            let z = *v * scale + shift;
            *v = if z > 0.0 { z } else { LEAK * z };
        }),
        other => plane.iter_mut().for_each(|v| *v = other.apply(*v * scale + shift)),
    });
}
