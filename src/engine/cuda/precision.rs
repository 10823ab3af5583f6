//! The plan of a quantized network with each form of a tensor as a tensor of its own.
//!
//! [`Lowered`] decides which steps are integer, as for the CPU. Here a tensor that readers want
//! in its other form gets a second one, made right after the first by a gathering of all its
//! channels, which converts since the elements differ. So order, memory and dependencies need know
//! nothing of precision. Parts of a concatenation of one element are then put in their place, as in half
//! precision: each would cost a launch, one after the other, for a copy.

use super::kernels::Element;
use crate::plan::{ChannelRange, Plan, PlanStep, PlanTensor, TensorId, Work};
use crate::quantization::TensorScale;
use crate::quantized_plan::{parts_in_place, Lowered};
use crate::{EngineError, Graph, Quantization};

/// The plan, and the scale of each tensor in bytes; `None` for those in half precision, as all
/// outputs are.
///
/// # Errors
/// As [`Lowered::new`].
pub fn plan(graph: &Graph, quantization: &Quantization) -> Result<(Plan, Vec<Option<TensorScale>>), EngineError> {
    let Lowered { plan, integer, forms, scales } = Lowered::new(graph, quantization)?;
    let leaves = |t: TensorId| plan.outputs.contains(&t);
    // An input that is wanted in both forms is made in half precision.
    let is_bytes = |t: TensorId| if t == 0 { forms[0].bytes && !forms[0].floats } else { forms[t].made_as_bytes };
    let wants_other = |t: TensorId| if is_bytes(t) { forms[t].floats || leaves(t) } else { forms[t].bytes };
    let mut both = Both {
        scales: (0..scales.len()).map(|t| is_bytes(t).then(|| scales[t]).flatten()).collect(),
        other: vec![None; scales.len()],
        plan: Plan { tensors: plan.tensors.clone(), steps: vec![], outputs: vec![] },
    };
    if wants_other(0) {
        both.convert(0, scales[0], graph);
    }
    for (step, &integer) in plan.steps.iter().zip(&integer) {
        let step = both.reading(step, integer);
        let made = step.output;
        both.plan.steps.push(step);
        if wants_other(made) {
            both.convert(made, scales[made], graph);
        }
    }
    both.plan.outputs = plan.outputs.iter().map(|&t| both.form(t, false)).collect();
    both.place_parts();
    Ok((both.plan, both.scales))
}

struct Both {
    plan: Plan,
    scales: Vec<Option<TensorScale>>,
    /// Of each tensor of the lowered plan, its second form.
    other: Vec<Option<TensorId>>,
}

impl Both {
    /// Appends the conversion of tensor `t`, whose bytes have `scale`.
    fn convert(&mut self, t: TensorId, scale: Option<TensorScale>, graph: &Graph) {
        let (to_bytes, made) = (self.scales[t].is_none(), self.plan.tensors.len());
        let tensor = PlanTensor { within: None, ..self.plan.tensors[t] };
        let count = tensor.shape.channels;
        let step = PlanStep {
            name: format!("{} to {}", graph.layers[tensor.layer].name, if to_bytes { "int8" } else { "f16" }),
            work: Work::Gather(vec![ChannelRange { tensor: t, first: 0, count }]),
            inputs: vec![t],
            gathered: vec![],
            output: made,
        };
        self.plan.tensors.push(tensor);
        self.plan.steps.push(step);
        self.scales.push(scale.filter(|_| to_bytes));
        self.other[t] = Some(made);
    }

    /// Tensor `t` of the lowered plan in bytes, or in half precision.
    fn form(&self, t: TensorId, bytes: bool) -> TensorId {
        if self.scales[t].is_some() == bytes {
            t
        } else {
            self.other[t].expect("made where a reader wants it")
        }
    }

    /// Puts what parts of concatenations it can in their place. A part has the scale of the whole wherever both are
    /// bytes, or its copy would not be one.
    fn place_parts(&mut self) {
        let Self { plan, scales, .. } = self;
        let block = |t: TensorId| if scales[t].is_some() { Element::I8 } else { Element::F16 }.per_lane();
        let places = parts_in_place(plan, block, |part, whole| scales[part] == scales[whole]);
        for step in &mut plan.steps {
            if let Work::Concat(parts) = &mut step.work {
                parts.retain(|&(part, first)| places[part] != Some((step.output, first)));
            }
        }
        for (tensor, place) in plan.tensors.iter_mut().zip(places) {
            tensor.within = tensor.within.or(place);
        }
    }

    /// A step of the lowered plan that reads tensors in its own form.
    fn reading(&self, step: &PlanStep, integer: bool) -> PlanStep {
        let mut step = step.clone();
        let form = |t: &mut TensorId| *t = self.form(*t, integer);
        step.inputs.iter_mut().for_each(form);
        match &mut step.work {
            Work::Conv { residual, .. } => residual.iter_mut().for_each(|operand| form(&mut operand.tensor)),
            Work::Add(operands) => operands.iter_mut().for_each(|operand| form(&mut operand.tensor)),
            Work::Concat(parts) => parts.iter_mut().for_each(|(tensor, _)| form(tensor)),
            Work::Gather(parts) => parts.iter_mut().for_each(|part| form(&mut part.tensor)),
            _ => {}
        }
        step
    }
}
