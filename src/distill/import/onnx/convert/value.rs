//! What a tensor of the ONNX file is while the network is converted.

use std::rc::Rc;

use peregrine_engine::{LayerId, Shape};

use super::super::constant::Constant;
use super::super::expression::Expression;

/// A tensor.
#[derive(Debug, Clone)]
pub enum Value {
    Constant(Rc<Constant>),
    Map(Map),
}

/// A function of a layer's map, in some arrangement.
#[derive(Debug, Clone)]
pub struct Map {
    pub layer: LayerId,
    /// What has been computed of each of its values since.
    pub expression: Rc<Expression>,
    /// Number of operations in it.
    pub operations: usize,
    pub arrangement: Arrangement,
}

/// How a map's values are arranged. Where it is not as a layer has them, nothing has been moved yet:
/// what follows says what for.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrangement {
    /// `[1, c, h, w]`.
    Nchw,
    /// `[1, h, w, c]`.
    Nhwc,
    /// A map of one pixel as `[1, c]`.
    Flat,
    /// `[1, groups, c / groups, h, w]`; with `swapped`, `[1, c / groups, groups, h, w]`: the two
    /// steps of a channel shuffle.
    Groups { groups: usize, swapped: bool },
    /// Every second row and/or column, from this one on.
    Strided { row: Option<usize>, column: Option<usize> },
    /// Channels of several [`Strided`](Self::Strided) maps one after the other: row and column that
    /// each starts at.
    Blocks(Vec<(usize, usize)>),
    /// With pixels of one value around it.
    Padded { pads: Pads, value: f32 },
}

/// Rows and columns around a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pads {
    pub top: usize,
    pub left: usize,
    pub bottom: usize,
    pub right: usize,
}

impl Pads {
    pub fn plus(self, other: Self) -> Self {
        Self {
            top: self.top + other.top,
            left: self.left + other.left,
            bottom: self.bottom + other.bottom,
            right: self.right + other.right,
        }
    }
}

impl std::fmt::Display for Pads {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "[{}, {}, {}, {}]", self.top, self.left, self.bottom, self.right)
    }
}

impl Map {
    /// A layer as it is.
    pub fn of(layer: LayerId) -> Self {
        Self { layer, expression: Rc::new(Expression::X), operations: 0, arrangement: Arrangement::Nchw }
    }

    /// The same values, arranged in another way.
    pub fn arranged(&self, arrangement: Arrangement) -> Self {
        Self { arrangement, ..self.clone() }
    }

    /// Its dimensions in the file, where its layer has `shape`.
    pub fn dims(&self, shape: Shape) -> Vec<usize> {
        let Shape { channels: c, height: h, width: w } = shape;
        match &self.arrangement {
            Arrangement::Nchw => vec![1, c, h, w],
            Arrangement::Nhwc => vec![1, h, w, c],
            Arrangement::Flat => vec![1, c],
            &Arrangement::Groups { groups, swapped: false } => vec![1, groups, c / groups, h, w],
            &Arrangement::Groups { groups, swapped: true } => vec![1, c / groups, groups, h, w],
            Arrangement::Strided { row, column } => {
                let half = |size: usize, first: &Option<usize>| first.map_or(size, |_| size / 2);
                vec![1, c, half(h, row), half(w, column)]
            }
            Arrangement::Blocks(blocks) => vec![1, c * blocks.len(), h / 2, w / 2],
            Arrangement::Padded { pads, .. } => vec![1, c, h + pads.top + pads.bottom, w + pads.left + pads.right],
        }
    }
}
