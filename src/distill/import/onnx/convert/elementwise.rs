//! Arithmetic and activations.

use std::rc::Rc;

use anyhow::{bail, ensure, Context};
use peregrine_engine::{Op, Shape};

use super::super::constant::Constant;
use super::super::expression::{Binary, Expression, Unary};
use super::super::model::Attributes;
use super::value::{Arrangement, Map, Value};
use super::{constant_of, Converter};
use crate::export::messages::Node;

/// Operations on one value before it must be a layer.
const MAX_OPERATIONS: usize = 48;

impl Converter<'_> {
    pub(super) fn arithmetic(&mut self, node: &Node, name: &str, inputs: &[Option<Value>]) -> anyhow::Result<Map> {
        let op = match node.op_type.as_str() {
            "Add" => Binary::Add,
            "Sub" => Binary::Sub,
            "Mul" => Binary::Mul,
            _ => Binary::Div,
        };
        inputs.iter().flatten().try_for_each(unpadded)?;
        match inputs {
            [Some(Value::Map(a)), Some(Value::Map(b))] => self.of_maps(op, name, a, b),
            [Some(Value::Map(a)), Some(Value::Constant(b))] => self.with_constant(op, name, a, b, false),
            [Some(Value::Constant(a)), Some(Value::Map(b))] => self.with_constant(op, name, b, a, true),
            _ => bail!("it needs two operands"),
        }
    }

    fn of_maps(&mut self, op: Binary, name: &str, a: &Map, b: &Map) -> anyhow::Result<Map> {
        let operations = a.operations + b.operations + 1;
        if a.layer == b.layer && a.arrangement == b.arrangement && operations <= MAX_OPERATIONS {
            return Ok(Map {
                expression: Expression::binary(op, &a.expression, &b.expression),
                operations,
                ..a.clone()
            });
        }
        ensure!(a.arrangement == b.arrangement, "its operands are not arranged alike");
        let arrangement = a.arrangement.clone();
        let (a, b) = (a.arranged(Arrangement::Nchw), b.arranged(Arrangement::Nchw));
        let made = match op {
            Binary::Add | Binary::Sub => {
                let b = if op == Binary::Sub { self.times(&b, -1.0)? } else { b };
                let (a, b) = (self.plain(&a)?, self.plain(&b)?);
                let shape = self.network.shape(a);
                Map::of(self.network.push(name, Op::Add, &[a, b], shape.channels)?)
            }
            Binary::Mul => self.product(name, &a, &b)?,
            Binary::Div => bail!("a map divided by another is not supported"),
        };
        Ok(made.arranged(arrangement))
    }

    /// A map times factors for its channels, in either order.
    fn product(&mut self, name: &str, a: &Map, b: &Map) -> anyhow::Result<Map> {
        let shape = |map: &Map| self.network.shape(map.layer);
        let (map, factors) = if shape(b).pixels() == 1 { (a, b) } else { (b, a) };
        let (from, by) = (shape(map), shape(factors));
        ensure!(
            by == Shape::new(from.channels, 1, 1),
            "it multiplies maps of {from} and {by}; only factors for each channel are supported"
        );
        let ((layer, scale), (factors, factor)) = (self.scaled(map)?, self.scaled(factors)?);
        let made = Map::of(self.network.push(name, Op::Scale, &[layer, factors], from.channels)?);
        self.times(&made, scale * factor)
    }

    /// `op` of a map and a constant, the constant first if `reversed`.
    fn with_constant(
        &mut self,
        op: Binary,
        name: &str,
        map: &Map,
        constant: &Constant,
        reversed: bool,
    ) -> anyhow::Result<Map> {
        let shape = self.network.shape(map.layer);
        let alike =
            uniform(constant).filter(|_| constant.scalar().is_some() || per_channel(constant, map, shape).is_some());
        if let Some(value) = alike {
            return if reversed { self.reversed(op, map, value) } else { self.lengthened(op, map, &number(value)) };
        }
        let values = per_channel(constant, map, shape).with_context(|| {
            format!(
                "its constant of {:?} is not one number, or one for each of {} channels",
                constant.dims, shape.channels
            )
        })?;
        ensure!(!(reversed && op == Binary::Div), "a constant divided by a map is not supported");
        let ones = vec![1.0; values.len()];
        let zeros = vec![0.0; values.len()];
        let negative = |values: Vec<f32>| -> Vec<f32> { values.into_iter().map(|v| -v).collect() };
        let (factor, offset) = match op {
            Binary::Add => (ones, values),
            Binary::Sub if reversed => (negative(ones), values),
            Binary::Sub => (ones, negative(values)),
            Binary::Mul => (values, zeros),
            Binary::Div => (values.into_iter().map(|v| 1.0 / v).collect(), zeros),
        };
        self.channelwise(name, map, factor, offset)
    }

    fn reversed(&self, op: Binary, map: &Map, value: f32) -> anyhow::Result<Map> {
        let expression = Expression::binary(op, &number(value), &map.expression);
        ensure!(map.operations < MAX_OPERATIONS, "too many operations follow each other on one value");
        Ok(Map { expression, operations: map.operations + 1, ..map.clone() })
    }

    /// The map with another operation on each of its values.
    fn lengthened(&self, op: Binary, map: &Map, by: &Rc<Expression>) -> anyhow::Result<Map> {
        if matches!((op, &**by), (Binary::Mul | Binary::Div, Expression::Constant(c)) if *c == 1.0) {
            return Ok(map.clone());
        }
        ensure!(map.operations < MAX_OPERATIONS, "too many operations follow each other on one value");
        let expression = Expression::binary(op, &map.expression, by);
        Ok(Map { expression, operations: map.operations + 1, ..map.clone() })
    }

    /// The map times a factor.
    pub(super) fn times(&self, map: &Map, factor: f32) -> anyhow::Result<Map> {
        self.lengthened(Binary::Mul, map, &number(factor))
    }

    /// A factor and an offset for each channel.
    fn channelwise(&mut self, name: &str, map: &Map, factor: Vec<f32>, offset: Vec<f32>) -> anyhow::Result<Map> {
        let (layer, scale) = self.scaled(&map.arranged(Arrangement::Nchw))?;
        let factor = factor.into_iter().map(|f| f * scale).collect();
        let made = self.network.affine(name, layer, factor, offset)?;
        Ok(Map::of(made).arranged(map.arrangement.clone()))
    }

    /// γ·(x − μ)/√(σ² + ε) + β.
    pub(super) fn batch_norm(
        &mut self,
        node: &Node,
        name: &str,
        map: &Map,
        inputs: &[Option<Value>],
    ) -> anyhow::Result<Map> {
        unpadded(&Value::Map(map.clone()))?;
        let channels = self.network.shape(map.layer).channels;
        let of = |i: usize, what: &str| -> anyhow::Result<Vec<f32>> {
            let values = constant_of(inputs, i, what)?.with_context(|| format!("it lacks its {what}"))?.floats();
            ensure!(values.len() == channels, "it has {} values as its {what}, for {channels} channels", values.len());
            Ok(values)
        };
        let (gamma, beta) = (of(1, "scale")?, of(2, "offset")?);
        let (mean, variance) = (of(3, "mean")?, of(4, "variance")?);
        let epsilon = node.float_or("epsilon", 1e-5);
        let factor: Vec<f32> = gamma.iter().zip(&variance).map(|(g, v)| g / (v + epsilon).sqrt()).collect();
        let offset = (0..channels).map(|c| beta[c] - mean[c] * factor[c]).collect();
        self.channelwise(name, map, factor, offset)
    }

    /// An activation, or what one is put together of.
    pub(super) fn unary(&mut self, node: &Node, map: &Map, inputs: &[Option<Value>]) -> anyhow::Result<Map> {
        unpadded(&Value::Map(map.clone()))?;
        let x = &map.expression;
        let apply = |op: Unary| Expression::unary(op, x);
        let scalar = |i: usize, attribute: &str, default: f32| -> anyhow::Result<f32> {
            match constant_of(inputs, i, "bound")? {
                Some(bound) => bound.scalar().context("its bound is not one number"),
                None => Ok(node.float_or(attribute, default)),
            }
        };
        let times = |gate: Rc<Expression>| Expression::binary(Binary::Mul, x, &gate);
        let expression = match node.op_type.as_str() {
            "Relu" => apply(Unary::Leaky(0.0)),
            "LeakyRelu" => apply(Unary::Leaky(node.float_or("alpha", 0.01))),
            "PRelu" => {
                let slope = constant_of(inputs, 1, "slope")?.context("it has no slope")?;
                apply(Unary::Leaky(
                    uniform(slope).context("it has a slope for each channel; one for all is supported")?,
                ))
            }
            "Clip" => apply(Unary::Clip(scalar(1, "min", f32::NEG_INFINITY)?, scalar(2, "max", f32::INFINITY)?)),
            "Max" => apply(Unary::Clip(scalar(1, "", f32::NAN)?, f32::INFINITY)),
            "Min" => apply(Unary::Clip(f32::NEG_INFINITY, scalar(1, "", f32::NAN)?)),
            "Sigmoid" => apply(Unary::Sigmoid),
            "HardSigmoid" => apply(Unary::Hardsigmoid(node.float_or("alpha", 0.2), node.float_or("beta", 0.5))),
            "HardSwish" => times(apply(Unary::Hardsigmoid(1.0 / 6.0, 0.5))),
            "Swish" => {
                let inner = Expression::binary(Binary::Mul, x, &number(node.float_or("alpha", 1.0)));
                times(Expression::unary(Unary::Sigmoid, &inner))
            }
            "Mish" => times(Expression::unary(Unary::Tanh, &apply(Unary::Softplus))),
            "Tanh" => apply(Unary::Tanh),
            "Exp" => apply(Unary::Exp),
            "Softplus" => apply(Unary::Softplus),
            "Neg" => Expression::binary(Binary::Mul, x, &number(-1.0)),
            _ => bail!("this operation is not supported in the network's body"),
        };
        let gated = matches!(node.op_type.as_str(), "HardSwish" | "Swish" | "Mish");
        let operations = if gated { 2 * map.operations + 3 } else { map.operations + 1 };
        ensure!(operations <= 2 * MAX_OPERATIONS, "too many operations follow each other on one value");
        Ok(Map { expression, operations, ..map.clone() })
    }
}

/// Only a convolution or a pooling may follow a Pad: what else is computed would change its pixels.
fn unpadded(value: &Value) -> anyhow::Result<()> {
    let padded = matches!(value, Value::Map(Map { arrangement: Arrangement::Padded { .. }, .. }));
    ensure!(!padded, "a Pad before it is not supported; it may stand before a convolution or a pooling");
    Ok(())
}

fn number(value: f32) -> Rc<Expression> {
    Rc::new(Expression::Constant(value))
}

/// The value that all of a constant's are, if they are and there is one.
fn uniform(constant: &Constant) -> Option<f32> {
    let values = constant.floats();
    let &first = values.first()?;
    values.iter().all(|&v| v == first).then_some(first)
}

/// One value for each channel of `map`, if that is what `constant` broadcasts to.
fn per_channel(constant: &Constant, map: &Map, shape: Shape) -> Option<Vec<f32>> {
    let dims: Vec<usize> = constant.dims.iter().copied().skip_while(|&d| d == 1).collect();
    let c = shape.channels;
    let fits = match map.arrangement {
        Arrangement::Nchw => dims == [c, 1, 1],
        Arrangement::Nhwc | Arrangement::Flat => dims == [c],
        _ => false,
    };
    fits.then(|| constant.floats())
}
