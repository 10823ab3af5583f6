//! Bilinear upsampling by two, row by row of a block.

use std::ops::Range;

use super::layout::{FloatView, ThreadMemory};
use super::simd::BLOCK;

type Pixel = [f32; BLOCK];

/// ¾ of `own` and ¼ of `other`.
#[inline(always)]
fn blend(own: Pixel, other: Pixel) -> Pixel {
    std::array::from_fn(|lane| 0.75 * own[lane] + 0.25 * other[lane])
}

/// The row of the input beside the one that row `y` of the result lies in, of `height`; the edge repeated.
pub fn row_beside(y: usize, height: usize) -> usize {
    if y.is_multiple_of(2) {
        (y / 2).saturating_sub(1)
    } else {
        (y / 2 + 1).min(height - 1)
    }
}

/// A row of the result of a block: `column` blends the two rows of the input that it lies between, and `blend` two of those
/// columns.
///
/// # Safety
/// Both rows must have `width` pixels, and `out` room for twice as many.
#[inline(always)]
pub unsafe fn upsample_row<P: Copy, C: Copy>(
    [own, other]: [*const P; 2],
    width: usize,
    out: *mut P,
    column: impl Fn(P, P) -> C,
    blend: impl Fn(C, C) -> P,
) {
    let column = |x: usize| column(*own.add(x), *other.add(x));
    let mut before = column(0);
    let mut here = before;
    for x in 0..width {
        let after = column((x + 1).min(width - 1));
        out.add(2 * x).write(blend(here, before));
        out.add(2 * x + 1).write(blend(here, after));
        (before, here) = (here, after);
    }
}

/// Computes `rows` of the output of `blocks`: along each axis ¾ of the pixel that an output pixel
/// lies in and ¼ of the neighbour on its side, edges repeated.
///
/// # Safety
/// The views must lie within `memory`, and no other thread may write what this reads or touch what
/// it writes.
pub unsafe fn upsample(
    memory: &ThreadMemory,
    input: &FloatView,
    output: &FloatView,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    let (height, width) = (input.shape.height, input.shape.width);
    for block in blocks {
        for y in rows.clone() {
            let rows = [y / 2, row_beside(y, height)].map(|y| input.at(memory, block, y).cast::<Pixel>().cast_const());
            upsample_row(rows, width, output.at(memory, block, y).cast::<Pixel>(), blend, blend);
            output.zero_border(memory, block, y);
        }
    }
}
