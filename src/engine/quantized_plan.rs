//! Which steps of a quantized network's plan are computed in integers, and in which forms their
//! tensors are kept: for any device, so that all engines round where the others do.
//!
//! A convolution is integer where it has 8-bit weights. Any other operation is integer where all that
//! it reads was made by integer steps. A tensor takes the form that its step
//! makes, and is converted once, right after, where a reader wants the other. What leaves the
//! network is real.

use crate::plan::{Plan, PlanStep, TensorId, Work};
use crate::quantization::{Quantization, TensorScale};
use crate::{EngineError, Graph};

/// A plan with the precision of its steps and tensors. Nothing in it is "placed within" another
/// tensor.
pub struct Lowered {
    pub plan: Plan,
    /// Per step.
    pub integer: Vec<bool>,
    /// Per tensor.
    pub forms: Vec<Forms>,
    /// Per tensor; set where it has bytes.
    pub scales: Vec<Option<TensorScale>>,
}

/// The forms in which a tensor exists: as it is made, and converted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    pub bytes: bool,
    pub floats: bool,
    /// Whether its step makes bytes.
    pub made_as_bytes: bool,
    /// A convolution writes it to the network's outputs itself, and it exists in no other form.
    pub departs: bool,
}

impl Lowered {
    /// # Errors
    /// When a tensor that must be in bytes has no scale.
    pub fn new(graph: &Graph, quantization: &Quantization) -> Result<Self, EngineError> {
        let plan = Plan::apart(graph);
        let input_has_bytes = quantization.tensors.contains_key(&graph.layers[0].name);
        let mut forms = vec![Forms::default(); plan.tensors.len()];
        let mut integer = vec![];
        for step in &plan.steps {
            let is_integer = match &step.work {
                Work::Conv { layer, .. } => quantization.convs.contains_key(&graph.layers[*layer].name),
                // The input is made in either form.
                _ => step.inputs.iter().all(|&t| if t == 0 { input_has_bytes } else { forms[t].made_as_bytes }),
            };
            integer.push(is_integer);
            for &input in &step.inputs {
                forms[input].bytes |= is_integer;
                forms[input].floats |= !is_integer;
            }
            let departs = is_integer
                && matches!(step.work, Work::Conv { .. })
                && plan.readers(step.output) == 1
                && plan.outputs.iter().filter(|&&t| t == step.output).count() == 1;
            let made = Forms {
                bytes: is_integer && !departs,
                floats: !is_integer,
                made_as_bytes: is_integer && !departs,
                departs,
            };
            forms[step.output] = made;
        }
        // An input that leaves again does so as it came, and one that nothing reads is kept like
        // one.
        forms[0].floats |= plan.outputs.contains(&0) || !forms[0].bytes;
        let mut scales = vec![None; plan.tensors.len()];
        for (tensor, scale) in scales.iter_mut().enumerate().filter(|(t, _)| forms[*t].bytes) {
            *scale = Some(quantization.tensor(&graph.layers[plan.tensors[tensor].layer].name)?);
        }
        Ok(Self { plan, integer, forms, scales })
    }

    /// The scale of a tensor in bytes.
    pub fn scale(&self, tensor: TensorId) -> TensorScale {
        self.scales[tensor].expect("set for every tensor in bytes")
    }

    /// The scale of what a step makes; `None` if that is a network output, which stays real.
    pub fn output_scale(&self, step: &PlanStep) -> Option<TensorScale> {
        (!self.forms[step.output].departs).then(|| self.scale(step.output))
    }
}

/// For each tensor of `plan` the concatenation that it is a part of, and its first channel there, where its step may write
/// it in its place: it is made as a whole, `alike` says of it and the concatenation that a copy changes no value, and it
/// shares no block of `block` channels with another part.
pub fn parts_in_place(
    plan: &Plan,
    block: impl Fn(TensorId) -> usize,
    alike: impl Fn(TensorId, TensorId) -> bool,
) -> Vec<Option<(TensorId, usize)>> {
    let mut made_whole = vec![false; plan.tensors.len()];
    for step in plan.steps.iter().filter(|step| !matches!(step.work, Work::Concat(_))) {
        made_whole[step.output] = true;
    }
    let mut places = vec![None; plan.tensors.len()];
    for step in &plan.steps {
        let Work::Concat(parts) = &step.work else { continue };
        let whole = step.output;
        for &(part, first) in parts {
            let (count, block) = (plan.tensors[part].shape.channels, block(whole));
            let ends = count.is_multiple_of(block) || first + count == plan.tensors[whole].shape.channels;
            let free = made_whole[part] && places[part].is_none() && plan.tensors[part].within.is_none();
            if free && first.is_multiple_of(block) && ends && alike(part, whole) {
                places[part] = Some((whole, first));
            }
        }
    }
    places
}
