//! Operations on constants, which exporters leave in a file: shapes and what is computed of them,
//! and weights that are stored in another layout.

use anyhow::{bail, ensure, Context};

use super::constant::{Constant, Values, MAX_FOLDED};
use super::model::Attributes;
use crate::export::messages::{Node, DOUBLE, FLOAT, FLOAT16};

/// The result of `node`, all of whose `inputs` are constants (`None`: left out); `None` where it is
/// of an operation that is not folded.
///
/// # Errors
/// When the operation does not fit its operands.
pub fn fold(node: &Node, inputs: &[Option<&Constant>]) -> anyhow::Result<Option<Constant>> {
    let input = |i: usize| inputs.get(i).copied().flatten().with_context(|| format!("lacks its operand {i}"));
    let axes = |i: usize| -> anyhow::Result<Vec<i64>> {
        match inputs.get(i).copied().flatten() {
            Some(given) => Ok(given.as_ints().context("has axes that are no integers")?.to_vec()),
            None => Ok(node.int_list("axes").unwrap_or_default().to_vec()),
        }
    };
    Ok(Some(match node.op_type.as_str() {
        "Identity" => input(0)?.clone(),
        "Cast" => cast(input(0)?, node.int_or("to", i64::from(FLOAT))),
        "Floor" => floats(input(0)?, f32::floor),
        "Ceil" => floats(input(0)?, f32::ceil),
        "Sqrt" => floats(input(0)?, f32::sqrt),
        "Neg" => arithmetic("Sub", &Constant::ints(vec![0]), input(0)?)?,
        "Add" | "Sub" | "Mul" | "Div" => arithmetic(&node.op_type, input(0)?, input(1)?)?,
        "Concat" => concat(inputs, node.int_or("axis", 0))?,
        "Gather" => gather(input(0)?, input(1)?, node.int_or("axis", 0))?,
        "Unsqueeze" => unsqueeze(input(0)?, &axes(1)?)?,
        "Squeeze" => squeeze(input(0)?, &axes(1)?)?,
        "Reshape" => {
            let from = input(0)?;
            let shape = input(1)?.as_ints().context("has a shape that is no integers")?;
            Constant { dims: reshaped(&from.dims, shape)?, values: from.values.clone() }
        }
        "Transpose" => transpose(input(0)?, node.int_list("perm"))?,
        "Slice" => slice(node, inputs)?,
        "ConstantOfShape" => {
            let dims = reshaped_dims(input(0)?.as_ints().context("has a shape that is no integers")?)?;
            let value = match node.attribute("value").and_then(|a| a.t.as_ref()) {
                Some(tensor) => Constant::read(tensor)?,
                None => Constant { dims: vec![1], values: Values::Floats(vec![0.0]) },
            };
            ensure!(value.values.len() == 1, "fills with more than one value");
            let count = dims.iter().product();
            Constant { dims, values: value.values.select(std::iter::repeat_n(0, count)) }
        }
        _ => return Ok(None),
    }))
}

/// The dimensions that `shape` asks for, of a tensor of dimensions `from`: 0 keeps one, −1 takes
/// what remains.
///
/// # Errors
/// When there is no such shape of as many values.
pub fn reshaped(from: &[usize], shape: &[i64]) -> anyhow::Result<Vec<usize>> {
    let count: usize = from.iter().product();
    let mut dims = Vec::with_capacity(shape.len());
    let mut free = None;
    for (i, &d) in shape.iter().enumerate() {
        dims.push(match d {
            0 => *from.get(i).context("keeps a dimension that there is not")?,
            -1 if free.is_none() => {
                free = Some(i);
                1
            }
            d => usize::try_from(d).context("has a negative dimension")?,
        });
    }
    let known = dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d)).context("is too large")?;
    if let Some(at) = free {
        ensure!(known > 0 && count.is_multiple_of(known), "does not divide {from:?} into {shape:?}");
        dims[at] = count / known;
    }
    ensure!(dims.iter().product::<usize>() == count, "cannot make {shape:?} of {from:?}");
    Ok(dims)
}

/// Dimensions of a tensor to be made, within bounds.
fn reshaped_dims(shape: &[i64]) -> anyhow::Result<Vec<usize>> {
    let dims: Result<Vec<_>, _> = shape.iter().map(|&d| usize::try_from(d)).collect();
    let dims = dims.context("has a negative dimension")?;
    let count = dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    ensure!(count.is_some_and(|count| count <= MAX_FOLDED), "makes a constant of {dims:?}, which is too large");
    Ok(dims)
}

/// `axis` of a tensor of `rank` dimensions, counted from the end if negative.
///
/// # Errors
/// When there is no such axis.
pub fn axis_of(axis: i64, rank: usize) -> anyhow::Result<usize> {
    let at = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(at).ok().filter(|&at| at < rank).with_context(|| format!("has axis {axis}, of {rank} dimensions"))
}

fn cast(from: &Constant, to: i64) -> Constant {
    let to_float = [FLOAT, FLOAT16, DOUBLE].contains(&(to as i32));
    let values = match &from.values {
        Values::Ints(v) if to_float => Values::Floats(v.iter().map(|&v| v as f32).collect()),
        Values::Floats(v) if !to_float => Values::Ints(v.iter().map(|&v| v as i64).collect()),
        same => same.clone(),
    };
    Constant { dims: from.dims.clone(), values }
}

fn floats(from: &Constant, f: impl Fn(f32) -> f32) -> Constant {
    Constant { dims: from.dims.clone(), values: Values::Floats(from.floats().into_iter().map(f).collect()) }
}

/// For each place of a result the indices of its two operands.
type Pairs = Vec<(usize, usize)>;

/// The shape that two shapes broadcast to, and for each of its places the indices of the operands.
fn broadcast(a: &[usize], b: &[usize]) -> anyhow::Result<(Vec<usize>, Pairs)> {
    let rank = a.len().max(b.len());
    let padded = |dims: &[usize]| [vec![1; rank - dims.len()], dims.to_vec()].concat();
    let (a, b) = (padded(a), padded(b));
    let fits = a.iter().zip(&b).all(|(&x, &y)| x == y || x == 1 || y == 1);
    ensure!(fits, "broadcasts {a:?} and {b:?}");
    let dims: Vec<usize> = a.iter().zip(&b).map(|(&x, &y)| if x == 1 { y } else { x }).collect();
    let count = dims.iter().try_fold(1usize, |p, &d| p.checked_mul(d));
    ensure!(count.is_some_and(|count| count <= MAX_FOLDED), "makes a constant of {dims:?}, which is too large");
    let index = |of: &[usize], mut at: usize| {
        let (mut index, mut step) = (0, 1);
        for d in (0..rank).rev() {
            if of[d] > 1 {
                index += at % dims[d] * step;
            }
            at /= dims[d];
            step *= of[d];
        }
        index
    };
    let pairs = (0..count.unwrap_or(0)).map(|at| (index(&a, at), index(&b, at))).collect();
    Ok((dims, pairs))
}

fn arithmetic(op: &str, a: &Constant, b: &Constant) -> anyhow::Result<Constant> {
    let (dims, pairs) = broadcast(&a.dims, &b.dims)?;
    let values = match (&a.values, &b.values) {
        (Values::Ints(a), Values::Ints(b)) => {
            let of = |&(i, j): &(usize, usize)| match op {
                "Add" => a[i].checked_add(b[j]),
                "Sub" => a[i].checked_sub(b[j]),
                "Mul" => a[i].checked_mul(b[j]),
                _ => a[i].checked_div(b[j]),
            };
            Values::Ints(pairs.iter().map(of).collect::<Option<_>>().context("overflows, or divides by zero")?)
        }
        _ => {
            let (a, b) = (a.floats(), b.floats());
            let of = |&(i, j): &(usize, usize)| match op {
                "Add" => a[i] + b[j],
                "Sub" => a[i] - b[j],
                "Mul" => a[i] * b[j],
                _ => a[i] / b[j],
            };
            Values::Floats(pairs.iter().map(of).collect())
        }
    };
    Ok(Constant { dims, values })
}

/// Lists and single values, one after the other: what shapes are put together by.
fn concat(inputs: &[Option<&Constant>], axis: i64) -> anyhow::Result<Constant> {
    let parts = inputs.iter().copied().collect::<Option<Vec<_>>>().context("lacks an operand")?;
    ensure!(!parts.is_empty() && parts.iter().all(|p| p.dims.len() == 1), "concatenates constants that are no lists");
    axis_of(axis, 1)?;
    let ints: Option<Vec<&[i64]>> = parts.iter().map(|p| p.as_ints()).collect();
    Ok(match ints {
        Some(ints) => Constant::ints(ints.concat()),
        None => {
            let values = parts.iter().flat_map(|p| p.floats()).collect::<Vec<_>>();
            Constant { dims: vec![values.len()], values: Values::Floats(values) }
        }
    })
}

fn gather(from: &Constant, indices: &Constant, axis: i64) -> anyhow::Result<Constant> {
    let axis = axis_of(axis, from.dims.len())?;
    let size = from.dims[axis];
    let indices_list = indices.as_ints().context("has indices that are no integers")?;
    let at = indices_list.iter().map(|&i| usize::try_from(if i < 0 { i + size as i64 } else { i }).ok());
    let at: Option<Vec<usize>> = at.map(|i| i.filter(|&i| i < size)).collect();
    let at = at.with_context(|| format!("takes {indices_list:?} of {size}"))?;
    let inner: usize = from.dims[axis + 1..].iter().product();
    let outer: usize = from.dims[..axis].iter().product();
    ensure!((outer * inner).saturating_mul(at.len()) <= MAX_FOLDED, "makes a constant that is too large");
    let at = &at;
    let all =
        (0..outer).flat_map(|o| at.iter().flat_map(move |&i| (0..inner).map(move |k| (o * size + i) * inner + k)));
    let dims = [&from.dims[..axis], &indices.dims[..], &from.dims[axis + 1..]].concat();
    Ok(Constant { dims, values: from.values.select(all) })
}

fn unsqueeze(from: &Constant, axes: &[i64]) -> anyhow::Result<Constant> {
    let rank = from.dims.len() + axes.len();
    let at = axes.iter().map(|&a| axis_of(a, rank)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut kept = from.dims.iter();
    let dims: Option<Vec<usize>> =
        (0..rank).map(|i| if at.contains(&i) { Some(1) } else { kept.next().copied() }).collect();
    Ok(Constant { dims: dims.context("names an axis twice")?, values: from.values.clone() })
}

fn squeeze(from: &Constant, axes: &[i64]) -> anyhow::Result<Constant> {
    let rank = from.dims.len();
    let at = axes.iter().map(|&a| axis_of(a, rank)).collect::<anyhow::Result<Vec<_>>>()?;
    ensure!(at.iter().all(|&a| from.dims[a] == 1), "squeezes a dimension that is not 1");
    let goes = |i: usize| from.dims[i] == 1 && (at.is_empty() || at.contains(&i));
    let dims = (0..rank).filter(|&i| !goes(i)).map(|i| from.dims[i]).collect();
    Ok(Constant { dims, values: from.values.clone() })
}

fn transpose(from: &Constant, perm: Option<&[i64]>) -> anyhow::Result<Constant> {
    let rank = from.dims.len();
    let perm = match perm {
        Some(perm) => perm.iter().map(|&p| axis_of(p, rank)).collect::<anyhow::Result<Vec<_>>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    ensure!(sorted.iter().copied().eq(0..rank), "has the permutation {perm:?} of {rank} dimensions");
    let mut steps = vec![1; rank];
    (0..rank.saturating_sub(1)).rev().for_each(|i| steps[i] = steps[i + 1] * from.dims[i + 1]);
    let dims: Vec<usize> = perm.iter().map(|&p| from.dims[p]).collect();
    let index = |mut at: usize| {
        let mut index = 0;
        for d in (0..rank).rev() {
            index += at % dims[d] * steps[perm[d]];
            at /= dims[d];
        }
        index
    };
    let values = from.values.select((0..from.values.len()).map(index));
    Ok(Constant { dims, values })
}

/// A slice of a list: what takes height and width out of a shape.
fn slice(node: &Node, inputs: &[Option<&Constant>]) -> anyhow::Result<Constant> {
    let from = inputs.first().copied().flatten().context("lacks its operand")?;
    if from.dims.len() != 1 {
        bail!("slices a constant that is no list");
    }
    let of = |i: usize, name: &str| match inputs.get(i).copied().flatten() {
        Some(given) => given.as_ints().and_then(|v| v.first().copied()),
        None => node.int_list(name).and_then(|v| v.first().copied()),
    };
    let len = from.dims[0] as i64;
    let bound = |v: i64| if v < 0 { v.saturating_add(len) } else { v }.clamp(0, len) as usize;
    let (first, past) = (of(1, "starts").context("has no start")?, of(2, "ends").context("has no end")?);
    let step = of(4, "steps").unwrap_or(1);
    ensure!(step > 0, "slices a constant backwards");
    let indices: Vec<usize> = (bound(first)..bound(past)).step_by(step as usize).collect();
    Ok(Constant { dims: vec![indices.len()], values: from.values.select(indices.into_iter()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(dims: &[usize], values: &[i64]) -> Constant {
        Constant { dims: dims.to_vec(), values: Values::Ints(values.to_vec()) }
    }

    fn run(node: Node, inputs: &[&Constant]) -> anyhow::Result<Option<Constant>> {
        fold(&node, &inputs.iter().map(|&c| Some(c)).collect::<Vec<_>>())
    }

    #[test]
    fn shape_arithmetic_gives_what_numpy_gives() {
        let shape = ints(&[4], &[1, 8, 6, 5]);
        let height = run(Node::new("Gather", &[], "h").int("axis", 0), &[&shape, &ints(&[], &[2])]).unwrap().unwrap();
        assert_eq!(height, ints(&[], &[6]));
        let list = run(Node::new("Unsqueeze", &[], "u"), &[&height, &ints(&[1], &[0])]).unwrap().unwrap();
        let doubled = run(Node::new("Mul", &[], "m"), &[&list, &ints(&[], &[2])]).unwrap().unwrap();
        let tail = run(
            Node::new("Slice", &[], "s"),
            &[&shape, &ints(&[1], &[-1]), &ints(&[1], &[i64::MAX]), &ints(&[1], &[0])],
        );
        let both = run(Node::new("Concat", &[], "c").int("axis", 0), &[&doubled, &tail.unwrap().unwrap()]);
        assert_eq!(both.unwrap().unwrap(), ints(&[2], &[12, 5]));
    }

    #[test]
    fn a_transpose_and_a_broadcast_move_values_as_numpy_does() {
        let a = ints(&[2, 3], &[0, 1, 2, 3, 4, 5]);
        let turned = run(Node::new("Transpose", &[], "t"), &[&a]).unwrap().unwrap();
        assert_eq!(turned, ints(&[3, 2], &[0, 3, 1, 4, 2, 5]));
        let row = ints(&[1, 2], &[10, 20]);
        let sum = run(Node::new("Add", &[], "a"), &[&turned, &row]).unwrap().unwrap();
        assert_eq!(sum, ints(&[3, 2], &[10, 23, 11, 24, 12, 25]));
        let taken = run(Node::new("Gather", &[], "g").int("axis", 1), &[&a, &ints(&[2], &[2, 0])]).unwrap().unwrap();
        assert_eq!(taken, ints(&[2, 2], &[2, 0, 5, 3]));
    }

    #[test]
    fn constants_that_would_be_gigabytes_are_refused() {
        let huge = ints(&[3], &[1 << 20, 1 << 20, 4]);
        let error = run(Node::new("ConstantOfShape", &[], "c"), &[&huge]).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
        let a = ints(&[1 << 13, 1], &vec![0; 1 << 13]);
        let b = ints(&[1, 1 << 13], &vec![0; 1 << 13]);
        assert!(run(Node::new("Add", &[], "a"), &[&a, &b]).unwrap_err().to_string().contains("too large"));
    }

    #[test]
    fn reshapes_follow_onnx_s_zero_and_minus_one() {
        assert_eq!(reshaped(&[1, 6, 4], &[0, -1, 2]).unwrap(), [1, 12, 2]);
        for shape in [&[5, -1][..], &[-1, -1], &[0, 0, 0, 0], &[24, 2], &[-3]] {
            assert!(reshaped(&[1, 6, 4], shape).is_err(), "{shape:?}");
        }
    }
}
