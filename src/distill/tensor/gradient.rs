//! The gradients of a recorded scalar, recorded too: reverse-mode differentiation, node by node. Where
//! a function has a kink they are candle's.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::{bail, Result};

use super::record::{self, Join, Map, Node, Operation};

type Found = Vec<(Arc<Node>, Arc<Node>)>;

/// Each leaf that `scalar` depends on, by its number, with the gradient in it.
///
/// # Errors
/// When `scalar` is none, or an operation is in it that is not differentiated.
pub fn gradients(scalar: &Arc<Node>) -> Result<Vec<(usize, Arc<Node>)>> {
    if scalar.count() != 1 {
        bail!("only a scalar is differentiated, not {:?}", scalar.shape);
    }
    let order = order(scalar);
    let mut sums: HashMap<*const Node, Arc<Node>> = HashMap::new();
    sums.insert(Arc::as_ptr(scalar), Operation::Fill(1.0).of(&scalar.shape));
    let mut leaves = Vec::new();
    for node in order.iter().rev() {
        let Some(gradient) = sums.remove(&Arc::as_ptr(node)) else { continue };
        if let Operation::Leaf(number) = node.operation {
            leaves.push((number, gradient));
            continue;
        }
        for (input, more) in of_inputs(node, &gradient)? {
            debug_assert_eq!(input.shape, more.shape, "{:?}", node.operation);
            let sum = match sums.remove(&Arc::as_ptr(&input)) {
                Some(sum) => record::join(&sum, &more, Join::Add)?,
                None => more,
            };
            sums.insert(Arc::as_ptr(&input), sum);
        }
    }
    leaves.sort_by_key(|(number, _)| *number);
    Ok(leaves)
}

/// The nodes through which gradients pass, inputs first.
fn order(root: &Arc<Node>) -> Vec<Arc<Node>> {
    let mut seen = std::collections::HashSet::new();
    let mut order = Vec::new();
    // Each node twice: to be opened, and to be closed once its inputs are.
    let mut open = vec![(Arc::clone(root), false)];
    while let Some((node, is_closed)) = open.pop() {
        if is_closed {
            order.push(node);
        } else if node.is_differentiated && seen.insert(Arc::as_ptr(&node)) {
            open.push((Arc::clone(&node), true));
            open.extend(node.inputs.iter().map(|input| (Arc::clone(input), false)));
        }
    }
    order
}

/// What each input that is differentiated gets of `gradient`, that of `node`.
fn of_inputs(node: &Arc<Node>, gradient: &Arc<Node>) -> Result<Found> {
    let mut found = Found::new();
    let mut give = |at: usize, gradient: Result<Arc<Node>>| -> Result<()> {
        found.push((Arc::clone(&node.inputs[at]), gradient?));
        Ok(())
    };
    let input = |at: usize| &node.inputs[at];
    match &node.operation {
        Operation::Map(map) => give(0, of_map(*map, input(0), node, gradient))?,
        Operation::Join(how) => {
            for (at, part) in of_join(*how, node, gradient)?.into_iter().enumerate() {
                if input(at).is_differentiated {
                    give(at, record::sum_to(&part, &input(at).shape))?;
                }
            }
        }
        Operation::Reshape => give(0, record::reshape(gradient, &input(0).shape))?,
        Operation::Sum(_) => give(0, Ok(record::expand(gradient, &input(0).shape)))?,
        Operation::Expand => give(0, record::sum_to(gradient, &input(0).shape))?,
        Operation::LogSoftmax => {
            let axis = node.shape.len() - 1;
            let whole = record::sum(gradient, axis..axis + 1)?;
            let share = record::join(&record::map(node, Map::Exp), &whole, Join::Multiply)?;
            give(0, record::join(gradient, &share, Join::Subtract))?;
        }
        Operation::Permute(axes) => {
            let mut back = vec![0; axes.len()];
            axes.iter().enumerate().for_each(|(to, &from)| back[from] = to);
            give(0, Ok(record::permute(gradient, back)))?;
        }
        &Operation::Narrow { axis, start } => {
            let after = input(0).shape[axis] - start - node.shape[axis];
            give(0, record::pad(gradient, axis, start, after))?;
        }
        &Operation::Pad { axis, before } => give(0, record::narrow(gradient, axis, before, input(0).shape[axis]))?,
        &Operation::Concatenate(axis) => {
            let mut start = 0;
            for at in 0..node.inputs.len() {
                let size = input(at).shape[axis];
                if input(at).is_differentiated {
                    give(at, record::narrow(gradient, axis, start, size))?;
                }
                start += size;
            }
        }
        Operation::Gather { axis, index } => {
            give(0, record::scatter(gradient, Arc::clone(index), *axis, input(0).shape[*axis]))?;
        }
        Operation::Scatter { axis, index } => give(0, record::gather(gradient, index, *axis))?,
        Operation::Multiply => {
            let (a, b) = (input(0), input(1));
            if a.is_differentiated {
                let part = record::multiply(gradient, &record::transpose(b, 1, 2)?)?;
                give(0, record::sum_to(&part, &a.shape))?;
            }
            if b.is_differentiated {
                let part = record::multiply(&record::transpose(a, 1, 2)?, gradient)?;
                give(1, record::sum_to(&part, &b.shape))?;
            }
        }
        other @ (Operation::Max(_)
        | Operation::Leaf(_)
        | Operation::Given(_)
        | Operation::Host(_)
        | Operation::Fill(_)
        | Operation::Detach
        | Operation::OneHotOfMax) => bail!("{other:?} is not differentiated"),
    }
    Ok(found)
}

fn of_map(map: Map, x: &Arc<Node>, y: &Arc<Node>, gradient: &Arc<Node>) -> Result<Arc<Node>> {
    let times = |slope: &Arc<Node>| record::join(gradient, slope, Join::Multiply);
    let scaled = |node: &Arc<Node>, factor: f64| record::map(node, Map::Affine(factor, 0.0));
    match map {
        Map::Exp => times(y),
        Map::Log => record::join(gradient, x, Join::Divide),
        Map::Sqrt => Ok(scaled(&record::join(gradient, y, Join::Divide)?, 0.5)),
        Map::Square => Ok(scaled(&times(x)?, 2.0)),
        Map::Abs => times(&record::map(x, Map::Sign)),
        Map::Negate => Ok(record::map(gradient, Map::Negate)),
        Map::Reciprocal => Ok(record::map(&times(&record::map(y, Map::Square))?, Map::Negate)),
        Map::Relu => times(&record::map(x, Map::FromZero)),
        Map::Sigmoid => times(&record::join(y, &record::map(y, Map::Affine(-1.0, 1.0)), Join::Multiply)?),
        Map::Affine(factor, _) => Ok(scaled(gradient, factor)),
        Map::Power(e) => times(&scaled(&record::map(x, Map::Power(e - 1.0)), e)),
        Map::AtLeast(least) => times(&record::map(x, Map::Slope(least))),
        // 1 below, ½ at the bound.
        Map::AtMost(most) => times(&record::map(&record::map(x, Map::Slope(most)), Map::Affine(-1.0, 1.0))),
        Map::Above(_) | Map::Slope(_) | Map::FromZero | Map::Sign => bail!("{map:?} is not differentiated"),
    }
}

/// The gradients of both inputs, before broadcasts are undone.
fn of_join(how: Join, node: &Arc<Node>, gradient: &Arc<Node>) -> Result<[Arc<Node>; 2]> {
    let (a, b) = (&node.inputs[0], &node.inputs[1]);
    let times = |slope: &Arc<Node>| record::join(gradient, slope, Join::Multiply);
    let same = || Arc::clone(gradient);
    Ok(match how {
        Join::Add => [same(), same()],
        Join::Subtract => [same(), record::map(gradient, Map::Negate)],
        Join::Multiply => [times(b)?, times(a)?],
        Join::Divide => {
            let of_first = record::join(gradient, b, Join::Divide)?;
            let of_second = record::map(&record::join(&of_first, node, Join::Multiply)?, Map::Negate);
            [of_first, of_second]
        }
        Join::Maximum => [times(&record::join(a, b, Join::Larger)?)?, times(&record::join(b, a, Join::Larger)?)?],
        Join::Minimum => [times(&record::join(b, a, Join::Larger)?)?, times(&record::join(a, b, Join::Larger)?)?],
        Join::Larger => bail!("{how:?} is not differentiated"),
    })
}
