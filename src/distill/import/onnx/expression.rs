//! What a chain of elementwise nodes computes of one value.
//!
//! Exporters spell activations out in many ways: x·σ(x), x·clip(x + 3, 0, 6)/6 with the division
//! before or after, a clip of 0…6. Rather than to know every spelling, a chain is kept as an
//! expression of the value that it starts from, and recognised by its values at sample points.

use std::rc::Rc;

use peregrine_engine::Activation;

/// An expression of one variable.
#[derive(Debug, Clone)]
pub enum Expression {
    /// The value itself.
    X,
    Constant(f32),
    Binary(Binary, Rc<Self>, Rc<Self>),
    Unary(Unary, Rc<Self>),
}

/// Operations of two values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
}

/// Operations of one value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unary {
    Sigmoid,
    /// max(x, 0), with a slope below zero.
    Leaky(f32),
    Clip(f32, f32),
    /// clip(slope · x + offset, 0, 1).
    Hardsigmoid(f32, f32),
    Tanh,
    Exp,
    /// ln(1 + eˣ).
    Softplus,
}

/// `scale` · activation(x) + `offset`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recognised {
    pub activation: Activation,
    pub scale: f32,
    pub offset: f32,
}

/// The activations that are looked for, simplest first.
const KNOWN: [Activation; 8] = [
    Activation::Identity,
    Activation::Relu,
    Activation::Relu6,
    Activation::LeakyRelu,
    Activation::Silu,
    Activation::Hardswish,
    Activation::Sigmoid,
    Activation::Hardsigmoid,
];

/// Largest difference to an activation that is recognised, relative to the largest value.
const TOLERANCE: f32 = 2e-5;

impl Expression {
    pub fn binary(op: Binary, a: &Rc<Self>, b: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self::Binary(op, a.clone(), b.clone()))
    }

    pub fn unary(op: Unary, x: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self::Unary(op, x.clone()))
    }

    /// Whether it is the value itself.
    pub fn is_identity(&self) -> bool {
        matches!(self, Self::X)
    }

    /// Its value at `x`.
    pub fn at(&self, x: f32) -> f32 {
        match self {
            Self::X => x,
            Self::Constant(c) => *c,
            Self::Binary(op, a, b) => {
                let (a, b) = (a.at(x), b.at(x));
                match op {
                    Binary::Add => a + b,
                    Binary::Sub => a - b,
                    Binary::Mul => a * b,
                    Binary::Div => a / b,
                }
            }
            Self::Unary(op, of) => {
                let x = of.at(x);
                match *op {
                    Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
                    Unary::Leaky(slope) => {
                        if x < 0.0 {
                            slope * x
                        } else {
                            x
                        }
                    }
                    Unary::Clip(low, high) => x.max(low).min(high),
                    Unary::Hardsigmoid(slope, offset) => (slope * x + offset).clamp(0.0, 1.0),
                    Unary::Tanh => x.tanh(),
                    Unary::Exp => x.exp(),
                    Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
                }
            }
        }
    }

    /// The activation that it is, up to a factor and an offset; `None` for any other function.
    pub fn recognise(&self) -> Option<Recognised> {
        let points = || (-96..=96).map(|i| i as f32 / 8.0 + 0.013);
        KNOWN.into_iter().find_map(|activation| {
            // The factor and offset of least squares, in double precision.
            let pairs = || points().map(|x| (f64::from(activation.apply(x)), f64::from(self.at(x))));
            let n = points().count() as f64;
            let (sum_a, sum_f) = pairs().fold((0.0, 0.0), |(a, f), (da, df)| (a + da, f + df));
            let (mean_a, mean_f) = (sum_a / n, sum_f / n);
            let (spread, common) = pairs().fold((0.0, 0.0), |(spread, common), (a, f)| {
                (spread + (a - mean_a).powi(2), common + (a - mean_a) * (f - mean_f))
            });
            let near = |value: f64, round: f64| if (value - round).abs() < 1e-6 { round } else { value };
            let scale = near(common / spread, 1.0);
            let offset = near(mean_f - scale * mean_a, 0.0);
            let largest = pairs().fold(1e-3, |m: f64, (_, f)| m.max(f.abs()));
            let fits = pairs().all(|(a, f)| (scale * a + offset - f).abs() <= f64::from(TOLERANCE) * largest);
            let flat = scale.abs() < 1e-12;
            (fits && !flat).then_some(Recognised { activation, scale: scale as f32, offset: offset as f32 })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn x() -> Rc<Expression> {
        Rc::new(Expression::X)
    }

    fn constant(value: f32) -> Rc<Expression> {
        Rc::new(Expression::Constant(value))
    }

    fn plain(activation: Activation) -> Option<Recognised> {
        Some(Recognised { activation, scale: 1.0, offset: 0.0 })
    }

    #[test]
    fn activations_are_recognised_however_they_are_spelt() {
        let (mul, add) = (Binary::Mul, Binary::Add);
        let clipped = Expression::unary(Unary::Clip(0.0, 6.0), &Expression::binary(add, &x(), &constant(3.0)));
        let spelt = [
            (Expression::binary(mul, &x(), &Expression::unary(Unary::Sigmoid, &x())), Activation::Silu),
            (
                Expression::binary(Binary::Div, &Expression::binary(mul, &x(), &clipped), &constant(6.0)),
                Activation::Hardswish,
            ),
            (
                Expression::binary(mul, &Expression::binary(mul, &constant(1.0 / 6.0), &x()), &clipped),
                Activation::Hardswish,
            ),
            (
                Expression::binary(mul, &x(), &Expression::unary(Unary::Hardsigmoid(1.0 / 6.0, 0.5), &x())),
                Activation::Hardswish,
            ),
            (Expression::binary(Binary::Div, &clipped, &constant(6.0)), Activation::Hardsigmoid),
            (Expression::unary(Unary::Clip(0.0, 6.0), &x()), Activation::Relu6),
            (Expression::unary(Unary::Clip(0.0, f32::INFINITY), &x()), Activation::Relu),
            (Expression::unary(Unary::Leaky(0.1), &x()), Activation::LeakyRelu),
            (x(), Activation::Identity),
        ];
        for (expression, activation) in spelt {
            assert_eq!(expression.recognise(), plain(activation), "{expression:?}");
        }
    }

    #[test]
    fn a_factor_that_half_precision_has_rounded_is_kept() {
        let factor = 0.166_625_98;
        let clipped = Expression::unary(Unary::Clip(0.0, 6.0), &Expression::binary(Binary::Add, &x(), &constant(3.0)));
        let spelt =
            Expression::binary(Binary::Mul, &Expression::binary(Binary::Mul, &constant(factor), &x()), &clipped);
        let found = spelt.recognise().unwrap();
        assert_eq!(found.activation, Activation::Hardswish);
        assert!((found.scale - 6.0 * factor).abs() < 1e-6 && found.offset == 0.0, "{found:?}");
    }

    #[test]
    fn other_functions_are_not_taken_for_an_activation() {
        let mish = Expression::binary(
            Binary::Mul,
            &x(),
            &Expression::unary(Unary::Tanh, &Expression::unary(Unary::Softplus, &x())),
        );
        let others = [
            mish,
            Expression::unary(Unary::Leaky(0.2), &x()),
            Expression::unary(Unary::Hardsigmoid(0.2, 0.5), &x()),
            Expression::unary(Unary::Exp, &x()),
            Expression::binary(Binary::Mul, &x(), &constant(0.0)),
            Expression::binary(Binary::Div, &x(), &constant(0.0)),
        ];
        for expression in others {
            assert_eq!(expression.recognise(), None, "{expression:?}");
        }
    }
}
