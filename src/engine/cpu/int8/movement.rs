//! Steps that hardly compute: in and out of bytes, sums, upsampling, copies of channels.

use std::ops::Range;

use super::super::layout::{FloatView, ThreadMemory};
use super::super::simd::BLOCK as FLOAT_BLOCK;
use super::layout::{ByteView, BLOCK, QUAD};
use super::residual::ScaledResidual;
use crate::quantization::{nearest_byte, TensorScale};

/// The planar input → bytes.
///
/// # Safety
/// The view must lie within `memory`, whose input must hold its shape; no other thread may touch
/// what this writes.
#[inline(always)]
pub unsafe fn quantize_input(memory: &ThreadMemory, output: &ByteView, scale: TensorScale, rows: Range<usize>) {
    let (width, pixels) = (output.shape.width, output.shape.pixels());
    for y in rows {
        let channel = |c: usize| std::slice::from_raw_parts(memory.input.add(c * pixels + y * width), width);
        if output.shape.channels == 3 && output.block == 4 {
            // A whole pixel at a time, in vectors.
            let (out, [r, g, b]) = (output.at(memory, 0, y).cast::<u32>(), [channel(0), channel(1), channel(2)]);
            let byte = |v: f32| u32::from(scale.quantize(v));
            for x in 0..width {
                out.add(x).write_unaligned(byte(r[x]) | byte(g[x]) << 8 | byte(b[x]) << 16);
            }
        } else {
            for c in 0..output.shape.channels {
                let out = output.at(memory, c / output.block, y).add(c % output.block);
                for (x, &value) in channel(c).iter().enumerate() {
                    *out.add(x * output.block) = scale.quantize(value);
                }
            }
        }
        for block in 0..output.blocks() {
            output.fill_border(memory, block, y);
        }
    }
}

/// Pixels of real numbers → bytes, as [`quantize_input`] makes them; the fourth value is not used.
///
/// # Safety
/// There must be room for them at `out`.
#[inline(always)]
pub unsafe fn quantize_pixels(pixels: &[[f32; QUAD]], out: *mut u8, scale: TensorScale) {
    for (i, &value) in pixels.as_flattened().iter().enumerate() {
        *out.add(i) = scale.quantize(value);
    }
}

/// Bytes → the planar outputs, from `offset` on.
///
/// # Safety
/// The view must lie within `memory`, whose outputs must have room for its shape; no other thread
/// may touch what this writes.
pub unsafe fn unpack(memory: &ThreadMemory, input: &ByteView, scale: TensorScale, offset: usize, rows: Range<usize>) {
    let (width, pixels) = (input.shape.width, input.shape.pixels());
    for c in 0..input.shape.channels {
        for y in rows.clone() {
            let from = input.at(memory, c / input.block, y).add(c % input.block);
            let out = memory.outputs.add(offset + c * pixels + y * width);
            for x in 0..width {
                *out.add(x) = scale.dequantize(*from.add(x * input.block));
            }
        }
    }
}

/// Bytes → the f32 engine's blocks.
///
/// # Safety
/// As for [`unpack`].
pub unsafe fn to_floats(
    memory: &ThreadMemory,
    input: &ByteView,
    scale: TensorScale,
    output: &FloatView,
    rows: Range<usize>,
) {
    for y in rows {
        for block in 0..output.blocks() {
            let out = output.at(memory, block, y);
            for lane in 0..FLOAT_BLOCK {
                let c = block * FLOAT_BLOCK + lane;
                let known = c < input.shape.channels;
                let from = input.at(memory, if known { c / input.block } else { 0 }, y).add(c % input.block);
                for x in 0..output.shape.width {
                    // What fills the last block up must be finite, since it meets weights of zero.
                    let value = if known { scale.dequantize(*from.add(x * input.block)) } else { 0.0 };
                    *out.add(x * FLOAT_BLOCK + lane) = value;
                }
            }
            output.zero_border(memory, block, y);
        }
    }
}

/// The f32 engine's blocks → bytes.
///
/// # Safety
/// As for [`unpack`].
pub unsafe fn to_bytes(
    memory: &ThreadMemory,
    input: &FloatView,
    scale: TensorScale,
    output: &ByteView,
    rows: Range<usize>,
) {
    for y in rows {
        // Whole blocks, in vectors; what fills the last one up has no meaning in either form.
        for block in 0..input.blocks() {
            let from = input.at(memory, block, y).cast::<[f32; FLOAT_BLOCK]>();
            let first = block * FLOAT_BLOCK;
            let out = output.at(memory, first / output.block, y).add(first % output.block);
            let lanes = FLOAT_BLOCK.min(output.block);
            for x in 0..output.shape.width {
                let bytes = (*from.add(x)).map(|v| scale.quantize(v));
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.add(x * output.block), lanes);
            }
        }
        for block in 0..output.blocks() {
            output.fill_border(memory, block, y);
        }
    }
}

/// The sum of two operands.
///
/// # Safety
/// The views must lie within `memory`, and no other thread may write what this reads or touch what
/// it writes.
pub unsafe fn sum(
    memory: &ThreadMemory,
    operands: &[ScaledResidual; 2],
    output: &ByteView,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    let zero = f32::from(output.zero);
    for block in blocks {
        for y in rows.clone() {
            let out = output.at(memory, block, y);
            let rows = operands.each_ref().map(|o| o.tensor.at(memory, block, y, 0));
            for x in 0..output.shape.width {
                for lane in 0..BLOCK {
                    let value = |i: usize| {
                        let column = if operands[i].tensor.upsampled { x / 2 } else { x };
                        let q = *rows[i].add(column * BLOCK + lane);
                        (f32::from(q) - f32::from(operands[i].tensor.view.zero)) * operands[i].factor
                    };
                    *out.add(x * BLOCK + lane) = nearest_byte(value(0) + value(1) + zero);
                }
            }
            output.fill_border(memory, block, y);
        }
    }
}

/// Each pixel four times.
///
/// # Safety
/// As for [`sum`].
pub unsafe fn upsample(
    memory: &ThreadMemory,
    input: &ByteView,
    output: &ByteView,
    blocks: Range<usize>,
    rows: Range<usize>,
) {
    for block in blocks {
        for y in rows.clone() {
            let (from, out) = (input.at(memory, block, y / 2), output.at(memory, block, y));
            for x in 0..output.shape.width {
                std::ptr::copy_nonoverlapping(from.add(x / 2 * BLOCK), out.add(x * BLOCK), BLOCK);
            }
            output.fill_border(memory, block, y);
        }
    }
}

/// Channels to copy: `count` of `view` from `from` on, to those of the output from `to` on.
#[derive(Debug, Clone, Copy)]
pub struct CopiedBytes {
    pub view: ByteView,
    pub from: usize,
    pub to: usize,
    pub count: usize,
}

/// Copies channels to their places in the output.
///
/// # Safety
/// As for [`sum`].
pub unsafe fn copy(memory: &ThreadMemory, parts: &[CopiedBytes], output: &ByteView, rows: Range<usize>) {
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
        for block in 0..output.blocks() {
            output.fill_border(memory, block, y);
        }
    }
}
