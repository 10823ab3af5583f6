//! Quantized convolutions: their weights, their constants, and their launches. The arithmetic is
//! [`Requantization`]'s, bit by bit.

use super::{int, is_point, Bases, Network, Variant};
use crate::cuda::arguments as arg;
use crate::cuda::kernels::{stem, Element, THREADS};
use crate::cuda::launch::Launch;
use crate::cuda::pack;
use crate::cuda::plain::Plain;
use crate::plan::{Operand, PlanStep, TensorId};
use crate::quantization::{relative_factor, QuantizedConv, Requantization, TensorScale};
use crate::{Activation, Conv};

impl Network {
    /// The scale of a tensor in bytes.
    pub(super) fn scale(&self, tensor: TensorId) -> TensorScale {
        self.layout.scales[tensor].expect("a quantized step reads bytes")
    }

    /// Whether a convolution is quantized: exactly those that read bytes are.
    pub(super) fn is_integer(&self, step: &PlanStep) -> bool {
        self.view(step.inputs[0]).element == Element::I8
    }

    /// Weights in the kernel's order, and constants.
    pub(super) fn integer_weights(
        &self,
        step: &PlanStep,
        conv: Conv,
        values: &QuantizedConv,
        variant: Variant,
    ) -> (Vec<u8>, Vec<u8>) {
        let to = self.view(step.output);
        let (out, scale) = (to.shape.channels, self.scale(step.inputs[0]));
        let shape = [out, self.view(step.inputs[0]).shape.channels, conv.kernel, conv.kernel];
        let (weights, length) = match variant {
            Variant::Dense(tile) => {
                let packed = pack::dense(&values.weight, shape, Element::I8, tile);
                (packed, pack::tiles(out, tile) * tile.warp_channels())
            }
            Variant::Depthwise(_) => {
                (pack::depthwise(&values.weight, out, conv.kernel, Element::I8), out.next_multiple_of(16))
            }
            Variant::Stem(channels) => {
                let padded = to.padded().next_multiple_of(channels);
                (pack::quads(&values.weight, shape, padded), padded)
            }
            Variant::Only => unreachable!("convolutions have variants"),
        };
        let requantization = Requantization::new(values, conv.activation, scale, self.layout.scales[step.output]);
        let per_channel = values.weight.len() / out;
        let constants = (0..length).flat_map(|c| {
            let constants = if c < out {
                arg::Channel {
                    correction: -i32::from(scale.zero_point)
                        * values.weight[c * per_channel..][..per_channel].iter().map(|&w| i32::from(w)).sum::<i32>(),
                    factor: requantization.factor[c],
                    offset: requantization.offset[c],
                    unused: 0,
                }
            } else {
                arg::Channel::default()
            };
            constants.bytes()
        });
        (weights.into_iter().map(|w| w as u8).collect(), constants.collect())
    }

    pub(super) fn integer_convolution(
        &self,
        s: usize,
        conv: Conv,
        residual: Option<&Operand>,
        variant: Variant,
        (weights, constants): (u64, u64),
        bases: Bases,
    ) -> Launch {
        let step = &self.layout.plan.steps[s];
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let window = self.window(step, conv.window(), Activation::Identity);
        let (input, output) = (self.address(step.inputs[0], bases), self.address(step.output, bases));
        let quantized = self.requantization(step, conv, residual);
        let residual = residual.map_or(arg::Residual::default(), |o| self.residual(o, bases));
        let (kernel, threads, argument) = match variant {
            Variant::Dense(tile) => {
                let argument = arg::Convolution {
                    window,
                    input,
                    weights,
                    constants,
                    residual,
                    output,
                    // Bytes saturate by design.
                    saturated: 0,
                    quantized,
                    channels_in: int(from.padded()),
                    channels_out: int(to.padded()),
                    chunks: int(from.padded().div_ceil(Element::I8.chunk())),
                    unused: 0,
                };
                (tile.kernel(Element::I8, is_point(conv)), tile.threads(), argument.bytes())
            }
            Variant::Depthwise(run) => {
                let argument = arg::IntegerDepthwise {
                    window,
                    input,
                    weights,
                    channels: constants,
                    residual,
                    output,
                    quantized,
                    written: int(to.padded()),
                    weight_pitch: int(from.padded()),
                };
                (run.kernel(Element::I8, conv.kernel, conv.stride), THREADS, argument.bytes())
            }
            Variant::Stem(channels) => {
                let argument = arg::IntegerStem {
                    window,
                    input,
                    weights,
                    constants,
                    output,
                    quantized,
                    channels: int(to.padded().next_multiple_of(channels)),
                    written: int(to.padded()),
                };
                (stem(Element::I8, conv.kernel, channels), THREADS, argument.bytes())
            }
            Variant::Only => unreachable!("convolutions have variants"),
        };
        Launch { kernel, grid: self.grid(s, variant), threads, argument }
    }

    fn requantization(&self, step: &PlanStep, conv: Conv, residual: Option<&Operand>) -> arg::Requantization {
        let output = self.layout.scales[step.output];
        // The bounds depend on no channel.
        let none = QuantizedConv { weight: vec![], scale: vec![], bias: vec![] };
        let input = self.scale(step.inputs[0]);
        let Requantization { bounds, late, .. } = Requantization::new(&none, conv.activation, input, output);
        let (low, high) = bounds.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let added = residual.map(|operand| self.scale(operand.tensor));
        arg::Requantization {
            low,
            high,
            residual_zero: added.map_or(0, |scale| i32::from(scale.zero_point)),
            residual_factor: added.map_or(0.0, |scale| relative_factor(scale, output)),
            to_bytes: i32::from(output.is_some()),
            fill: u32::from_ne_bytes([input.zero_point; 4]),
            activation: late.map_or(0, |late| arg::number(late.activation)),
            late_factor: late.map_or(0.0, |late| late.factor),
            late_zero: late.map_or(0.0, |late| late.zero),
            unused: 0,
        }
    }
}
