//! Steps that move values and hardly compute: in and out of the blocked layout, sums, upsampling,
//! concatenation.

use std::ops::Range;

use super::layout::{FloatView, ThreadMemory, PIXEL};
use super::residual::Residual;
use super::simd::BLOCK;
use crate::quantization::TensorScale;

/// Planar input → blocks, or pixels, with zeros in the channels that fill the last block up.
///
/// # Safety
/// The view must lie within `memory`, whose input must hold its shape; no other thread may touch
/// what this writes.
pub unsafe fn pack(memory: &ThreadMemory, output: &FloatView, blocks: Range<usize>, rows: Range<usize>) {
    for block in blocks {
        for y in rows.clone() {
            match (output.block, output.shape.channels) {
                (PIXEL, 3) => pack_row::<PIXEL, 3>(memory, output, block, y, 3),
                (PIXEL, channels) => pack_row::<PIXEL, 0>(memory, output, block, y, channels),
                (_, channels) => pack_row::<BLOCK, 0>(memory, output, block, y, channels - block * BLOCK),
            }
            output.zero_border(memory, block, y);
        }
    }
}

/// One row of a block of `N` channels, of which there are `CHANNELS`, or, where that is 0, at most
/// `left`.
///
/// # Safety
/// As for [`pack`].
#[inline(always)]
unsafe fn pack_row<const N: usize, const CHANNELS: usize>(
    memory: &ThreadMemory,
    output: &FloatView,
    block: usize,
    y: usize,
    left: usize,
) {
    let (width, pixels) = (output.shape.width, output.shape.pixels());
    let channels = if CHANNELS == 0 { N.min(left) } else { CHANNELS };
    let out = output.at(memory, block, y);
    let from = memory.input.add(block * N * pixels + y * width);
    if N == PIXEL && CHANNELS == 3 {
        // Eight at a time, which become shuffles of vectors.
        const RUN: usize = 8;
        for x in (0..width / RUN * RUN).step_by(RUN) {
            let [r, g, b] = [0, 1, 2].map(|c| from.add(c * pixels + x).cast::<[f32; RUN]>().read_unaligned());
            let run: [[f32; PIXEL]; RUN] = std::array::from_fn(|i| [r[i], g[i], b[i], 0.0]);
            out.add(x * PIXEL).cast::<[[f32; PIXEL]; RUN]>().write_unaligned(run);
        }
    }
    let done = if N == PIXEL && CHANNELS == 3 { width / 8 * 8 } else { 0 };
    for x in done..width {
        // Straight to memory: a pixel put together in a register would wait for its stores.
        let pixel = out.add(x * N);
        pixel.cast::<[f32; N]>().write([0.0; N]);
        for c in 0..channels {
            *pixel.add(c) = *from.add(c * pixels + x);
        }
    }
}

/// Pixels as they are held: what [`pack`] makes of an input held pixel by pixel.
///
/// # Safety
/// There must be room for them at `out`.
pub unsafe fn write_pixels(pixels: &[[f32; PIXEL]], out: *mut u8, _: TensorScale) {
    std::ptr::copy_nonoverlapping(pixels.as_ptr(), out.cast(), pixels.len());
}

/// Blocks → a planar output that starts at `offset` of the outputs.
///
/// # Safety
/// As for [`pack`], of the outputs.
pub unsafe fn unpack(
    memory: &ThreadMemory,
    input: &FloatView,
    offset: usize,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    let (width, pixels) = (input.shape.width, input.shape.pixels());
    for block in blocks {
        for y in rows.clone() {
            let from = input.at(memory, block, y);
            for c in 0..BLOCK.min(input.shape.channels - block * BLOCK) {
                let out = memory.outputs.add(offset + (block * BLOCK + c) * pixels + y * width);
                for x in 0..width {
                    *out.add(x) = *from.add(x * BLOCK + c);
                }
            }
        }
    }
}

/// The sum of `operands`; of a single one, a copy: which, of an upsampled operand, is the
/// upsampling.
///
/// # Safety
/// The views must lie within `memory`, and no other thread may write what this reads or touch what
/// it writes.
pub unsafe fn sum(
    memory: &ThreadMemory,
    operands: &[Residual<FloatView>],
    output: &FloatView,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    for block in blocks {
        for y in rows.clone() {
            let out = output.at(memory, block, y);
            for (i, operand) in operands.iter().enumerate() {
                let shift = usize::from(operand.upsampled);
                let from = operand.view.at(memory, block, y >> shift);
                for x in 0..output.shape.width {
                    for lane in 0..BLOCK {
                        let value = *from.add((x >> shift) * BLOCK + lane);
                        let out = out.add(x * BLOCK + lane);
                        *out = if i == 0 { value } else { *out + value };
                    }
                }
            }
            output.zero_border(memory, block, y);
        }
    }
}

/// Channels to copy: `count` of `view` from `from` on, to those of the output from `to` on.
#[derive(Debug, Clone, Copy)]
pub struct Copied {
    pub view: FloatView,
    pub from: usize,
    pub to: usize,
    pub count: usize,
}

/// Copies channels into the output, row by row, and zeroes the border that all its channels share.
///
/// # Safety
/// As for [`sum`].
pub unsafe fn copy(memory: &ThreadMemory, parts: &[Copied], output: &FloatView, rows: Range<usize>) {
    for y in rows {
        for part in parts {
            for c in 0..part.count {
                let (from, to) = (part.from + c, part.to + c);
                let from = part.view.at(memory, from / BLOCK, y).add(from % BLOCK);
                let out = output.at(memory, to / BLOCK, y).add(to % BLOCK);
                for x in 0..output.shape.width {
                    *out.add(x * BLOCK) = *from.add(x * BLOCK);
                }
            }
        }
        let fill = output.shape.channels % BLOCK;
        let out = output.at(memory, output.blocks() - 1, y);
        for x in 0..output.shape.width {
            for lane in fill..if fill == 0 { 0 } else { BLOCK } {
                *out.add(x * BLOCK + lane) = 0.0;
            }
        }
        for block in 0..output.blocks() {
            output.zero_border(memory, block, y);
        }
    }
}
