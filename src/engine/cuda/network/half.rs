//! Convolutions in half precision: their weights, and their launches.

use half::f16;

use super::{f32_bytes, int, is_point, Bases, Network, Variant};
use crate::cuda::arguments as arg;
use crate::cuda::kernels::{stem, Element, THREADS};
use crate::cuda::launch::Launch;
use crate::cuda::pack;
use crate::cuda::plain::Plain;
use crate::plan::{Operand, PlanStep};
use crate::{Conv, ConvWeights};

impl Network {
    /// Weights in the kernel's order, and biases.
    pub(super) fn half_weights(
        &self,
        step: &PlanStep,
        conv: Conv,
        values: &ConvWeights,
        variant: Variant,
    ) -> (Vec<u8>, Vec<u8>) {
        let out = self.view(step.output).shape.channels;
        let shape = [out, self.view(step.inputs[0]).shape.channels, conv.kernel, conv.kernel];
        let (weights, length) = match variant {
            Variant::Dense(tile) => {
                let halves: Vec<f16> = values.weight.iter().map(|&v| f16::from_f32(v)).collect();
                let packed = pack::dense(&halves, shape, Element::F16, tile);
                (f16_bytes(&packed), pack::tiles(out, tile) * tile.warp_channels())
            }
            Variant::Depthwise(_) => {
                let halves: Vec<f16> = values.weight.iter().map(|&v| f16::from_f32(v)).collect();
                (f16_bytes(&pack::depthwise(&halves, out, conv.kernel, Element::F16)), out.next_multiple_of(8))
            }
            Variant::Stem(channels) => {
                let padded = out.next_multiple_of(channels);
                (f32_bytes(&pack::stem(&values.weight, shape, padded)), padded)
            }
            Variant::Only => unreachable!("convolutions have variants"),
        };
        (weights, f32_bytes(&pack::padded(&values.bias, length)))
    }

    pub(super) fn half_convolution(
        &self,
        s: usize,
        conv: Conv,
        residual: Option<&Operand>,
        variant: Variant,
        (weights, bias): (u64, u64),
        bases: Bases,
    ) -> Launch {
        let step = &self.layout.plan.steps[s];
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let window = self.window(step, conv.window(), conv.activation);
        let (input, output) = (self.address(step.inputs[0], bases), self.address(step.output, bases));
        let saturated = self.saturated(bases);
        let residual = residual.map_or(arg::Residual::default(), |o| self.residual(o, bases));
        let (kernel, threads, argument) = match variant {
            Variant::Dense(tile) => {
                let channels_in = from.padded();
                let argument = arg::Convolution {
                    window,
                    input,
                    weights,
                    constants: bias,
                    residual,
                    output,
                    saturated,
                    quantized: arg::Requantization::default(),
                    channels_in: int(channels_in),
                    channels_out: int(to.padded()),
                    chunks: int(channels_in.div_ceil(Element::F16.chunk())),
                    unused: 0,
                };
                (tile.kernel(Element::F16, is_point(conv)), tile.threads(), argument.bytes())
            }
            Variant::Depthwise(run) => {
                let argument = arg::Depthwise {
                    window,
                    input,
                    weights,
                    bias,
                    residual,
                    output,
                    saturated,
                    channels: int(to.padded()),
                    unused: 0,
                };
                (run.kernel(Element::F16, conv.kernel, conv.stride), THREADS, argument.bytes())
            }
            Variant::Stem(channels) => {
                let argument = arg::Stem {
                    window,
                    input,
                    weights,
                    bias,
                    output,
                    saturated,
                    channels: int(to.shape.channels.next_multiple_of(channels)),
                    written: int(to.padded()),
                };
                (stem(Element::F16, conv.kernel, channels), THREADS, argument.bytes())
            }
            Variant::Only => unreachable!("convolutions have variants"),
        };
        Launch { kernel, grid: self.grid(s, variant), threads, argument }
    }
}

fn f16_bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
