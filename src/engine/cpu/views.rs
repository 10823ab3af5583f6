//! How each tensor of a plan lies in memory, before it has a place there.

use super::layout::FloatView;
use crate::plan::{Plan, PlanStep, PlanTensor, TensorId, Work};

/// A view of each tensor with all its rows and the border that its readers need; the parts of a
/// concatenation and the whole have one geometry.
pub fn whole_views(plan: &Plan) -> Vec<FloatView> {
    let mut border = vec![(0, 0); plan.tensors.len()];
    for step in &plan.steps {
        if let Work::Conv { conv, .. } = step.work {
            let (from, to) = (plan.tensors[step.inputs[0]].shape.width, plan.tensors[step.output].shape.width);
            let left = conv.pad_before(from);
            let right = ((to - 1) * conv.stride + conv.kernel).saturating_sub(left + from);
            let border = &mut border[plan.storage(step.inputs[0])];
            *border = (border.0.max(left), border.1.max(right));
        }
    }
    // Tensors that a convolution reads together have one geometry; each may belong to several such
    // groups.
    loop {
        let before = border.clone();
        for step in plan.steps.iter().filter(|step| !step.gathered.is_empty()) {
            let sources = || step.gathered.iter().map(|channels| plan.storage(channels.tensor));
            let widest = sources().fold((0, 0), |w, s| (border[s].0.max(w.0), border[s].1.max(w.1)));
            sources().for_each(|s| border[s] = widest);
        }
        if border == before {
            break;
        }
    }
    let view = |t: TensorId| {
        let (shape, border) = (plan.tensors[t].shape, border[plan.storage(t)]);
        if t == 0 && by_pixels(plan) {
            FloatView::of_pixels(shape, border)
        } else {
            FloatView::new(shape, usize::MAX, border)
        }
    };
    (0..plan.tensors.len()).map(view).collect()
}

/// Whether the input can be held pixel by pixel: an image of three channels that dense convolutions
/// alone read.
fn by_pixels(plan: &Plan) -> bool {
    let dense = |step: &PlanStep| {
        let dense = matches!(step.work, Work::Conv { conv, .. } if !conv.depthwise);
        dense && step.gathered.is_empty() && !step.inputs[1..].contains(&0)
    };
    let inside = |t: &PlanTensor| t.within.is_some_and(|(whole, _)| whole == 0);
    plan.tensors[0].shape.channels == 3
        && plan.tensors[0].within.is_none()
        && !plan.tensors.iter().any(inside)
        && !plan.outputs.contains(&0)
        && plan.steps.iter().all(|step| !step.inputs.contains(&0) || dense(step))
}
