//! Stages of the integer engine: what runs between two barriers.

use std::ops::Range;

use super::super::layout::{FloatView, ThreadMemory};
use super::super::stage::FloatStage;
use super::convolution::IntegerConvolution;
use super::kernels::IntegerKernels;
use super::layout::ByteView;
use super::movement::{self, CopiedBytes};
use super::plain::PlainAction;
use super::residual::ScaledResidual;
use crate::quantization::TensorScale;

/// What one stage does.
pub enum IntegerAction {
    QuantizeInput(&'static IntegerKernels, ByteView, TensorScale),
    Convolution(Box<IntegerConvolution>),
    Sum([ScaledResidual; 2], ByteView),
    Upsample(ByteView, ByteView),
    Copy(Vec<CopiedBytes>, ByteView),
    /// From one tensor to another.
    Plain(PlainAction, ByteView, ByteView),
    ToFloats(ByteView, TensorScale, FloatView),
    ToBytes(FloatView, TensorScale, ByteView),
    /// To this offset of the outputs.
    Unpack(ByteView, TensorScale, usize),
    /// A step of the f32 engine.
    Float(FloatStage),
}

/// One step, in parts of whole rows of a few channel blocks.
pub struct IntegerStage {
    pub name: String,
    pub action: IntegerAction,
    pub groups: usize,
    /// Of the result.
    pub rows: usize,
    pub chunks: usize,
    pub flops: usize,
}

impl IntegerStage {
    /// Runs one of the chunks: units of one row of one group, the groups in order. `before` is the chunk of this run that
    /// the thread ran last.
    ///
    /// # Safety
    /// As for [`Stages::run`](super::super::pool::Stages::run).
    pub unsafe fn run(&self, memory: &ThreadMemory, chunk: usize, before: Option<usize>) {
        match &self.action {
            IntegerAction::Float(stage) => return stage.run(memory, chunk, before),
            IntegerAction::Convolution(c) => {
                if let Some(winograd) = c.winograd() {
                    return c.run_winograd(memory, winograd, chunk, before);
                }
            }
            _ => {}
        }
        let units = self.groups * self.rows;
        let (mut at, end) = (units * chunk / self.chunks, units * (chunk + 1) / self.chunks);
        while at < end {
            let (group, row) = (at / self.rows, at % self.rows);
            let whole = if row == 0 { (end - at) / self.rows } else { 0 };
            let (groups, past) = if whole > 0 { (whole, self.rows) } else { (1, self.rows.min(row + end - at)) };
            self.run_part(memory, group..group + groups, row..past);
            at += (groups - 1) * self.rows + past - row;
        }
    }

    /// # Safety
    /// As for [`Stages::run`](super::super::pool::Stages::run).
    unsafe fn run_part(&self, memory: &ThreadMemory, groups: Range<usize>, rows: Range<usize>) {
        match &self.action {
            IntegerAction::QuantizeInput(kernels, view, scale) => (kernels.quantize_input)(memory, view, *scale, rows),
            IntegerAction::Convolution(c) => c.run(memory, groups, rows),
            IntegerAction::Sum(operands, output) => movement::sum(memory, operands, output, groups, rows),
            IntegerAction::Upsample(input, output) => movement::upsample(memory, input, output, groups, rows),
            IntegerAction::Copy(parts, output) => movement::copy(memory, parts, output, rows),
            IntegerAction::Plain(action, input, output) => action.run(memory, input, output, groups, rows),
            IntegerAction::ToFloats(input, scale, output) => movement::to_floats(memory, input, *scale, output, rows),
            IntegerAction::ToBytes(input, scale, output) => movement::to_bytes(memory, input, *scale, output, rows),
            IntegerAction::Unpack(input, scale, offset) => movement::unpack(memory, input, *scale, *offset, rows),
            IntegerAction::Float(_) => unreachable!("run as a whole"),
        }
    }
}
