//! What is done value by value.

use std::sync::Arc;

use super::record::{self, Join, Map, Node, Operation};
use super::Result;
use super::Tensor::{self, Host, Recorded};

/// Value by value.
macro_rules! maps {
    ($($(#[$doc:meta])* $name:ident $candle:ident $map:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// When candle fails.
                pub fn $name(&self) -> Result<Self> {
                    match self {
                        Host(tensor) => tensor.$candle().map(Host),
                        Recorded(node) => Ok(Recorded(record::map(node, Map::$map))),
                    }
                }
            )*
        }
    };
}

maps! {
    /// eˣ.
    exp exp Exp;
    /// The natural logarithm.
    log log Log;
    /// √x.
    sqrt sqrt Sqrt;
    /// x².
    sqr sqr Square;
    /// |x|.
    abs abs Abs;
    /// −x.
    neg neg Negate;
    /// 1/x.
    recip recip Reciprocal;
    /// max(x, 0).
    relu relu Relu;
}

/// Value by value, with a constant.
impl Tensor {
    /// 1 / (1 + e⁻ˣ).
    ///
    /// # Errors
    /// When candle fails; so for the next ones.
    pub fn sigmoid(&self) -> Result<Self> {
        match self {
            Host(tensor) => candle_nn::ops::sigmoid(tensor).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Sigmoid))),
        }
    }

    /// x · factor + offset.
    pub fn affine(&self, factor: f64, offset: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.affine(factor, offset).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Affine(factor, offset)))),
        }
    }

    #[allow(missing_docs)]
    pub fn powf(&self, exponent: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.powf(exponent).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Power(exponent)))),
        }
    }

    /// max(x, least).
    pub fn at_least(&self, least: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.maximum(least).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::AtLeast(least)))),
        }
    }

    /// min(x, most).
    pub fn at_most(&self, most: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.minimum(most).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::AtMost(most)))),
        }
    }

    /// 1 where x is above `bound`, else 0; not differentiated.
    pub fn above(&self, bound: f64) -> Result<Self> {
        match self {
            Host(tensor) => tensor.gt(bound)?.to_dtype(candle_core::DType::F32).map(Host),
            Recorded(node) => Ok(Recorded(record::map(node, Map::Above(bound)))),
        }
    }

    /// The same values, through which nothing is differentiated.
    pub fn detach(&self) -> Self {
        match self {
            Host(tensor) => Host(tensor.detach()),
            Recorded(node) => Recorded(Node::new(Operation::Detach, node.shape.clone(), vec![Arc::clone(node)])),
        }
    }
}

/// Two tensors, value by value; `broadcast_…`: a size of 1 or one that is missing in front stands for
/// any.
macro_rules! joins {
    ($($name:ident $join:ident;)*) => {
        impl Tensor {
            $(
                #[allow(missing_docs)]
                ///
                /// # Errors
                /// When the shapes do not agree.
                pub fn $name(&self, other: &Self) -> Result<Self> {
                    match (self, other) {
                        (Host(a), Host(b)) => a.$name(b).map(Host),
                        _ => record::join(&self.recorded(), &other.recorded(), Join::$join).map(Recorded),
                    }
                }
            )*
        }
    };
}

joins! {
    broadcast_add Add;
    broadcast_sub Subtract;
    broadcast_mul Multiply;
    broadcast_div Divide;
    minimum Minimum;
    maximum Maximum;
}
