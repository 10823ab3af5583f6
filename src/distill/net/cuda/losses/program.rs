//! A record of tensors brought into order: its structure, which seldom changes from step to step, apart
//! from the numbers and the host's tensors in it, which do.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use candle_core::TensorId;

use crate::tensor::record::{Join, Map, Node, Operation};

/// Index of a tensor in [`Structure::values`].
pub type ValueId = usize;

/// What is computed, without what changes: two steps of one structure share a graph on the device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Structure {
    /// Inputs come before what is made of them.
    pub values: Vec<Value>,
    /// The tensors that are asked for.
    pub wanted: Vec<ValueId>,
    /// Bytes of each of the host's arrays.
    pub arrays: Vec<usize>,
    pub numbers: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Value {
    pub kind: Kind,
    pub shape: Vec<usize>,
    pub inputs: Vec<ValueId>,
}

/// [`Operation`] without what changes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Kind {
    Leaf(usize),
    Given(usize),
    /// The number of an array.
    Host(usize),
    /// Value by value: the operation's number in the kernel, and the index of its first number.
    Pointwise {
        code: u16,
        number: usize,
    },
    /// The same values in the same order.
    Same,
    Sum(Range<usize>),
    Max(usize),
    LogSoftmax,
    OneHotOfMax,
    Permute(Vec<usize>),
    Narrow {
        axis: usize,
        start: usize,
    },
    Expand,
    Concatenate(usize),
    Pad {
        axis: usize,
        before: usize,
    },
    /// The number of the array of its index.
    Gather {
        axis: usize,
        index: usize,
    },
    /// Those of its index and of where each place begins in it.
    Scatter {
        axis: usize,
        index: usize,
        starts: usize,
    },
    Multiply,
}

/// An array that the host gives at each step.
#[derive(Debug, Clone)]
pub enum Array {
    Values(candle_core::Tensor),
    Index(Vec<u32>),
}

impl Array {
    fn bytes(&self) -> usize {
        4 * match self {
            Self::Values(tensor) => tensor.elem_count(),
            Self::Index(index) => index.len(),
        }
    }

    /// Copies it to `to`, which has as many bytes.
    ///
    /// # Errors
    /// When candle fails.
    pub fn write(&self, to: &mut [u8]) -> candle_core::Result<()> {
        let words = to.chunks_exact_mut(4);
        match self {
            Self::Values(tensor) => {
                let values = tensor.flatten_all()?.to_vec1::<f32>()?;
                words.zip(values).for_each(|(to, value)| to.copy_from_slice(&value.to_ne_bytes()));
            }
            Self::Index(index) => words.zip(index).for_each(|(to, i)| to.copy_from_slice(&i.to_ne_bytes())),
        }
        Ok(())
    }
}

/// A structure, and what fills it in one step.
#[derive(Debug, Default)]
pub struct Program {
    pub structure: Structure,
    pub arrays: Vec<Array>,
    pub numbers: Vec<f32>,
}

impl Program {
    /// Of the tensors that are `wanted`.
    pub fn new(wanted: &[Arc<Node>]) -> Self {
        let mut builder = Builder::default();
        let wanted = wanted.iter().map(|node| builder.add(node)).collect();
        let mut program = builder.program;
        program.structure.wanted = wanted;
        program.structure.arrays = program.arrays.iter().map(Array::bytes).collect();
        program.structure.numbers = program.numbers.len();
        program
    }
}

#[derive(Default)]
struct Builder {
    program: Program,
    of_node: HashMap<*const Node, ValueId>,
    /// Equal operations on equal inputs are done once.
    of_value: HashMap<Value, ValueId>,
    of_tensor: HashMap<TensorId, usize>,
}

impl Builder {
    /// Adds a node after its inputs.
    fn add(&mut self, root: &Arc<Node>) -> ValueId {
        let mut open = vec![(Arc::clone(root), false)];
        while let Some((node, is_closed)) = open.pop() {
            if self.of_node.contains_key(&Arc::as_ptr(&node)) {
                continue;
            }
            if !is_closed {
                open.push((Arc::clone(&node), true));
                // The first is opened first.
                open.extend(node.inputs.iter().rev().map(|input| (Arc::clone(input), false)));
                continue;
            }
            let inputs = node.inputs.iter().map(|input| self.of_node[&Arc::as_ptr(input)]).collect();
            let value = Value { kind: self.kind(&node), shape: node.shape.clone(), inputs };
            let values = &mut self.program.structure.values;
            let id = *self.of_value.entry(value.clone()).or_insert(values.len());
            if id == values.len() {
                values.push(value);
            }
            self.of_node.insert(Arc::as_ptr(&node), id);
        }
        self.of_node[&Arc::as_ptr(root)]
    }

    fn kind(&mut self, node: &Node) -> Kind {
        match &node.operation {
            &Operation::Leaf(leaf) => Kind::Leaf(leaf),
            &Operation::Given(given) => Kind::Given(given),
            Operation::Host(tensor) => {
                let known = self.of_tensor.get(&tensor.id()).copied();
                let array = known.unwrap_or_else(|| self.array(Array::Values(tensor.clone())));
                self.of_tensor.insert(tensor.id(), array);
                Kind::Host(array)
            }
            &Operation::Fill(value) => self.pointwise(24, &[value]),
            Operation::Map(map) => {
                let (code, numbers) = map_code(*map);
                self.pointwise(code, numbers.as_slice())
            }
            Operation::Join(join) => self.pointwise(join_code(*join), &[]),
            Operation::Reshape | Operation::Detach => Kind::Same,
            Operation::Sum(axes) => Kind::Sum(axes.clone()),
            &Operation::Max(axis) => Kind::Max(axis),
            Operation::LogSoftmax => Kind::LogSoftmax,
            Operation::OneHotOfMax => Kind::OneHotOfMax,
            Operation::Permute(axes) => Kind::Permute(axes.clone()),
            &Operation::Narrow { axis, start } => Kind::Narrow { axis, start },
            Operation::Expand => Kind::Expand,
            &Operation::Concatenate(axis) => Kind::Concatenate(axis),
            &Operation::Pad { axis, before } => Kind::Pad { axis, before },
            Operation::Gather { axis, index } => {
                Kind::Gather { axis: *axis, index: self.array(Array::Index(index.to_vec())) }
            }
            Operation::Scatter { axis, index } => {
                let (order, starts) = by_place(index, node.shape[*axis]);
                let [index, starts] = [order, starts].map(|array| self.array(Array::Index(array)));
                Kind::Scatter { axis: *axis, index, starts }
            }
            Operation::Multiply => Kind::Multiply,
        }
    }

    fn array(&mut self, array: Array) -> usize {
        self.program.arrays.push(array);
        self.program.arrays.len() - 1
    }

    fn pointwise(&mut self, code: u16, numbers: &[f64]) -> Kind {
        let all = &mut self.program.numbers;
        let number = if numbers.is_empty() { 0 } else { all.len() };
        all.extend(numbers.iter().map(|&number| number as f32));
        Kind::Pointwise { code, number }
    }
}

/// The parts in the order of their places, and where each of the `places` begins there.
fn by_place(index: &[u32], places: usize) -> (Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..index.len() as u32).collect();
    order.sort_by_key(|&part| index[part as usize]);
    let mut starts = vec![0u32; places + 1];
    index.iter().for_each(|&place| starts[place as usize + 1] += 1);
    for place in 0..places {
        starts[place + 1] += starts[place];
    }
    (order, starts)
}

/// The operation's number in `operate` of kernels/losses.cu, and its numbers.
fn map_code(map: Map) -> (u16, Vec<f64>) {
    match map {
        Map::Exp => (0, vec![]),
        Map::Log => (1, vec![]),
        Map::Sqrt => (2, vec![]),
        Map::Square => (3, vec![]),
        Map::Abs => (4, vec![]),
        Map::Negate => (5, vec![]),
        Map::Reciprocal => (6, vec![]),
        Map::Relu => (7, vec![]),
        Map::Sigmoid => (8, vec![]),
        Map::Affine(factor, offset) => (9, vec![factor, offset]),
        Map::Power(exponent) => (10, vec![exponent]),
        Map::AtLeast(least) => (11, vec![least]),
        Map::AtMost(most) => (12, vec![most]),
        Map::Above(bound) => (13, vec![bound]),
        Map::Slope(bound) => (14, vec![bound]),
        Map::FromZero => (15, vec![]),
        Map::Sign => (16, vec![]),
    }
}

fn join_code(join: Join) -> u16 {
    match join {
        Join::Add => 17,
        Join::Subtract => 18,
        Join::Multiply => 19,
        Join::Divide => 20,
        Join::Minimum => 21,
        Join::Maximum => 22,
        Join::Larger => 23,
    }
}
