//! The launches of a [`Structure`], and the memory that they need: what is computed value by value is
//! put together where one launch can do it, and views are never copied unless a kernel needs its values
//! in a row.

use peregrine_engine::cuda::launch::{span, Launch, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::plan_memory::{place, Lifetime};

use super::super::arguments::{self as arg, int};
use super::super::kernels::{Precision, BLOCK};
use super::access::Access;
use super::pointwise::Expression;
use super::program::{Kind, Structure, ValueId};

/// What buffers are aligned to, in bytes.
const ALIGNMENT: usize = 256;

/// Up to so many values along an axis a thread takes alone; beyond, a block does.
const NARROW: usize = 64;

/// Values along an axis that a block takes, and beyond how many there are several blocks.
const CHUNK: usize = 4096;

/// Where a structure's surroundings lie.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub precision: Precision,
    /// Of each leaf, and of each constant that the device has.
    pub leaves: Vec<Span>,
    pub given: Vec<Span>,
    /// The host's numbers, and each of its arrays.
    pub numbers: Span,
    pub arrays: Vec<Span>,
    /// Where each tensor that is asked for is written to.
    pub results: Vec<Span>,
}

/// Bytes that the launches need for themselves.
pub fn memory(structure: &Structure, surroundings: &Surroundings) -> usize {
    let mut scheduler = Scheduler::new(structure, surroundings, None);
    scheduler.run();
    scheduler.placed().1
}

/// The launches, with memory of their own from `arena` on.
pub fn nodes(structure: &Structure, surroundings: &Surroundings, arena: u64) -> Vec<Node> {
    // Once to see how long each buffer is needed, and once with the buffers in place.
    let mut first = Scheduler::new(structure, surroundings, None);
    first.run();
    let offsets = first.placed().0.into_iter().map(|offset| arena + offset as u64).collect();
    let mut second = Scheduler::new(structure, surroundings, Some(offsets));
    second.run();
    second.nodes
}

/// A tensor that is not written yet, or where it is.
#[derive(Clone)]
enum State {
    Missing,
    /// Computed where it is read.
    Expression(Expression),
    At(Access),
}

struct Scheduler<'a> {
    structure: &'a Structure,
    surroundings: &'a Surroundings,
    /// How often each value is read.
    readers: Vec<usize>,
    states: Vec<State>,
    buffers: Vec<Lifetime>,
    /// The buffers' addresses, once they are known.
    addresses: Option<Vec<u64>>,
    nodes: Vec<Node>,
}

/// Buffers have made-up addresses first, far from all others.
const UNPLACED: u64 = 1 << 56;
const APART: u64 = 1 << 36;

impl<'a> Scheduler<'a> {
    fn new(structure: &'a Structure, surroundings: &'a Surroundings, addresses: Option<Vec<u64>>) -> Self {
        let mut readers = vec![0; structure.values.len()];
        structure.values.iter().flat_map(|value| &value.inputs).for_each(|&input| readers[input] += 1);
        structure.wanted.iter().for_each(|&wanted| readers[wanted] += 1);
        let states = vec![State::Missing; structure.values.len()];
        Self { structure, surroundings, readers, states, buffers: vec![], addresses, nodes: vec![] }
    }

    fn placed(&self) -> (Vec<usize>, usize) {
        place(&self.buffers)
    }

    fn run(&mut self) {
        for id in 0..self.structure.values.len() {
            self.states[id] = self.value(id);
            self.leave_out_of_others(id);
        }
        for (i, &wanted) in self.structure.wanted.iter().enumerate() {
            let result = Access::plain(self.surroundings.results[i].clone(), self.shape(wanted));
            let expression = self.expression(wanted);
            self.pointwise(&expression, &result);
        }
    }

    /// What several read is computed once, unless nothing is to be read for it.
    fn leave_out_of_others(&mut self, id: ValueId) {
        if let State::Expression(expression) = &self.states[id] {
            if self.readers[id] > 1 && !expression.inputs.is_empty() {
                self.written(id);
            }
        }
    }

    fn value(&mut self, id: ValueId) -> State {
        let (structure, from) = (self.structure, self.surroundings);
        let value = &structure.values[id];
        let (shape, inputs) = (&value.shape[..], &value.inputs[..]);
        let at = |span: &Span| State::At(Access::plain(span.clone(), shape));
        match &value.kind {
            &Kind::Leaf(leaf) => at(&from.leaves[leaf]),
            &Kind::Given(given) => at(&from.given[given]),
            &Kind::Host(array) => at(&from.arrays[array]),
            &Kind::Pointwise { code, number } => self.combined(code, number, shape, inputs),
            Kind::Same => State::At(self.plain(inputs[0]).with_shape(shape)),
            Kind::Permute(axes) => State::At(self.written(inputs[0]).permuted(axes)),
            &Kind::Narrow { axis, start } => State::At(self.written(inputs[0]).narrowed(axis, start, shape[axis])),
            Kind::Expand => match &self.states[inputs[0]] {
                // One value everywhere stays that.
                State::Expression(one) if one.inputs.is_empty() => State::Expression(one.clone()),
                _ => State::At(self.written(inputs[0]).expanded(shape)),
            },
            Kind::Sum(axes) => self.along(id, axes.start, axes.end, false),
            &Kind::Max(axis) => self.along(id, axis, axis + 1, true),
            Kind::LogSoftmax => {
                let kernels = ["log_softmax", "log_softmax_wide"];
                self.rows(id, kernels)
            }
            Kind::OneHotOfMax => self.rows(id, ["one_hot_of_max"; 2]),
            &Kind::Concatenate(axis) => {
                let result = self.buffer(shape);
                let mut start = 0;
                for &input in inputs {
                    let size = self.shape(input)[axis];
                    let expression = self.expression(input);
                    self.pointwise(&expression, &result.narrowed(axis, start, size));
                    start += size;
                }
                State::At(result)
            }
            &Kind::Pad { axis, before } => {
                let result = self.buffer(shape);
                let zero = Expression::zero();
                let (size, whole) = (self.shape(inputs[0])[axis], shape[axis]);
                let expression = self.expression(inputs[0]);
                for (start, length) in [(0, before), (before + size, whole - before - size)] {
                    if length > 0 {
                        self.pointwise(&zero, &result.narrowed(axis, start, length));
                    }
                }
                self.pointwise(&expression, &result.narrowed(axis, before, size));
                State::At(result)
            }
            &Kind::Gather { axis, index } => self.parts(id, axis, index, None),
            &Kind::Scatter { axis, index, starts } => self.parts(id, axis, index, Some(starts)),
            Kind::Multiply => self.product(id),
        }
    }

    fn shape(&self, id: ValueId) -> &'a [usize] {
        &self.structure.values[id].shape
    }

    /// An operation value by value, together with those of its inputs where one launch can do all.
    fn combined(&mut self, code: u16, number: usize, shape: &[usize], inputs: &[ValueId]) -> State {
        let mut operands = Vec::with_capacity(2);
        for &input in inputs {
            // What is repeated is computed once.
            let is_repeated = self.shape(input) != shape;
            let expression = match &self.states[input] {
                State::Expression(expression) if !is_repeated || expression.inputs.is_empty() => expression.clone(),
                _ => Expression::of(self.written(input)),
            };
            operands.push(expression);
        }
        let together = |operands: &[Expression]| Expression::apply(code, number, &operands.iter().collect::<Vec<_>>());
        if let Some(all) = together(&operands) {
            return State::Expression(all);
        }
        // The inputs apart.
        for (operand, &input) in operands.iter_mut().zip(inputs) {
            *operand = Expression::of(self.written(input));
        }
        State::Expression(together(&operands).expect("one operation fits into a launch"))
    }

    /// The values of a tensor, to be computed further.
    fn expression(&mut self, id: ValueId) -> Expression {
        match &self.states[id] {
            State::Expression(expression) => expression.clone(),
            _ => Expression::of(self.written(id)),
        }
    }

    /// Where a tensor's values are; computes them, if they were to be computed where they are read.
    fn written(&mut self, id: ValueId) -> Access {
        match &self.states[id] {
            State::Missing => unreachable!("inputs come first"),
            State::At(access) => access.clone(),
            State::Expression(expression) => {
                let expression = expression.clone();
                let result = self.buffer(self.shape(id));
                self.pointwise(&expression, &result);
                self.states[id] = State::At(result.clone());
                result
            }
        }
    }

    /// The same, one value after the other.
    fn plain(&mut self, id: ValueId) -> Access {
        let access = self.written(id);
        if access.is_plain() {
            return access;
        }
        let result = self.buffer(&access.sizes);
        self.pointwise(&Expression::of(access), &result);
        self.states[id] = State::At(result.clone());
        result
    }

    fn buffer(&mut self, shape: &[usize]) -> Access {
        let bytes = (4 * shape.iter().product::<usize>()).max(4);
        let id = self.buffers.len();
        let now = self.nodes.len();
        self.buffers.push(Lifetime { size: bytes.next_multiple_of(ALIGNMENT), first: now, last: now });
        let start = match &self.addresses {
            Some(addresses) => addresses[id],
            None => UNPLACED + id as u64 * APART,
        };
        Access::plain(span(start, bytes), shape)
    }

    fn pointwise(&mut self, expression: &Expression, result: &Access) {
        let argument = expression.argument(result, self.surroundings.numbers.start);
        let mut reads: Vec<Span> = expression.inputs.iter().map(|input| input.span.clone()).collect();
        reads.push(self.surroundings.numbers.clone());
        self.flat("pointwise", argument.count as usize, &argument, reads, result);
    }

    fn along(&mut self, id: ValueId, first: usize, end: usize, largest: bool) -> State {
        let input = self.structure.values[id].inputs[0];
        let (from, sizes) = (self.plain(input), self.shape(input));
        let [outer, n, inner] =
            [&sizes[..first], &sizes[first..end], &sizes[end..]].map(|s| s.iter().product::<usize>());
        let chunks = if n > 4 * CHUNK { n.div_ceil(CHUNK) } else { 1 };
        let argument = arg::Along {
            input: from.start,
            outer: int(outer),
            n: int(n),
            inner: int(inner),
            chunk: int(n.div_ceil(chunks)),
            chunks: int(chunks),
            largest: i32::from(largest),
            result: 0,
        };
        let result = self.reduce(argument, &from);
        if chunks == 1 {
            return State::At(result.with_shape(self.shape(id)));
        }
        let argument = arg::Along { input: result.start, n: int(chunks), chunk: int(chunks), chunks: 1, ..argument };
        State::At(self.reduce(argument, &result).with_shape(self.shape(id)))
    }

    fn reduce(&mut self, argument: arg::Along, from: &Access) -> Access {
        let count = (argument.outer * argument.chunks * argument.inner) as usize;
        let result = self.buffer(&[count]);
        let argument = arg::Along { result: result.start, ..argument };
        let reads = vec![from.span.clone()];
        if argument.chunk as usize <= NARROW {
            self.flat("along", count, &argument, reads, &result);
        } else {
            self.launch("along_wide", count, &argument, reads, &result);
        }
        result
    }

    /// An operation on rows: by a thread for each, or a block.
    fn rows(&mut self, id: ValueId, [narrow, wide]: [&str; 2]) -> State {
        let from = self.plain(self.structure.values[id].inputs[0]);
        let shape = self.shape(id);
        let n = shape.last().copied().unwrap_or(1);
        let rows = shape.iter().product::<usize>() / n.max(1);
        let result = self.buffer(shape);
        let argument = arg::Rows { input: from.start, result: result.start, rows: int(rows), n: int(n) };
        let reads = vec![from.span];
        if n <= NARROW || narrow == wide {
            self.flat(narrow, rows, &argument, reads, &result);
        } else {
            self.launch(wide, rows, &argument, reads, &result);
        }
        State::At(result)
    }

    fn parts(&mut self, id: ValueId, axis: usize, index: usize, starts: Option<usize>) -> State {
        let input = self.structure.values[id].inputs[0];
        let (from, sizes, shape) = (self.plain(input), self.shape(input), self.shape(id));
        let arrays = &self.surroundings.arrays;
        let mut reads = vec![from.span.clone(), arrays[index].clone()];
        reads.extend(starts.map(|starts| arrays[starts].clone()));
        let (index, starts) = (arrays[index].start, starts.map_or(0, |starts| arrays[starts].start));
        let result = self.buffer(shape);
        let argument = arg::Parts {
            input: from.start,
            result: result.start,
            index,
            starts,
            outer: int(sizes[..axis].iter().product()),
            n: int(sizes[axis]),
            inner: int(sizes[axis + 1..].iter().product()),
            parts: int(shape[axis]),
        };
        let kernel = if starts == 0 { "gather" } else { "scatter" };
        self.flat(kernel, shape.iter().product(), &argument, reads, &result);
        State::At(result)
    }

    fn product(&mut self, id: ValueId) -> State {
        let inputs = &self.structure.values[id].inputs;
        let shape = self.shape(id);
        let [first, second] = [inputs[0], inputs[1]].map(|input| {
            let access = self.written(input);
            let sizes = [shape[0], access.sizes[1], access.sizes[2]];
            access.expanded(&sizes)
        });
        let result = self.buffer(shape);
        let strides = |access: &Access| [0, 1, 2].map(|axis| int(access.strides[axis]));
        let argument = arg::Product {
            first: first.start,
            second: second.start,
            result: result.start,
            first_strides: strides(&first),
            second_strides: strides(&second),
            batch: int(shape[0]),
            m: int(shape[1]),
            k: int(first.sizes[2]),
            n: int(shape[2]),
        };
        self.flat("product", shape.iter().product(), &argument, vec![first.span, second.span], &result);
        State::At(result)
    }

    /// A kernel of which each thread makes one of `count` values.
    fn flat(&mut self, kernel: &str, count: usize, argument: &impl Plain, reads: Vec<Span>, result: &Access) {
        self.launch(kernel, count.div_ceil(BLOCK), argument, reads, result);
    }

    /// A kernel of so many blocks.
    fn launch(&mut self, kernel: &str, blocks: usize, argument: &impl Plain, reads: Vec<Span>, result: &Access) {
        let now = self.nodes.len();
        if self.addresses.is_none() {
            for span in reads.iter().chain([&result.span]).filter(|span| span.start >= UNPLACED) {
                self.buffers[((span.start - UNPLACED) / APART) as usize].last = now;
            }
        }
        let launch = Launch {
            kernel: self.surroundings.precision.kernel(kernel),
            grid: [int(blocks.max(1)) as u32, 1, 1],
            threads: BLOCK as u32,
            argument: argument.bytes(),
        };
        let name = format!("loss {now} {kernel}");
        self.nodes.push(Node { name, work: NodeWork::Kernel(launch), reads, writes: vec![result.span.clone()] });
    }
}
