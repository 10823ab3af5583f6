//! `+`, `−`, `·` and `/` of tensors of one shape, and of tensors and numbers, as candle has them: on
//! values, references and results.

use std::borrow::Borrow;
use std::ops::{Add, Div, Mul, Sub};

use super::record::{self, Join};
use super::{Result, Tensor};

/// Of two tensors of one shape.
fn join(a: &Tensor, b: &Tensor, how: Join) -> Result<Tensor> {
    match (a, b) {
        (Tensor::Host(a), Tensor::Host(b)) => match how {
            Join::Add => a + b,
            Join::Subtract => a - b,
            Join::Multiply => a * b,
            _ => a / b,
        }
        .map(Tensor::Host),
        _ => {
            if a.dims() != b.dims() {
                candle_core::bail!("{how:?} of {:?} and {:?}", a.dims(), b.dims());
            }
            record::join(&a.recorded(), &b.recorded(), how).map(Tensor::Recorded)
        }
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $join:ident $of_number:expr, $from_number:expr;)*) => {
        $(
            impl<B: Borrow<Tensor>> $trait<B> for Tensor {
                type Output = Result<Tensor>;

                fn $method(self, other: B) -> Self::Output {
                    join(&self, other.borrow(), Join::$join)
                }
            }

            impl<B: Borrow<Tensor>> $trait<B> for &Tensor {
                type Output = Result<Tensor>;

                fn $method(self, other: B) -> Self::Output {
                    join(self, other.borrow(), Join::$join)
                }
            }

            impl<B: Borrow<Tensor>> $trait<Result<B>> for Tensor {
                type Output = Result<Tensor>;

                fn $method(self, other: Result<B>) -> Self::Output {
                    join(&self, other?.borrow(), Join::$join)
                }
            }

            impl<B: Borrow<Tensor>> $trait<Result<B>> for &Tensor {
                type Output = Result<Tensor>;

                fn $method(self, other: Result<B>) -> Self::Output {
                    join(self, other?.borrow(), Join::$join)
                }
            }

            impl $trait<f64> for Tensor {
                type Output = Result<Tensor>;

                fn $method(self, number: f64) -> Self::Output {
                    let (factor, offset) = $of_number(number);
                    self.affine(factor, offset)
                }
            }

            impl $trait<f64> for &Tensor {
                type Output = Result<Tensor>;

                fn $method(self, number: f64) -> Self::Output {
                    let (factor, offset) = $of_number(number);
                    self.affine(factor, offset)
                }
            }

            impl $trait<Tensor> for f64 {
                type Output = Result<Tensor>;

                fn $method(self, tensor: Tensor) -> Self::Output {
                    $from_number(self, &tensor)
                }
            }

            impl $trait<&Tensor> for f64 {
                type Output = Result<Tensor>;

                fn $method(self, tensor: &Tensor) -> Self::Output {
                    $from_number(self, tensor)
                }
            }
        )*
    };
}

operators! {
    Add add Add |n| (1.0, n), |n, t: &Tensor| t.affine(1.0, n);
    Sub sub Subtract |n: f64| (1.0, -n), |n, t: &Tensor| t.affine(-1.0, n);
    Mul mul Multiply |n| (n, 0.0), |n, t: &Tensor| t.affine(n, 0.0);
    Div div Divide |n: f64| (1.0 / n, 0.0), |n, t: &Tensor| t.recip()?.affine(n, 0.0);
}
