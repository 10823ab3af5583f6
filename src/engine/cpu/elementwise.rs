//! Scaling by channel, and activations that stand alone.

use std::ops::Range;

use super::layout::{FloatView, ThreadMemory};
use super::simd::{Vector, BLOCK};
use crate::Activation;

/// One row of a block whose values are to be activated.
#[derive(Clone, Copy)]
pub struct ActivateRow {
    pub from: *const f32,
    pub out: *mut f32,
    /// Pixels.
    pub width: usize,
    pub activation: Activation,
}

/// An activation by itself.
#[derive(Clone, Copy)]
pub struct Activate {
    pub activation: Activation,
    /// For the instruction set in use.
    pub row: unsafe fn(&ActivateRow),
}

impl Activate {
    /// Computes `rows` of the output of `blocks`.
    ///
    /// # Safety
    /// The views must lie within `memory`, and no other thread may write what this reads or touch
    /// what it writes.
    pub unsafe fn run(
        &self,
        memory: &ThreadMemory,
        input: &FloatView,
        output: &FloatView,
        blocks: Range<usize>,
        rows: Range<usize>,
    ) {
        for block in blocks {
            for y in rows.clone() {
                let (from, out) = (input.at(memory, block, y).cast_const(), output.at(memory, block, y));
                (self.row)(&ActivateRow { from, out, width: output.shape.width, activation: self.activation });
                output.zero_border(memory, block, y);
            }
        }
    }
}

/// Computes one row.
///
/// # Safety
/// The row's pointers must be valid for its width, `V` one block wide, and the function compiled
/// for it.
#[inline(always)]
pub unsafe fn activate<V: Vector>(row: &ActivateRow) {
    for x in 0..row.width {
        V::load(row.from.add(x * BLOCK)).activate(row.activation).store_blocks(row.out.add(x * BLOCK), 0);
    }
}

/// `input` with each channel multiplied by its value in `factors`, a map of one pixel.
///
/// # Safety
/// As for [`Activate::run`].
pub unsafe fn scale(
    memory: &ThreadMemory,
    input: &FloatView,
    factors: &FloatView,
    output: &FloatView,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    for block in blocks {
        let factors = *factors.at(memory, block, 0).cast::<[f32; BLOCK]>();
        for y in rows.clone() {
            let from = input.at(memory, block, y).cast::<[f32; BLOCK]>();
            let out = output.at(memory, block, y).cast::<[f32; BLOCK]>();
            for x in 0..output.shape.width {
                let pixel = *from.add(x);
                out.add(x).write(std::array::from_fn(|lane| pixel[lane] * factors[lane]));
            }
            output.zero_border(memory, block, y);
        }
    }
}
