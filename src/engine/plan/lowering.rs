//! From the layers of a graph to the steps of a plan.

use super::{ChannelRange, Operand, Plan, PlanStep, PlanTensor, TensorId, Work};
use crate::{Graph, Interpolation, LayerId, Op};

/// The upsampling that an addition can read through.
const NEAREST: Op = Op::Upsample2x(Interpolation::Nearest);

/// A plan under construction.
pub(super) struct Lowering<'a> {
    graph: &'a Graph,
    /// Channels in a block; `None` where no tensor may lie within another.
    block: Option<usize>,
    /// Reads of each layer by layers not fused away, departures included.
    uses: Vec<usize>,
    /// The convolution that an addition takes in, and the addition's other operand.
    fused: Vec<Option<(LayerId, LayerId)>>,
    /// Layers that need no step of their own.
    skipped: Vec<bool>,
    /// [`NONE`] for what is fused away, or is a list of channels that no whole tensor was asked of
    /// yet.
    tensor_of: Vec<TensorId>,
    /// Layers that are lists of channels rather than tensors of their own.
    listed: Vec<bool>,
    plan: Plan,
}

const NONE: TensorId = usize::MAX;

impl<'a> Lowering<'a> {
    pub fn new(graph: &'a Graph, block: Option<usize>) -> Self {
        let n = graph.layers.len();
        let mut uses = vec![0; n];
        let reads = graph.layers.iter().flat_map(|layer| &layer.inputs);
        reads.chain(&graph.outputs).for_each(|&id| uses[id] += 1);
        let plan = Plan { tensors: vec![], steps: vec![], outputs: vec![] };
        let (fused, skipped, tensor_of) = (vec![None; n], vec![false; n], vec![NONE; n]);
        Self { graph, block, uses, fused, skipped, tensor_of, listed: listed(graph), plan }
    }

    pub fn run(mut self) -> Plan {
        self.fuse();
        for (id, layer) in self.graph.layers.iter().enumerate() {
            if !self.skipped[id] && !self.listed[id] {
                self.tensor_of[id] = self.plan.tensors.len();
                self.plan.tensors.push(PlanTensor { shape: layer.shape, layer: id, within: None });
            }
        }
        for id in 1..self.graph.layers.len() {
            if !self.skipped[id] && !self.listed[id] {
                let step = self.step(id);
                self.plan.steps.push(step);
            }
        }
        let graph = self.graph;
        self.plan.outputs = graph.outputs.iter().map(|&id| self.whole(id)).collect();
        self.plan
    }

    /// Decides which layers merge into others.
    fn fuse(&mut self) {
        for (id, layer) in self.graph.layers.iter().enumerate() {
            if layer.op != Op::Add {
                continue;
            }
            for &operand in &layer.inputs {
                if self.graph.layers[operand].op == NEAREST {
                    self.uses[operand] -= 1;
                }
            }
            for (conv, other) in [(layer.inputs[1], layer.inputs[0]), (layer.inputs[0], layer.inputs[1])] {
                if matches!(self.graph.layers[conv].op, Op::Conv(_)) && self.uses[conv] == 1 {
                    self.fused[id] = Some((conv, other));
                    self.skipped[conv] = true;
                    break;
                }
            }
        }
        for (id, layer) in self.graph.layers.iter().enumerate() {
            let unread_because_fused = layer.op == NEAREST
                && self.uses[id] == 0
                && self.graph.layers.iter().any(|l| l.op == Op::Add && l.inputs.contains(&id));
            self.skipped[id] |= unread_because_fused;
        }
    }

    /// An operand of an addition, read through the upsampling that makes it.
    fn operand(&mut self, id: LayerId) -> Operand {
        let layer = &self.graph.layers[id];
        let (source, upsampled) = if layer.op == NEAREST { (layer.inputs[0], true) } else { (id, false) };
        Operand { tensor: self.whole(source), upsampled }
    }

    /// The channels of a layer, wherever they are.
    fn channels(&self, id: LayerId) -> Vec<ChannelRange> {
        let layer = &self.graph.layers[id];
        if !self.listed[id] {
            return vec![ChannelRange { tensor: self.tensor_of[id], first: 0, count: layer.shape.channels }];
        }
        let parts: Vec<ChannelRange> = layer.inputs.iter().flat_map(|&input| self.channels(input)).collect();
        match layer.op {
            Op::Slice { first } => slice(&parts, first, layer.shape.channels),
            Op::Shuffle { groups } => {
                let each = layer.shape.channels / groups;
                let one = |c: usize| slice(&parts, c % groups * each + c / groups, 1);
                (0..layer.shape.channels).flat_map(one).collect()
            }
            _ => parts,
        }
    }

    /// The tensor with all channels of a layer: made by a step of its own where they are scattered.
    fn whole(&mut self, id: LayerId) -> TensorId {
        if self.tensor_of[id] == NONE {
            let layer = &self.graph.layers[id];
            let channels = self.channels(id);
            let tensor = self.plan.tensors.len();
            self.tensor_of[id] = tensor;
            let mut within = None;
            if let ([ChannelRange { tensor: from, first, count }], Some(block)) = (&channels[..], self.block) {
                let (from, first, count) = (*from, *first, *count);
                let ends = count.is_multiple_of(block) || first + count == self.plan.tensors[from].shape.channels;
                // The input has its own layout in some engines.
                within = (first.is_multiple_of(block) && ends && from != 0).then_some((from, first));
            }
            self.plan.tensors.push(PlanTensor { shape: layer.shape, layer: id, within });
            if within.is_none() {
                let mut inputs: Vec<TensorId> = channels.iter().map(|c| c.tensor).collect();
                inputs.sort_unstable();
                inputs.dedup();
                let (name, work) = (layer.name.clone(), Work::Gather(channels));
                self.plan.steps.push(PlanStep { name, work, inputs, gathered: vec![], output: tensor });
            }
        }
        self.tensor_of[id]
    }

    fn step(&mut self, id: LayerId) -> PlanStep {
        let graph = self.graph;
        let layer = &graph.layers[id];
        let fused = self.fused[id];
        let mut inputs = |of: &[LayerId]| of.iter().map(|&i| self.whole(i)).collect::<Vec<_>>();
        let (name, work, inputs) = match (layer.op, fused) {
            (Op::Conv(conv), _) => (&layer.name, Work::Conv { conv, layer: id, residual: None }, inputs(&layer.inputs)),
            (Op::Add, Some((conv_id, other))) => {
                let from = &graph.layers[conv_id];
                let Op::Conv(conv) = from.op else { unreachable!("only convolutions are fused") };
                let residual = self.operand(other);
                let inputs = vec![self.whole(from.inputs[0]), residual.tensor];
                (&from.name, Work::Conv { conv, layer: conv_id, residual: Some(residual) }, inputs)
            }
            (Op::Add, None) => {
                let operands = [self.operand(layer.inputs[0]), self.operand(layer.inputs[1])];
                (&layer.name, Work::Add(operands), operands.map(|o| o.tensor).to_vec())
            }
            (Op::Concat, _) => {
                let inputs = inputs(&layer.inputs);
                (&layer.name, Work::Concat(self.place_parts(id)), inputs)
            }
            (Op::Upsample2x(Interpolation::Nearest), _) => (&layer.name, Work::Upsample2x, inputs(&layer.inputs)),
            (Op::Upsample2x(Interpolation::Bilinear), _) => (&layer.name, Work::Bilinear2x, inputs(&layer.inputs)),
            (Op::MaxPool(window), _) => (&layer.name, Work::MaxPool(window), inputs(&layer.inputs)),
            (Op::AveragePool(window), _) => (&layer.name, Work::AveragePool(window), inputs(&layer.inputs)),
            (Op::GlobalAverage, _) => (&layer.name, Work::GlobalAverage, inputs(&layer.inputs)),
            (Op::Scale, _) => (&layer.name, Work::Scale, inputs(&layer.inputs)),
            (Op::Activate(activation), _) => (&layer.name, Work::Activate(activation), inputs(&layer.inputs)),
            (Op::Input, _) => unreachable!("a graph has its input as layer 0 only"),
            (Op::Slice { .. } | Op::Shuffle { .. }, _) => unreachable!("a list of channels has no step"),
        };
        PlanStep { name: name.clone(), work, inputs, gathered: vec![], output: self.tensor_of[id] }
    }

    /// Puts what parts it can in their place within the concatenation `id`, and returns the others,
    /// to be copied.
    fn place_parts(&mut self, id: LayerId) -> Vec<(TensorId, usize)> {
        let (mut copied, mut channel) = (vec![], 0usize);
        let whole = self.tensor_of[id];
        let parts = &self.graph.layers[id].inputs;
        for (i, &part) in parts.iter().enumerate() {
            let layer = &self.graph.layers[part];
            let tensor = self.tensor_of[part];
            let last = i + 1 == parts.len();
            // A part that ends inside a block would share it with the next one: only the last may.
            let aligned = self.block.is_some_and(|block| {
                channel.is_multiple_of(block) && (last || layer.shape.channels.is_multiple_of(block))
            });
            let own = !matches!(layer.op, Op::Input | Op::Concat) && self.plan.tensors[tensor].within.is_none();
            if aligned && own {
                self.plan.tensors[tensor].within = Some((whole, channel));
            } else {
                copied.push((tensor, channel));
            }
            channel += layer.shape.channels;
        }
        copied
    }
}

/// Which layers are lists of channels: slices and shuffles, and the concatenations that read or
/// feed one.
fn listed(graph: &Graph) -> Vec<bool> {
    let moves = |op: Op| matches!(op, Op::Slice { .. } | Op::Shuffle { .. });
    let mut listed: Vec<bool> = graph.layers.iter().map(|layer| moves(layer.op)).collect();
    for (id, layer) in graph.layers.iter().enumerate() {
        if moves(layer.op) && graph.layers[layer.inputs[0]].op == Op::Concat {
            listed[layer.inputs[0]] = true;
        }
        if layer.op == Op::Concat && layer.inputs.iter().any(|&input| listed[input]) {
            listed[id] = true;
        }
    }
    listed
}

/// `count` channels of a list, from its `first` on.
fn slice(list: &[ChannelRange], first: usize, count: usize) -> Vec<ChannelRange> {
    let (mut skip, mut left, mut result) = (first, count, vec![]);
    for part in list {
        let take = part.count.saturating_sub(skip).min(left);
        if take > 0 {
            result.push(ChannelRange { first: part.first + skip, count: take, ..*part });
        }
        skip = skip.saturating_sub(part.count);
        left -= take;
    }
    result
}
