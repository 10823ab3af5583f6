//! Lowers a graph to the steps that an engine executes: fused, and each tensor's life known.
//!
//! Nothing here knows a device. Fusions:
//! - a convolution takes the [`Op::Add`] of its result with it, when nothing else reads that result;
//! - an addition reads an upsampled operand by index, so that the upsampled tensor is never made;
//! - a concatenation's parts are written in place where their channel offset is a multiple of the engine's block.
//!
//! [`crate::engine::plan_memory`] places the tensors in one arena.

use super::{Conv, Graph, LayerId, Op, Shape};

/// Index into [`Plan::tensors`].
pub type TensorId = usize;

/// A tensor that some step makes.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub shape: Shape,
    /// The layer whose result it is; of a convolution with an addition in it, the addition.
    pub layer: LayerId,
    /// Set for a part of a concatenation that is written in place: the whole, and the part's first channel there.
    pub within: Option<(TensorId, usize)>,
}

/// What a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operand {
    pub tensor: TensorId,
    /// Read through a nearest-neighbour upsampling by two: pixel (y, x) is the tensor's (y / 2, x / 2).
    pub upsampled: bool,
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
}

/// One step: `inputs[0]` is what a convolution convolves; a residual is listed too.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub name: String,
    pub work: Work,
    pub inputs: Vec<TensorId>,
    pub output: TensorId,
}

/// Steps in execution order.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub tensors: Vec<Tensor>,
    pub steps: Vec<Step>,
    /// The tensors that leave the network, in the order of the graph's outputs. Tensor 0 is the input.
    pub outputs: Vec<TensorId>,
}

impl Plan {
    /// Lowers `graph` for an engine that stores channels in blocks of `block` (1: any offset will do).
    pub fn new(graph: &Graph, block: usize) -> Self {
        Lowering::new(graph, block).run()
    }

    /// The tensor that holds the storage of `tensor`: itself, or the concatenation that it is a part of.
    pub fn storage(&self, tensor: TensorId) -> TensorId {
        self.tensors[tensor].within.map_or(tensor, |(whole, _)| whole)
    }

    /// How many steps read `tensor`, its departure as an output counted as one too.
    pub fn readers(&self, tensor: TensorId) -> usize {
        let reads = |step: &&Step| step.inputs.contains(&tensor);
        self.steps.iter().filter(reads).count() + usize::from(self.outputs.contains(&tensor))
    }

    /// Floating-point operations of one step, a multiply-accumulate counted as two.
    pub fn flops(&self, step: &Step) -> usize {
        let out = self.tensors[step.output].shape;
        match &step.work {
            Work::Conv { conv, residual, .. } => {
                let from = if conv.depthwise { 1 } else { self.tensors[step.inputs[0]].shape.channels };
                out.len() * (2 * conv.kernel * conv.kernel * from + usize::from(residual.is_some()))
            }
            Work::Add(_) => out.len(),
            Work::Upsample2x | Work::Concat(_) => 0,
        }
    }
}

struct Lowering<'a> {
    graph: &'a Graph,
    block: usize,
    /// Reads of each layer by layers not fused away, departures included.
    uses: Vec<usize>,
    /// The convolution that an addition takes in, and the addition's other operand.
    fused: Vec<Option<(LayerId, LayerId)>>,
    /// Layers that need no step of their own.
    skipped: Vec<bool>,
    tensor_of: Vec<TensorId>,
    plan: Plan,
}

impl<'a> Lowering<'a> {
    fn new(graph: &'a Graph, block: usize) -> Self {
        let n = graph.layers.len();
        let mut uses = vec![0; n];
        let reads = graph.layers.iter().flat_map(|layer| &layer.inputs);
        reads.chain(&graph.outputs).for_each(|&id| uses[id] += 1);
        let plan = Plan { tensors: vec![], steps: vec![], outputs: vec![] };
        Self { graph, block, uses, fused: vec![None; n], skipped: vec![false; n], tensor_of: vec![usize::MAX; n], plan }
    }

    fn run(mut self) -> Plan {
        self.fuse();
        for (id, layer) in self.graph.layers.iter().enumerate() {
            if !self.skipped[id] {
                self.tensor_of[id] = self.plan.tensors.len();
                self.plan.tensors.push(Tensor { shape: layer.shape, layer: id, within: None });
            }
        }
        for id in 1..self.graph.layers.len() {
            if !self.skipped[id] {
                let step = self.step(id);
                self.plan.steps.push(step);
            }
        }
        self.plan.outputs = self.graph.outputs.iter().map(|&id| self.tensor_of[id]).collect();
        self.plan
    }

    /// Decides which layers merge into others.
    fn fuse(&mut self) {
        for (id, layer) in self.graph.layers.iter().enumerate() {
            if layer.op != Op::Add {
                continue;
            }
            for &operand in &layer.inputs {
                if self.graph.layers[operand].op == Op::Upsample2x {
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
            let unread_because_fused = layer.op == Op::Upsample2x
                && self.uses[id] == 0
                && self.graph.layers.iter().any(|l| l.op == Op::Add && l.inputs.contains(&id));
            self.skipped[id] |= unread_because_fused;
        }
    }

    /// An operand of an addition, read through the upsampling that makes it.
    fn operand(&self, id: LayerId) -> Operand {
        let layer = &self.graph.layers[id];
        let (source, upsampled) = if layer.op == Op::Upsample2x { (layer.inputs[0], true) } else { (id, false) };
        Operand { tensor: self.tensor_of[source], upsampled }
    }

    fn step(&mut self, id: LayerId) -> Step {
        let layer = &self.graph.layers[id];
        let inputs = |of: &[LayerId]| of.iter().map(|&i| self.tensor_of[i]).collect::<Vec<_>>();
        let (name, work, inputs) = match (layer.op, self.fused[id]) {
            (Op::Conv(conv), _) => (&layer.name, Work::Conv { conv, layer: id, residual: None }, inputs(&layer.inputs)),
            (Op::Add, Some((conv_id, other))) => {
                let from = &self.graph.layers[conv_id];
                let Op::Conv(conv) = from.op else { unreachable!("only convolutions are fused") };
                let residual = self.operand(other);
                let inputs = vec![self.tensor_of[from.inputs[0]], residual.tensor];
                (&from.name, Work::Conv { conv, layer: conv_id, residual: Some(residual) }, inputs)
            }
            (Op::Add, None) => {
                let operands = [self.operand(layer.inputs[0]), self.operand(layer.inputs[1])];
                (&layer.name, Work::Add(operands), operands.map(|o| o.tensor).to_vec())
            }
            (Op::Upsample2x, _) => (&layer.name, Work::Upsample2x, inputs(&layer.inputs)),
            (Op::Concat, _) => {
                let inputs = inputs(&layer.inputs);
                (&layer.name, Work::Concat(self.place_parts(id)), inputs)
            }
            (Op::Input, _) => unreachable!("a graph has its input as layer 0 only"),
        };
        Step { name: name.clone(), work, inputs, output: self.tensor_of[id] }
    }

    /// Puts what parts it can in their place within the concatenation `id`, and returns the others, to be copied.
    fn place_parts(&mut self, id: LayerId) -> Vec<(TensorId, usize)> {
        let (mut copied, mut channel) = (vec![], 0usize);
        let whole = self.tensor_of[id];
        let parts = &self.graph.layers[id].inputs;
        for (i, &part) in parts.iter().enumerate() {
            let layer = &self.graph.layers[part];
            let tensor = self.tensor_of[part];
            let last = i + 1 == parts.len();
            // A part that ends inside a block would share it with the next one: only the last may.
            let aligned =
                channel.is_multiple_of(self.block) && (last || layer.shape.channels.is_multiple_of(self.block));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Activation;

    fn conv(depthwise: bool) -> Conv {
        Conv { kernel: 1, stride: 1, depthwise, activation: Activation::Identity }
    }

    #[test]
    fn a_pyramid_level_becomes_one_step() {
        let mut graph = Graph::new(Shape::new(3, 4, 4));
        let coarse = graph.conv("coarse", 0, 8, Conv { stride: 2, ..conv(false) });
        let lateral = graph.conv("lateral", 0, 8, conv(false));
        let up = graph.upsample2x("up", coarse);
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
}
