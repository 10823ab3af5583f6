//! Lowers a graph to the steps that an engine executes: fused, and each tensor's life known.
//!
//! Nothing here knows a device. Fusions:
//! - a convolution takes the [`Op::Add`](super::Op::Add) of its result with it, when nothing else
//!   reads that result;
//! - an addition reads an upsampled operand by index, so that the upsampled tensor is never made;
//! - a concatenation's parts are written in place where their channel offset is a multiple of the
//!   engine's block;
//! - slices and shuffles, and concatenations beside them, move nothing by themselves: they are
//!   lists of channels, which a step gathers where a whole tensor is needed, or which a dense
//!   convolution reads in place ([`Plan::read_in_place`]).
//!
//! [`crate::plan_memory`] places the tensors in one arena.

mod lowering;

use super::{Activation, Conv, Graph, LayerId, Shape, Window};
use lowering::Lowering;

/// Index into [`Plan::tensors`].
pub type TensorId = usize;

/// A tensor that some step makes.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanTensor {
    pub shape: Shape,
    /// The layer whose result it is; of a convolution with an addition in it, the addition.
    pub layer: LayerId,
    /// Set for a part of a concatenation that is written in place, and for a slice that is read in
    /// place: the whole, and the part's first channel there. The whole may itself be such a part.
    pub within: Option<(TensorId, usize)>,
}

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    pub tensor: TensorId,
    /// Read through a nearest-neighbour upsampling by two: pixel (y, x) is the tensor's (y / 2, x /
    /// 2).
    pub upsampled: bool,
}

/// Consecutive channels of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelRange {
    pub tensor: TensorId,
    pub first: usize,
    pub count: usize,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq)]
pub enum Work {
    /// Convolution, bias, activation, then the residual is added. `layer` names the weights.
    Conv { conv: Conv, layer: LayerId, residual: Option<Operand> },
    /// Sum of two operands.
    Add([Operand; 2]),
    /// A copy of the operand, which is an upsampled one.
    Upsample2x,
    /// Copies those parts that are not in place already: `(part, first channel in the output)`.
    Concat(Vec<(TensorId, usize)>),
    /// Bilinear upsampling by two.
    Bilinear2x,
    /// The largest value of each window.
    MaxPool(Window),
    /// The mean of each window's values within the map.
    AveragePool(Window),
    /// The mean of each channel.
    GlobalAverage,
    /// `inputs[0]` with each channel multiplied by its value in `inputs[1]`, a map of one pixel.
    Scale,
    /// An activation by itself.
    Activate(Activation),
    /// Copies channels of any tensors of the output's size, in order.
    Gather(Vec<ChannelRange>),
}

/// One step: `inputs[0]` is what a convolution convolves; a residual is listed too.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanStep {
    pub name: String,
    pub work: Work,
    pub inputs: Vec<TensorId>,
    /// Of a dense convolution that reads its input channels in place from several tensors: which,
    /// in order; the tensors come first among `inputs`. Empty where `inputs[0]` holds them all.
    pub gathered: Vec<ChannelRange>,
    pub output: TensorId,
}

/// Steps in execution order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub tensors: Vec<PlanTensor>,
    pub steps: Vec<PlanStep>,
    /// The tensors that leave the network, in the order of the graph's outputs. Tensor 0 is the
    /// input.
    pub outputs: Vec<TensorId>,
}

impl Plan {
    /// Lowers `graph` for an engine that stores channels in blocks of `block` (1: any offset will
    /// do).
    pub fn new(graph: &Graph, block: usize) -> Self {
        Lowering::new(graph, Some(block)).run()
    }

    /// Lowers `graph` for an engine in which no tensor is a part of another: every part of a
    /// concatenation is copied.
    pub fn apart(graph: &Graph) -> Self {
        Lowering::new(graph, None).run()
    }

    /// The tensor that holds the storage of `tensor`: itself, or the outermost that it is a part
    /// of.
    pub fn storage(&self, tensor: TensorId) -> TensorId {
        self.place(tensor).0
    }

    /// The tensor that holds the storage of `tensor`, and the first channel of `tensor` there.
    pub fn place(&self, tensor: TensorId) -> (TensorId, usize) {
        let (mut at, mut channel) = (tensor, 0);
        while let Some((whole, first)) = self.tensors[at].within {
            (at, channel) = (whole, channel + first);
        }
        (at, channel)
    }

    /// How many steps read `tensor` or a part of it, its departure as an output counted as one too.
    pub fn readers(&self, tensor: TensorId) -> usize {
        let is_part = |mut t: TensorId| loop {
            match self.tensors[t].within {
                _ if t == tensor => return true,
                Some((whole, _)) => t = whole,
                None => return false,
            }
        };
        let reads = |step: &&PlanStep| step.inputs.iter().any(|&t| is_part(t));
        self.steps.iter().filter(reads).count() + usize::from(self.outputs.iter().any(|&t| is_part(t)))
    }

    /// Drops each gathering step whose channels only dense convolutions read: they read them where
    /// they are.
    pub fn read_in_place(&mut self) {
        for at in (0..self.steps.len()).rev() {
            let Work::Gather(channels) = &self.steps[at].work else { continue };
            let (channels, output) = (channels.clone(), self.steps[at].output);
            let takes_it = |step: &PlanStep| {
                let dense = matches!(&step.work, Work::Conv { conv, .. } if !conv.depthwise);
                dense && step.inputs[0] == output && !step.inputs[1..].contains(&output)
            };
            let alone = !self.outputs.contains(&output)
                && self.tensors.iter().all(|t| t.within.is_none_or(|(whole, _)| whole != output))
                && self.steps.iter().all(|step| !step.inputs.contains(&output) || takes_it(step));
            if !alone {
                continue;
            }
            let mut sources: Vec<TensorId> = channels.iter().map(|c| c.tensor).collect();
            sources.sort_unstable();
            sources.dedup();
            for step in self.steps.iter_mut().filter(|step| step.inputs.first() == Some(&output)) {
                step.gathered.clone_from(&channels);
                step.inputs.splice(..1, sources.iter().copied());
            }
            self.steps.remove(at);
        }
    }

    /// Floating-point operations of one step, a multiply-accumulate counted as two.
    pub fn flops(&self, step: &PlanStep) -> usize {
        let out = self.tensors[step.output].shape;
        match &step.work {
            Work::Conv { conv, residual, .. } => {
                let from = match step.gathered.iter().map(|c| c.count).sum() {
                    _ if conv.depthwise => 1,
                    0 => self.tensors[step.inputs[0]].shape.channels,
                    gathered => gathered,
                };
                out.len() * (2 * conv.kernel * conv.kernel * from + usize::from(residual.is_some()))
            }
            Work::Add(_) | Work::Scale => out.len(),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interpolation, Padding};

    fn conv(depthwise: bool) -> Conv {
        Conv { kernel: 1, stride: 1, depthwise, activation: Activation::Identity, padding: Padding::Same }
    }

    #[test]
    fn a_pyramid_level_becomes_one_step() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let coarse = graph.conv("coarse", 0, 8, Conv { stride: 2, ..conv(false) });
        let lateral = graph.conv("lateral", 0, 8, conv(false));
        let up = graph.upsample2x("up", coarse, Interpolation::Nearest);
        let sum = graph.add("sum", lateral, up);
        graph.outputs.push(sum);
        let plan = Plan::new(&graph, 8);
        assert_eq!(plan.steps.len(), 2);
        let residual = Some(Operand { tensor: 1, upsampled: true });
        assert_eq!(plan.steps[1].work, Work::Conv { conv: conv(false), layer: lateral, residual });
    }

    #[test]
    fn a_convolution_read_twice_keeps_its_own_step() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let a = graph.conv("a", 0, 3, conv(false));
        let sum = graph.add("sum", 0, a);
        graph.outputs.extend([sum, a]);
        let plan = Plan::new(&graph, 8);
        assert_eq!(plan.steps.len(), 2);
        assert!(matches!(plan.steps[1].work, Work::Add(_)));
    }

    #[test]
    fn concat_places_aligned_parts_and_copies_the_others() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let a = graph.conv("a", 0, 8, conv(false));
        let b = graph.conv("b", 0, 4, conv(false));
        let c = graph.conv("c", 0, 8, conv(false));
        let cat = graph.concat("cat", &[a, b, c]);
        graph.outputs.push(cat);
        let plan = Plan::new(&graph, 8);
        assert_eq!(plan.tensors[a].within, Some((cat, 0)));
        assert_eq!(plan.steps[3].work, Work::Concat(vec![(b, 8), (c, 12)]));
    }

    #[test]
    fn slices_and_shuffles_are_read_in_place_by_dense_convolutions() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let a = graph.conv("a", 0, 4, conv(false));
        let b = graph.conv("b", 0, 4, conv(false));
        let both = graph.concat("both", &[a, b]);
        let shuffled = graph.shuffle("shuffled", both, 2);
        let half = graph.slice("half", shuffled, 2..5);
        let c = graph.conv("c", half, 8, conv(false));
        graph.outputs.push(c);
        let mut plan = Plan::new(&graph, 8);
        let one = |tensor, first| ChannelRange { tensor, first, count: 1 };
        let expected = vec![one(a, 1), one(b, 1), one(a, 2)];
        assert_eq!(plan.steps[2].work, Work::Gather(expected.clone()));
        plan.read_in_place();
        assert_eq!(plan.steps.len(), 3);
        assert_eq!((&plan.steps[2].gathered, &plan.steps[2].inputs), (&expected, &vec![a, b]));
    }

    #[test]
    fn an_aligned_slice_is_a_part_of_its_tensor() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let a = graph.conv("a", 0, 16, conv(false));
        let half = graph.slice("half", a, 8..16);
        let d = graph.conv("d", half, 0, conv(true));
        graph.outputs.push(d);
        let plan = Plan::new(&graph, 8);
        assert_eq!(plan.steps.len(), 2);
        assert_eq!(plan.place(plan.steps[1].inputs[0]), (a, 8));
        assert_eq!(plan.readers(a), 1);
    }
}
