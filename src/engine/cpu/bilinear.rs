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
            let beside = if y % 2 == 0 { (y / 2).saturating_sub(1) } else { (y / 2 + 1).min(height - 1) };
            let [own, other] = [y / 2, beside].map(|y| input.at(memory, block, y).cast::<Pixel>());
            let column = |x: usize| blend(*own.add(x), *other.add(x));
            let out = output.at(memory, block, y).cast::<Pixel>();
            let mut before = column(0);
            let mut here = before;
            for x in 0..width {
                let after = column((x + 1).min(width - 1));
                out.add(2 * x).write(blend(here, before));
                out.add(2 * x + 1).write(blend(here, after));
                (before, here) = (here, after);
            }
            output.zero_border(memory, block, y);
        }
    }
}
