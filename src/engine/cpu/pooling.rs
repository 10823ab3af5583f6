//! Max-pooling, row by row of a block.

use std::ops::Range;

use super::layout::{FloatView, ThreadMemory};
use super::simd::{Vector, BLOCK};
use super::tiles::MAX_KERNEL;
use crate::Window;

/// A maximum over windows.
#[derive(Clone, Copy)]
pub struct MaxPool {
    pub window: Window,
    /// For the instruction set in use.
    pub row: unsafe fn(&PoolRow),
}

/// One output row of a block: what lies under it, and where it goes.
#[derive(Clone, Copy)]
pub struct PoolRow {
    /// Pixel 0 of each input row under the output row.
    pub rows: [*const f32; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    pub stride: usize,
    /// Input columns that padding stands for before column 0.
    pub left: usize,
    pub input_width: usize,
    pub out: *mut f32,
    pub width: usize,
}

impl MaxPool {
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
        let (height, width) = (input.shape.height, input.shape.width);
        let Window { kernel, stride, .. } = self.window;
        for block in blocks {
            for y in rows.clone() {
                let under = self.window.span(y, height);
                let mut from = [std::ptr::null(); MAX_KERNEL];
                for (row, y) in from.iter_mut().zip(under.clone()) {
                    *row = input.at(memory, block, y);
                }
                (self.row)(&PoolRow {
                    rows: from,
                    row_count: under.len(),
                    kernel,
                    stride,
                    left: self.window.before(width),
                    input_width: width,
                    out: output.at(memory, block, y),
                    width: output.shape.width,
                });
                output.zero_border(memory, block, y);
            }
        }
    }
}

/// Computes one row.
///
/// # Safety
/// The row's pointers must be valid for its lengths, `V` one block wide, and the function compiled
/// for it.
#[inline(always)]
pub unsafe fn row<V: Vector>(row: &PoolRow) {
    for x in 0..row.width {
        let first = (x * row.stride).saturating_sub(row.left);
        let past = (x * row.stride + row.kernel - row.left).min(row.input_width);
        let mut largest = V::splat(f32::NEG_INFINITY);
        for from in &row.rows[..row.row_count] {
            for column in first..past {
                largest = largest.max(V::load(from.add(column * BLOCK)));
            }
        }
        largest.store_blocks(row.out.add(x * BLOCK), 0);
    }
}
