//! Steps without weights that make each value of its own place: sums, factors, activations, copies,
//! and conversions between bytes and half precision.

use super::{int, Bases, Network};
use crate::cuda::arguments as arg;
use crate::cuda::kernels::{Element, THREADS};
use crate::cuda::launch::{span, Launch, Node, NodeWork};
use crate::cuda::plain::Plain;
use crate::plan::{ChannelRange, Operand, PlanStep, TensorId};
use crate::quantization::relative_factor;
use crate::Activation;

impl Network {
    /// The sum of one or two operands.
    pub(super) fn sum(&self, step: &PlanStep, operands: [Option<&Operand>; 2], bases: Bases) -> Launch {
        let to = self.view(step.output);
        if to.element == Element::I8 {
            return self.integer_sum(step, operands, bases);
        }
        let [a, b] = operands.map(|o| o.map_or(arg::Residual::default(), |o| self.residual(o, bases)));
        let argument = arg::Sum {
            a,
            b,
            output: self.address(step.output, bases),
            saturated: self.saturated(bases),
            width: int(to.shape.width),
            pixels: int(to.shape.pixels()),
            pitch: int(to.pitch),
            channels: int(to.padded()),
        };
        Launch::flat("sum", to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    fn integer_sum(&self, step: &PlanStep, operands: [Option<&Operand>; 2], bases: Bases) -> Launch {
        let (to, scale) = (self.view(step.output), self.scale(step.output));
        let [a, b] = operands.map(|o| o.map_or(arg::Residual::default(), |o| self.residual(o, bases)));
        // A lone operand has the result's scale, and is copied.
        let [a_scale, b_scale] = operands.map(|o| o.map_or(scale, |o| self.scale(o.tensor)));
        let argument = arg::IntegerSum {
            a,
            b,
            output: self.address(step.output, bases),
            width: int(to.shape.width),
            pixels: int(to.shape.pixels()),
            pitch: int(to.pitch),
            channels: int(to.padded()),
            a_zero: i32::from(a_scale.zero_point),
            b_zero: i32::from(b_scale.zero_point),
            a_factor: relative_factor(a_scale, Some(scale)),
            b_factor: relative_factor(b_scale, Some(scale)),
            zero: i32::from(scale.zero_point),
            unused: 0,
        };
        Launch::flat("sum_i8", to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    /// Each value of the first operand times its channel's in `factors`, then `activation`.
    pub(super) fn elementwise(
        &self,
        step: &PlanStep,
        factors: Option<TensorId>,
        activation: Activation,
        bases: Bases,
    ) -> Launch {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        let argument = arg::Elementwise {
            input: self.address(step.inputs[0], bases),
            factors: factors.map_or(0, |tensor| self.address(tensor, bases)),
            output: self.address(step.output, bases),
            saturated: self.saturated(bases),
            pixels: int(to.shape.pixels()),
            in_pitch: int(from.pitch),
            out_pitch: int(to.pitch),
            channels: int(to.padded()),
            activation: arg::number(activation),
            unused: 0,
        };
        Launch::flat("elementwise", to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    /// Channels of a tensor, to the output's from `channel` on; converted where the output has
    /// another element, which only whole tensors are.
    pub(super) fn copy(&self, step: &PlanStep, part: ChannelRange, channel: usize, bases: Bases) -> Node {
        let (from, to) = (self.view(part.tensor), self.view(step.output));
        // The last part clears the padding behind it.
        let last = channel + part.count == to.shape.channels;
        let written = if last { to.padded() - channel } else { part.count };
        let input = self.address(part.tensor, bases) + (from.element.bytes() * part.first) as u64;
        let output = self.address(step.output, bases) + (to.element.bytes() * channel) as u64;
        let items = to.shape.pixels() * written;
        let launch = if from.element == to.element {
            let argument = arg::Part {
                input,
                output,
                pixels: int(to.shape.pixels()),
                in_pitch: int(from.pitch),
                out_pitch: int(to.pitch),
                channels: int(part.count),
                written: int(written),
                unused: 0,
            };
            let kernel = if to.element == Element::I8 { "copy_part_i8" } else { "copy_part" };
            Launch::flat(kernel, items, THREADS, &argument)
        } else {
            let to_bytes = to.element == Element::I8;
            let scale = self.scale(if to_bytes { step.output } else { part.tensor });
            let argument = arg::Convert {
                input,
                output,
                pixels: int(to.shape.pixels()),
                in_pitch: int(from.pitch),
                out_pitch: int(to.pitch),
                channels: int(part.count),
                written: int(written),
                scale: scale.scale,
                zero: i32::from(scale.zero_point),
                unused: 0,
            };
            Launch::flat(if to_bytes { "to_bytes" } else { "to_halves" }, items, THREADS, &argument)
        };
        let whole = self.span(step.output, bases);
        Node {
            name: step.name.clone(),
            work: NodeWork::Kernel(launch),
            reads: vec![self.span(part.tensor, bases)],
            writes: vec![span(output, (whole.end - output) as usize)],
        }
    }

    /// `tensor` in planar single precision at `planar`.
    pub fn unpack(&self, tensor: TensorId, planar: u64, bases: Bases) -> Node {
        let view = self.view(tensor);
        let argument = arg::Repack {
            planar,
            packed: self.address(tensor, bases),
            channels: int(view.shape.channels),
            pixels: int(view.shape.pixels()),
            pitch: int(view.pitch),
            unused: 0,
        };
        Node {
            name: "unpack".into(),
            work: NodeWork::Kernel(Launch::flat("unpack_planar", view.shape.len(), THREADS, &argument)),
            reads: vec![self.span(tensor, bases)],
            writes: vec![span(planar, 4 * view.shape.len())],
        }
    }

    /// Where each channel of a gathering of `parts` is found, the padding included.
    pub(super) fn sources(&self, step: &PlanStep, parts: &[ChannelRange]) -> Vec<u8> {
        let of = |part: &ChannelRange| {
            let view = self.view(part.tensor);
            let at = move |channel: usize| (view.base + view.element.bytes() * channel) as i64;
            let source = move |channel: usize| arg::Source { at: at(channel), pitch: int(view.pitch), unused: 0 };
            (part.first..part.first + part.count).map(source)
        };
        let nowhere = arg::Source { at: -1, pitch: 0, unused: 0 };
        let all = parts.iter().flat_map(of).chain(std::iter::repeat(nowhere));
        all.take(self.view(step.output).padded()).flat_map(|source| source.bytes()).collect()
    }

    /// Channels of several tensors, by the table of their `sources`.
    pub(super) fn gather(&self, step: &PlanStep, sources: u64, bases: Bases) -> Launch {
        let to = self.view(step.output);
        let argument = arg::Gather {
            arena: bases.arena,
            sources,
            output: self.address(step.output, bases),
            pixels: int(to.shape.pixels()),
            pitch: int(to.pitch),
            channels: int(to.padded()),
            unused: 0,
        };
        let kernel = if to.element == Element::I8 { "gather_i8" } else { "gather" };
        Launch::flat(kernel, to.shape.pixels() * to.padded() / 8, THREADS, &argument)
    }

    pub(super) fn residual(&self, operand: &Operand, bases: Bases) -> arg::Residual {
        let view = self.view(operand.tensor);
        let width = if operand.upsampled { int(view.shape.width) } else { 0 };
        arg::Residual { values: self.address(operand.tensor, bases), pitch: int(view.pitch), width }
    }
}
