//! Quantized steps without weights that do not merely move bytes. The arithmetic is that of
//! [`Requantization`](crate::quantization::Requantization)'s documentation, bit by bit.

use super::{int, Bases, Network};
use crate::cuda::arguments as arg;
use crate::cuda::kernels::THREADS;
use crate::cuda::launch::Launch;
use crate::plan::PlanStep;
use crate::quantization::{activation_table, product_factor, relative_factor};
use crate::{Activation, Window};

impl Network {
    /// `kernel` over windows of bytes.
    pub(super) fn integer_pool(&self, kernel: &str, step: &PlanStep, window: Window, bases: Bases) -> Launch {
        let to = self.view(step.output);
        let (from_scale, to_scale) = (self.scale(step.inputs[0]), self.scale(step.output));
        let argument = arg::IntegerPool {
            window: self.window(step, window, Activation::Identity),
            input: self.address(step.inputs[0], bases),
            output: self.address(step.output, bases),
            channels: int(to.padded()),
            in_zero: i32::from(from_scale.zero_point),
            factor: relative_factor(from_scale, Some(to_scale)),
            zero: f32::from(to_scale.zero_point),
        };
        Launch::flat(format!("{kernel}_i8"), to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    /// A block for each eight channels.
    pub(super) fn integer_global_average(&self, step: &PlanStep, bases: Bases) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let (from_scale, to_scale) = (self.scale(step.inputs[0]), self.scale(step.output));
        let argument = arg::IntegerGlobalAverage {
            input: self.address(step.inputs[0], bases),
            output: self.address(step.output, bases),
            pixels: int(from.shape.pixels()),
            pitch: int(from.pitch),
            in_zero: i32::from(from_scale.zero_point),
            factor: relative_factor(from_scale, Some(to_scale)),
            zero: f32::from(to_scale.zero_point),
            unused: 0,
        };
        Launch::flat("global_average_i8", to.padded() / 8 * THREADS as usize, THREADS, &argument)
    }

    /// The first operand, each channel times its value in the second.
    pub(super) fn integer_scaling(&self, step: &PlanStep, bases: Bases) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let [input, factors] = [0, 1].map(|i| self.scale(step.inputs[i]));
        let output = self.scale(step.output);
        let argument = arg::IntegerScaling {
            input: self.address(step.inputs[0], bases),
            factors: self.address(step.inputs[1], bases),
            output: self.address(step.output, bases),
            pixels: int(to.shape.pixels()),
            in_pitch: int(from.pitch),
            out_pitch: int(to.pitch),
            channels: int(to.padded()),
            in_zero: i32::from(input.zero_point),
            factors_zero: i32::from(factors.zero_point),
            factor: product_factor([input, factors], output),
            zero: f32::from(output.zero_point),
        };
        Launch::flat("scale_i8", to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    /// The byte that `activation` by itself makes of each byte.
    pub(super) fn table(&self, step: &PlanStep, activation: Activation) -> Vec<u8> {
        activation_table(activation, self.scale(step.inputs[0]), self.scale(step.output)).to_vec()
    }

    /// An activation by itself, by its `table`.
    pub(super) fn lookup(&self, step: &PlanStep, table: u64, bases: Bases) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let argument = arg::Lookup {
            input: self.address(step.inputs[0], bases),
            table,
            output: self.address(step.output, bases),
            pixels: int(to.shape.pixels()),
            in_pitch: int(from.pitch),
            out_pitch: int(to.pitch),
            channels: int(to.padded()),
        };
        Launch::flat("lookup_i8", to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }
}
