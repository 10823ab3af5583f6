//! Stages: what runs between two barriers. A stage is one step, or a chain of convolutions run band
//! by band.
//!
//! In a chain, a few rows of each map between its convolutions exist at a time, in the thread's
//! scratch, small enough for its second-level cache: the wide maps inside an inverted residual
//! never reach memory. Threads split a chain by rows and each computes the few rows of overlap
//! itself.

use std::ops::Range;

use super::bilinear;
use super::convolution::FloatConvolution;
use super::elementwise::{self, Activate};
use super::layout::{FloatView, ThreadMemory};
use super::movement::{self, Copied};
use super::pooling::{self, Pool};
use super::residual::Residual;
use super::winograd::Winograd;

/// The most convolutions in one chain.
pub const MAX_CHAIN: usize = 8;

/// What one step does.
pub enum FloatAction {
    Pack,
    Convolution(Box<FloatConvolution>),
    /// Not in a chain.
    Winograd(Box<Winograd>),
    Sum(Vec<Residual<FloatView>>),
    MaxPool(Pool),
    AveragePool(Pool),
    GlobalAverage,
    /// By the values of another tensor.
    Scale(FloatView),
    Activate(Activate),
    Bilinear,
    Copy(Vec<Copied>),
    /// To this offset of the outputs.
    Unpack(usize),
}

/// One step with its views; of those of a pack only the output means something, of an unpack only
/// the input.
pub struct FloatStep {
    pub name: String,
    pub action: FloatAction,
    pub input: FloatView,
    pub output: FloatView,
    pub flops: usize,
}

impl FloatStep {
    /// Parts along the channels into which it can be split.
    pub fn groups(&self) -> usize {
        match &self.action {
            FloatAction::Convolution(c) => c.groups(),
            FloatAction::Copy(_) => 1,
            FloatAction::Unpack(_) => self.input.blocks(),
            _ => self.output.blocks(),
        }
    }

    /// The input rows under output rows `rows`.
    fn input_rows(&self, rows: &Range<usize>) -> Range<usize> {
        let FloatAction::Convolution(c) = &self.action else { return rows.clone() };
        let (conv, height) = (c.conv(), self.input.shape.height);
        let top = conv.pad_before(height);
        let first = (rows.start * conv.stride).saturating_sub(top);
        let past = ((rows.end - 1) * conv.stride + conv.kernel).saturating_sub(top).min(height);
        first..past
    }

    /// # Safety
    /// As for [`FloatStage::run`]; `groups` and `rows` must be within the output.
    unsafe fn run(&self, memory: &ThreadMemory, groups: Range<usize>, rows: Range<usize>) {
        match &self.action {
            FloatAction::Pack => movement::pack(memory, &self.output, groups, rows),
            FloatAction::Convolution(c) => c.run(memory, &self.input, &self.output, groups, rows),
            FloatAction::Winograd(_) => unreachable!("has its own split"),
            FloatAction::Sum(operands) => movement::sum(memory, operands, &self.output, groups, rows),
            FloatAction::MaxPool(pool) | FloatAction::AveragePool(pool) => {
                pool.run(memory, &self.input, &self.output, groups, rows);
            }
            FloatAction::GlobalAverage => pooling::global_average(memory, &self.input, &self.output, groups),
            FloatAction::Scale(factors) => {
                elementwise::scale(memory, &self.input, factors, &self.output, groups, rows);
            }
            FloatAction::Activate(activate) => activate.run(memory, &self.input, &self.output, groups, rows),
            FloatAction::Bilinear => bilinear::upsample(memory, &self.input, &self.output, groups, rows),
            FloatAction::Copy(parts) => movement::copy(memory, parts, &self.output, rows),
            FloatAction::Unpack(offset) => movement::unpack(memory, &self.input, *offset, groups, rows),
        }
    }
}

/// The operations of a chain that is split by rows into `chunks`, as a multiple of those of the
/// whole.
pub fn overlap(steps: &[FloatStep], chunks: usize) -> f64 {
    let height = |step: &FloatStep| step.output.shape.height;
    let rows = steps.last().map_or(1, height);
    let mut split = 0.0;
    for chunk in 0..chunks {
        let mut range = rows * chunk / chunks..rows * (chunk + 1) / chunks;
        for step in steps.iter().rev() {
            split += step.flops as f64 * range.len() as f64 / height(step) as f64;
            range = step.input_rows(&range);
        }
    }
    split / steps.iter().map(|step| step.flops as f64).sum::<f64>()
}

/// One step, or a chain of them.
pub struct FloatStage {
    pub steps: Vec<FloatStep>,
    /// Output rows of a chain computed at a time.
    pub band: usize,
    /// Parts into which the work is split.
    pub chunks: usize,
}

impl FloatStage {
    /// Runs one of the chunks; `before` is the one of this run that the thread ran last.
    ///
    /// # Safety
    /// All views must lie within `memory`; chunks of other stages must not run at the same time;
    /// `memory.scratch` must be this thread's own, and hold what `before` has left there.
    pub unsafe fn run(&self, memory: &ThreadMemory, chunk: usize, before: Option<usize>) {
        let last = self.steps.last().expect("a stage has a step");
        if let FloatAction::Winograd(winograd) = &last.action {
            return winograd.run(memory, &last.input, &last.output, chunk, before);
        }
        let rows = last.output.shape.height;
        let part = |n: usize| n * chunk / self.chunks..n * (chunk + 1) / self.chunks;
        if self.steps.len() > 1 {
            return self.run_chain(memory, part(rows));
        }
        // Units of one row of one group, the groups in order.
        let units = part(last.groups() * rows);
        let mut at = units.start;
        while at < units.end {
            let (group, row) = (at / rows, at % rows);
            let whole = if row == 0 { (units.end - at) / rows } else { 0 };
            let (groups, past) = if whole > 0 { (whole, rows) } else { (1, rows.min(row + units.end - at)) };
            last.run(memory, group..group + groups, row..past);
            at += (groups - 1) * rows + past - row;
        }
    }

    /// # Safety
    /// As for [`run`](Self::run).
    unsafe fn run_chain(&self, memory: &ThreadMemory, rows: Range<usize>) {
        // Per step, the first row not made yet.
        let mut made = [0; MAX_CHAIN];
        let mut start = rows.start;
        while start < rows.end {
            let mut needed: [Range<usize>; MAX_CHAIN] = Default::default();
            let mut range = start..rows.end.min(start + self.band);
            start = range.end;
            for (step, needed) in self.steps.iter().zip(&mut needed).rev() {
                *needed = range.clone();
                range = step.input_rows(&range);
            }
            for ((step, needed), made) in self.steps.iter().zip(needed).zip(&mut made) {
                let first = needed.start.max(*made);
                if first < needed.end {
                    step.run(memory, 0..step.groups(), first..needed.end);
                    *made = needed.end;
                }
            }
        }
    }
}
