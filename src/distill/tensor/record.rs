//! A record of operations on tensors: a graph of [`Node`]s, made anew for each step and cheap to make.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{bail, Result};

/// A tensor that is to be computed.
#[derive(Debug)]
pub struct Node {
    pub operation: Operation,
    pub shape: Vec<usize>,
    pub inputs: Vec<Arc<Node>>,
    /// Whether a gradient reaches a [`Leaf`](Operation::Leaf) through it.
    pub is_differentiated: bool,
}

/// How a tensor is computed from its inputs.
#[derive(Debug, Clone)]
pub enum Operation {
    /// What the device has: the number of a tensor there.
    Leaf(usize),
    /// As a leaf, but constant.
    Given(usize),
    /// What the host has, and copies to the device.
    Host(candle_core::Tensor),
    /// One value everywhere.
    Fill(f64),
    Map(Map),
    /// Sizes of 1 stand for any.
    Join(Join),
    /// The same values in the same order, of another shape.
    Reshape,
    Detach,
    /// Along consecutive axes, whose sizes are 1 then.
    Sum(Range<usize>),
    Max(usize),
    /// Over the last axis.
    LogSoftmax,
    /// Of each row of two dimensions.
    OneHotOfMax,
    /// The axes in another order.
    Permute(Vec<usize>),
    /// A part of an axis, from a place on.
    Narrow {
        axis: usize,
        start: usize,
    },
    /// Sizes of 1 repeated.
    Expand,
    /// One after the other along an axis.
    Concatenate(usize),
    /// Zeros before (and after) along an axis.
    Pad {
        axis: usize,
        before: usize,
    },
    /// Parts of an axis.
    Gather {
        axis: usize,
        index: Arc<[u32]>,
    },
    /// Adds each part of an axis to where `index` says.
    Scatter {
        axis: usize,
        index: Arc<[u32]>,
    },
    /// `[batch, m, k]` by `[batch, k, n]`; a batch of 1 stands for any.
    Multiply,
}

/// Of each value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Map {
    Exp,
    Log,
    Sqrt,
    Square,
    Abs,
    Negate,
    Reciprocal,
    Relu,
    Sigmoid,
    /// · factor + offset.
    Affine(f64, f64),
    Power(f64),
    AtLeast(f64),
    AtMost(f64),
    /// 1 above a bound, else 0.
    Above(f64),
    /// 1 above a bound, ½ at it, else 0: the slope of [`AtLeast`](Self::AtLeast).
    Slope(f64),
    /// 1 from 0 on, else 0: the slope of [`Relu`](Self::Relu), as candle has it.
    FromZero,
    /// 1 from 0 on, else −1: the slope of [`Abs`](Self::Abs), as candle has it.
    Sign,
}

/// Of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    Add,
    Subtract,
    Multiply,
    Divide,
    Minimum,
    Maximum,
    /// 1 where the first is larger, ½ where both are equal, else 0: the slope of
    /// [`Maximum`](Self::Maximum).
    Larger,
}

impl Operation {
    /// The tensor of it, of an operation without inputs.
    pub fn of(self, shape: &[usize]) -> Arc<Node> {
        Node::new(self, shape.to_vec(), vec![])
    }
}

impl Node {
    pub fn new(operation: Operation, shape: Vec<usize>, inputs: Vec<Arc<Self>>) -> Arc<Self> {
        let is_differentiated = match operation {
            Operation::Leaf(_) => true,
            Operation::Detach | Operation::OneHotOfMax => false,
            Operation::Map(Map::Above(_) | Map::Slope(_) | Map::FromZero | Map::Sign) => false,
            Operation::Join(Join::Larger) => false,
            _ => inputs.iter().any(|input| input.is_differentiated),
        };
        Arc::new(Self { operation, shape, inputs, is_differentiated })
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }
}

pub fn map(node: &Arc<Node>, map: Map) -> Arc<Node> {
    Node::new(Operation::Map(map), node.shape.clone(), vec![Arc::clone(node)])
}

/// # Errors
/// When the shapes do not agree; so for the next ones.
pub fn join(a: &Arc<Node>, b: &Arc<Node>, how: Join) -> Result<Arc<Node>> {
    let rank = a.shape.len().max(b.shape.len());
    let (a, b) = (with_rank(a, rank)?, with_rank(b, rank)?);
    let mut shape = Vec::with_capacity(rank);
    for (&m, &n) in a.shape.iter().zip(&b.shape) {
        if m != n && m != 1 && n != 1 {
            bail!("{how:?} of {:?} and {:?}", a.shape, b.shape);
        }
        shape.push(if m == 1 { n } else { m });
    }
    Ok(Node::new(Operation::Join(how), shape, vec![a, b]))
}

/// Sizes of 1 added in front.
fn with_rank(node: &Arc<Node>, rank: usize) -> Result<Arc<Node>> {
    if node.shape.len() == rank {
        return Ok(Arc::clone(node));
    }
    let mut shape = vec![1; rank - node.shape.len()];
    shape.extend(&node.shape);
    reshape(node, &shape)
}

pub fn reshape(node: &Arc<Node>, shape: &[usize]) -> Result<Arc<Node>> {
    if node.count() != shape.iter().product::<usize>() {
        bail!("{:?} has not as many values as {shape:?}", node.shape);
    }
    if node.shape == shape {
        return Ok(Arc::clone(node));
    }
    // Of a reshape, that of what it was.
    let from = if let Operation::Reshape = node.operation { &node.inputs[0] } else { node };
    Ok(Node::new(Operation::Reshape, shape.to_vec(), vec![Arc::clone(from)]))
}

fn axis_of(node: &Node, axis: usize) -> Result<usize> {
    match node.shape.get(axis) {
        Some(&size) => Ok(size),
        None => bail!("a tensor of {:?} has no axis {axis}", node.shape),
    }
}

pub fn sum(node: &Arc<Node>, axes: Range<usize>) -> Result<Arc<Node>> {
    if axes.end > node.shape.len() {
        bail!("a tensor of {:?} has not the axes {axes:?}", node.shape);
    }
    let mut shape = node.shape.clone();
    shape[axes.clone()].fill(1);
    if shape == node.shape {
        return Ok(Arc::clone(node));
    }
    Ok(Node::new(Operation::Sum(axes), shape, vec![Arc::clone(node)]))
}

/// The sums that undo a broadcast to the node's shape from `shape`.
pub fn sum_to(node: &Arc<Node>, shape: &[usize]) -> Result<Arc<Node>> {
    let mut node = Arc::clone(node);
    let mut axis = 0;
    while axis < shape.len() {
        let mut end = axis;
        while end < shape.len() && shape[end] == 1 {
            end += 1;
        }
        if end > axis {
            node = sum(&node, axis..end)?;
        }
        axis = end + 1;
    }
    Ok(node)
}

pub fn max(node: &Arc<Node>, axis: usize) -> Result<Arc<Node>> {
    axis_of(node, axis)?;
    let mut shape = node.shape.clone();
    shape[axis] = 1;
    Ok(Node::new(Operation::Max(axis), shape, vec![Arc::clone(node)]))
}

pub fn transpose(node: &Arc<Node>, a: usize, b: usize) -> Result<Arc<Node>> {
    axis_of(node, a.max(b))?;
    let mut axes: Vec<usize> = (0..node.shape.len()).collect();
    axes.swap(a, b);
    Ok(permute(node, axes))
}

pub fn permute(node: &Arc<Node>, axes: Vec<usize>) -> Arc<Node> {
    let shape = axes.iter().map(|&axis| node.shape[axis]).collect();
    Node::new(Operation::Permute(axes), shape, vec![Arc::clone(node)])
}

pub fn narrow(node: &Arc<Node>, axis: usize, start: usize, length: usize) -> Result<Arc<Node>> {
    if start + length > axis_of(node, axis)? {
        bail!("axis {axis} of {:?} does not reach from {start} for {length}", node.shape);
    }
    let mut shape = node.shape.clone();
    shape[axis] = length;
    Ok(Node::new(Operation::Narrow { axis, start }, shape, vec![Arc::clone(node)]))
}

/// Sizes of 1 repeated, up to `shape`.
pub fn expand(node: &Arc<Node>, shape: &[usize]) -> Arc<Node> {
    if node.shape == shape {
        return Arc::clone(node);
    }
    Node::new(Operation::Expand, shape.to_vec(), vec![Arc::clone(node)])
}

pub fn concatenate(nodes: Vec<Arc<Node>>, axis: usize) -> Result<Arc<Node>> {
    let Some(first) = nodes.first() else { bail!("there is nothing to concatenate") };
    let mut shape = first.shape.clone();
    shape[axis] = 0;
    for node in &nodes {
        let size = axis_of(node, axis)?;
        shape[axis] += size;
        let same = node.shape.len() == shape.len()
            && (0..shape.len()).all(|other| other == axis || node.shape[other] == first.shape[other]);
        if !same {
            bail!("{:?} and {:?} cannot be concatenated along axis {axis}", first.shape, node.shape);
        }
    }
    Ok(Node::new(Operation::Concatenate(axis), shape, nodes))
}

pub fn pad(node: &Arc<Node>, axis: usize, before: usize, after: usize) -> Result<Arc<Node>> {
    let mut shape = node.shape.clone();
    shape[axis] = before + axis_of(node, axis)? + after;
    Ok(Node::new(Operation::Pad { axis, before }, shape, vec![Arc::clone(node)]))
}

pub fn gather(node: &Arc<Node>, index: &[u32], axis: usize) -> Result<Arc<Node>> {
    let size = axis_of(node, axis)?;
    if let Some(beyond) = index.iter().find(|&&i| i as usize >= size) {
        bail!("axis {axis} of {:?} has no part {beyond}", node.shape);
    }
    let mut shape = node.shape.clone();
    shape[axis] = index.len();
    Ok(Node::new(Operation::Gather { axis, index: index.into() }, shape, vec![Arc::clone(node)]))
}

pub fn scatter(node: &Arc<Node>, index: Arc<[u32]>, axis: usize, size: usize) -> Result<Arc<Node>> {
    if axis_of(node, axis)? != index.len() || index.iter().any(|&i| i as usize >= size) {
        bail!("{} places of {size} for axis {axis} of {:?}", index.len(), node.shape);
    }
    let mut shape = node.shape.clone();
    shape[axis] = size;
    Ok(Node::new(Operation::Scatter { axis, index }, shape, vec![Arc::clone(node)]))
}

/// Of `[…, m, k]` and `[…, k, n]`, of which either may have no batch.
pub fn matmul(a: &Arc<Node>, b: &Arc<Node>) -> Result<Arc<Node>> {
    let three = |node: &Arc<Node>| match node.shape[..] {
        [rows, columns] => reshape(node, &[1, rows, columns]),
        [_, _, _] => Ok(Arc::clone(node)),
        _ => bail!("{:?} is not a matrix or several", node.shape),
    };
    let flat = a.shape.len() == 2 && b.shape.len() == 2;
    let product = multiply(&three(a)?, &three(b)?)?;
    if flat {
        let shape = product.shape[1..].to_vec();
        return reshape(&product, &shape);
    }
    Ok(product)
}

/// Of `[batch, m, k]` and `[batch, k, n]`.
pub fn multiply(a: &Arc<Node>, b: &Arc<Node>) -> Result<Arc<Node>> {
    let (&[batch, m, k], &[batches, k2, n]) = (&a.shape[..], &b.shape[..]) else {
        bail!("{:?} by {:?}: not three dimensions", a.shape, b.shape)
    };
    if k != k2 || (batch != batches && batch != 1 && batches != 1) {
        bail!("{:?} cannot be multiplied by {:?}", a.shape, b.shape);
    }
    Ok(Node::new(Operation::Multiply, vec![batch.max(batches), m, n], vec![Arc::clone(a), Arc::clone(b)]))
}
