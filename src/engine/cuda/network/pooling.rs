//! Steps that make one value of several pixels: pooling, means of maps, bilinear upsampling.

use super::{int, Bases, Network};
use crate::cuda::arguments as arg;
use crate::cuda::kernels::{Element, THREADS};
use crate::cuda::launch::Launch;
use crate::plan::PlanStep;
use crate::{Activation, Window};

impl Network {
    /// `kernel` over windows.
    pub(super) fn pool(&self, kernel: &str, step: &PlanStep, window: Window, bases: Bases) -> Launch {
        let to = self.view(step.output);
        if to.element == Element::I8 {
            return self.integer_pool(kernel, step, window, bases);
        }
        let argument = arg::Pool {
            window: self.window(step, window, Activation::Identity),
            input: self.address(step.inputs[0], bases),
            output: self.address(step.output, bases),
            channels: int(to.padded()),
            unused: 0,
        };
        Launch::flat(kernel, to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    /// A block for each eight channels.
    pub(super) fn global_average(&self, step: &PlanStep, bases: Bases) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        if to.element == Element::I8 {
            return self.integer_global_average(step, bases);
        }
        let argument = arg::GlobalAverage {
            input: self.address(step.inputs[0], bases),
            output: self.address(step.output, bases),
            pixels: int(from.shape.pixels()),
            pitch: int(from.pitch),
        };
        Launch::flat("global_average", to.padded() / 8 * THREADS as usize, THREADS, &argument)
    }

    pub(super) fn bilinear(&self, step: &PlanStep, bases: Bases) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let argument = arg::Bilinear {
            input: self.address(step.inputs[0], bases),
            output: self.address(step.output, bases),
            in_height: int(from.shape.height),
            in_width: int(from.shape.width),
            in_pitch: int(from.pitch),
            out_pitch: int(to.pitch),
            channels: int(to.padded()),
            unused: 0,
        };
        let kernel = if to.element == Element::I8 { "bilinear_i8" } else { "bilinear" };
        Launch::flat(kernel, to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }
}
