//! The steps without weights as actions of the f32 engine, whichever program they are part of.

use super::elementwise::Activate;
use super::kernels::FloatKernels;
use super::layout::FloatView;
use super::movement::Copied;
use super::pooling::Pool;
use super::residual::Residual;
use super::stage::FloatAction;
use crate::plan::{ChannelRange, Operand, PlanStep, TensorId, Work};

/// What `step`, which is no convolution, does over tensors that lie where `view` says.
pub fn action(step: &PlanStep, view: impl Fn(TensorId) -> FloatView, kernels: &FloatKernels) -> FloatAction {
    let operand = |o: &Operand| Residual { view: view(o.tensor), upsampled: o.upsampled };
    match &step.work {
        Work::Conv { .. } => unreachable!("has weights"),
        Work::Add(operands) => FloatAction::Sum(operands.iter().map(operand).collect()),
        Work::Upsample2x => FloatAction::Sum(vec![Residual { view: view(step.inputs[0]), upsampled: true }]),
        Work::Bilinear2x => FloatAction::Bilinear,
        Work::Concat(parts) => {
            let whole = |&(t, to): &(TensorId, usize)| {
                let view = view(t);
                Copied { view, from: 0, to, count: view.shape.channels }
            };
            FloatAction::Copy(parts.iter().map(whole).collect())
        }
        Work::Gather(channels) => {
            let mut to = 0;
            let copied = |c: &ChannelRange| {
                to += c.count;
                Copied { view: view(c.tensor), from: c.first, to: to - c.count, count: c.count }
            };
            FloatAction::Copy(channels.iter().map(copied).collect())
        }
        &Work::MaxPool(window) => FloatAction::MaxPool(Pool { window, row: kernels.pool }),
        &Work::AveragePool(window) => FloatAction::AveragePool(Pool { window, row: kernels.average }),
        Work::GlobalAverage => FloatAction::GlobalAverage,
        Work::Scale => FloatAction::Scale(view(step.inputs[1])),
        &Work::Activate(activation) => FloatAction::Activate(Activate { activation, row: kernels.activate }),
    }
}
