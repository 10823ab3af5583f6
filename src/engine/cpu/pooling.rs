//! Maxima and means over windows, row by row of a block, and means of whole channels.

use std::ops::Range;

use super::layout::{FloatView, ThreadMemory};
use super::simd::{Vector, BLOCK};
use super::tiles::MAX_KERNEL;
use crate::Window;

/// A maximum or a mean over windows.
#[derive(Clone, Copy)]
pub struct Pool {
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

impl Pool {
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

impl PoolRow {
    /// The input columns under output column `x`.
    #[inline(always)]
    fn columns(&self, x: usize) -> Range<usize> {
        (x * self.stride).saturating_sub(self.left)..(x * self.stride + self.kernel - self.left).min(self.input_width)
    }
}

/// Computes one row of maxima.
///
/// # Safety
/// The row's pointers must be valid for its lengths, `V` one block wide, and the function compiled
/// for it.
#[inline(always)]
pub unsafe fn largest<V: Vector>(row: &PoolRow) {
    for x in 0..row.width {
        let columns = row.columns(x);
        let mut largest = V::splat(f32::NEG_INFINITY);
        for from in &row.rows[..row.row_count] {
            for column in columns.clone() {
                largest = largest.max(V::load(from.add(column * BLOCK)));
            }
        }
        largest.store_blocks(row.out.add(x * BLOCK), 0);
    }
}

/// Computes one row of means, of the pixels within the map.
///
/// # Safety
/// As for [`largest`].
#[inline(always)]
pub unsafe fn average<V: Vector>(row: &PoolRow) {
    for x in 0..row.width {
        let columns = row.columns(x);
        let mut sum = V::zero();
        for from in &row.rows[..row.row_count] {
            for column in columns.clone() {
                sum = sum.add(V::load(from.add(column * BLOCK)));
            }
        }
        let share = 1.0 / (row.row_count * columns.len()) as f32;
        sum.mul(V::splat(share)).store_blocks(row.out.add(x * BLOCK), 0);
    }
}

/// The means of the channels of `blocks`.
///
/// # Safety
/// As for [`Pool::run`].
pub unsafe fn global_average(memory: &ThreadMemory, input: &FloatView, output: &FloatView, blocks: Range<usize>) {
    let share = 1.0 / input.shape.pixels() as f32;
    for block in blocks {
        // Rows by themselves, so that a large map's mean does not lose bits.
        let mut sum = [0f32; BLOCK];
        for y in 0..input.shape.height {
            let mut row = [0f32; BLOCK];
            let from = input.at(memory, block, y).cast::<[f32; BLOCK]>();
            for x in 0..input.shape.width {
                let pixel = *from.add(x);
                (0..BLOCK).for_each(|lane| row[lane] += pixel[lane]);
            }
            (0..BLOCK).for_each(|lane| sum[lane] += row[lane]);
        }
        output.at(memory, block, 0).cast::<[f32; BLOCK]>().write(sum.map(|s| s * share));
        output.zero_border(memory, block, 0);
    }
}
