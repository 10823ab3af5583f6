//! The innermost integer kernels: one tile of output pixels of one panel of output channels, held
//! in registers.

#![allow(clippy::needless_range_loop, reason = "what keeps the sums in registers, as in the f32 tiles")]

use super::super::simd::{Portable as FloatVector, Vector};
use super::super::tiles::MAX_KERNEL;
use super::layout::{BLOCK, QUAD};
use super::simd::{Lanes, Reals};
use crate::quantization::LateActivation;
use crate::Activation;

/// [`activate`], compiled for an instruction set.
pub type Activate = unsafe fn(&LateActivation, &mut [[f32; BLOCK]]);

/// What happens to the sums; see [`Requantization`](crate::quantization::Requantization).
#[derive(Clone, Copy)]
pub struct Epilogue {
    pub factor: *const f32,
    pub offset: *const f32,
    /// The activation's bounds, where they are narrower than a byte's.
    pub bounds: Option<(f32, f32)>,
    /// An activation in real numbers, and [`activate`] in the vectors of the instruction set.
    pub late: Option<(LateActivation, Activate)>,
    /// Null: none. Otherwise that of the tile's first pixel.
    pub residual: *const u8,
    pub residual_plane: usize,
    pub residual_zero: f32,
    pub residual_factor: f32,
    /// Set when the residual is read through an upsampling by two; then, the tile's first column.
    pub upsampled_from: Option<usize>,
    /// The tile's first pixel, in bytes; null where the result is real.
    pub out: *mut u8,
    pub out_plane: usize,
    /// The tile's first pixel of the first channel, planar.
    pub floats: *mut f32,
    /// From one channel to the next.
    pub float_plane: usize,
    /// Channels left to write, of real results only.
    pub float_channels: usize,
}

/// What a tile of a dense convolution reads and writes. Lengths are in bytes.
///
/// `rows` holds, for each kernel row inside the input, the first of its pixels under the tile
/// (kernel column 0, block 0). The weights are packed `[kernel row][kernel column][quad of input
/// channels][N blocks][16 outputs][4 inputs]`.
#[derive(Clone, Copy)]
pub struct IntegerDenseTile {
    pub rows: [*const u8; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    /// From one kernel column to the next.
    pub column: usize,
    /// From one channel block of the input to the next.
    pub plane: usize,
    /// Whole blocks of input channels, and quads of the rest.
    pub blocks: usize,
    pub rest: usize,
    /// From the input of one output pixel to that of the next.
    pub pixel: usize,
    pub weights: *const i8,
    /// What the sums start from.
    pub start: *const i32,
    pub epilogue: Epilogue,
}

/// What a tile of a depthwise convolution reads and writes; the weights are packed `[row][quad of
/// columns][16][4 columns]`, or, for [`sliding`], `[row][shift 0…3][2 quads of pixels][16][4
/// pixels]`.
#[derive(Clone, Copy)]
pub struct IntegerDepthwiseTile {
    pub rows: [*const u8; MAX_KERNEL],
    pub row_count: usize,
    pub quads: usize,
    pub pixel: usize,
    pub weights: *const i8,
    pub start: *const i32,
    pub epilogue: Epilogue,
}

/// `M` output pixels × `N` blocks of channels. `PIXEL` is `tile.pixel` where it is known, else 0.
///
/// # Safety
/// Every pointer of the tile must be valid for what the lengths imply, and the function compiled
/// for `L`.
#[inline(always)]
pub unsafe fn dense<L: Lanes, const M: usize, const N: usize, const PIXEL: usize>(tile: &IntegerDenseTile) {
    let pixel = if PIXEL == 0 { tile.pixel } else { PIXEL };
    let mut sums = [[L::load(tile.start); N]; M];
    for n in 1..N {
        let start = L::load(tile.start.add(n * BLOCK));
        for m in 0..M {
            sums[m][n] = start;
        }
    }
    let mut w = tile.weights;
    for row in 0..tile.row_count {
        for column in 0..tile.kernel {
            let mut a = tile.rows[row].add(column * tile.column);
            for _ in 0..tile.blocks {
                for quad in 0..BLOCK / QUAD {
                    multiply::<L, M, N>(&mut sums, a.add(quad * QUAD), pixel, w.add(quad * N * BLOCK * QUAD));
                }
                w = w.add(N * BLOCK * BLOCK);
                a = a.add(tile.plane);
            }
            for quad in 0..tile.rest {
                multiply::<L, M, N>(&mut sums, a.add(quad * QUAD), pixel, w);
                w = w.add(N * BLOCK * QUAD);
            }
        }
    }
    finish(&sums, &tile.epilogue);
}

/// Adds the products of four input channels of `M` pixels and their weights.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
unsafe fn multiply<L: Lanes, const M: usize, const N: usize>(
    sums: &mut [[L; N]; M],
    a: *const u8,
    pixel: usize,
    w: *const i8,
) {
    let mut weights = [L::weights(w); N];
    for n in 1..N {
        weights[n] = L::weights(w.add(n * BLOCK * QUAD));
    }
    for m in 0..M {
        let x = L::broadcast(a.add(m * pixel));
        for n in 0..N {
            sums[m][n] = sums[m][n].dot(x, weights[n]);
        }
    }
}

/// `M` output pixels of one block. `QUADS` and `PIXEL` are the tile's where they are known, else 0.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
pub unsafe fn depthwise<L: Lanes, const M: usize, const QUADS: usize, const PIXEL: usize>(tile: &IntegerDepthwiseTile) {
    let quads = if QUADS == 0 { tile.quads } else { QUADS };
    let pixel = if PIXEL == 0 { tile.pixel } else { PIXEL };
    let mut sums = [[L::load(tile.start)]; M];
    let mut w = tile.weights;
    for row in 0..tile.row_count {
        for quad in 0..quads {
            let weights = L::weights(w);
            w = w.add(BLOCK * QUAD);
            let a = tile.rows[row].add(quad * QUAD * BLOCK);
            for m in 0..M {
                sums[m][0] = sums[m][0].dot(L::transpose(a.add(m * pixel)), weights);
            }
        }
    }
    finish(&sums, &tile.epilogue);
}

/// `M` output pixels of one block at stride 1, for a `KERNEL` of 3 or 5: four pixels are transposed
/// once and serve all outputs whose window they are in, with the weights shifted by the output's
/// place among four.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
pub unsafe fn sliding<L: Lanes, const M: usize, const KERNEL: usize>(tile: &IntegerDepthwiseTile) {
    let mut sums = [[L::load(tile.start)]; M];
    let quad_bytes = BLOCK * QUAD;
    for row in 0..tile.row_count {
        let (a, w) = (tile.rows[row], tile.weights.add(row * 2 * QUAD * quad_bytes));
        let mut x = [L::transpose(a); SLIDING_QUADS];
        for quad in 1..(M + KERNEL - 2) / QUAD + 1 {
            x[quad] = L::transpose(a.add(quad * quad_bytes));
        }
        for shift in 0..QUAD {
            let w = w.add(shift * 2 * quad_bytes);
            let first = L::weights(w);
            for m in (shift..M).step_by(QUAD) {
                sums[m][0] = sums[m][0].dot(x[m / QUAD], first);
            }
            if shift + KERNEL > QUAD {
                let second = L::weights(w.add(quad_bytes));
                for m in (shift..M).step_by(QUAD) {
                    sums[m][0] = sums[m][0].dot(x[m / QUAD + 1], second);
                }
            }
        }
    }
    finish(&sums, &tile.epilogue);
}

/// Quads of pixels under the widest tile of [`sliding`]: 12 outputs of a kernel of 5.
const SLIDING_QUADS: usize = 4;

/// Offset of the residual of a tile's `m`-th pixel.
#[inline(always)]
fn residual_offset(upsampled_from: Option<usize>, m: usize) -> usize {
    BLOCK * upsampled_from.map_or(m, |x| (x + m) / 2 - x / 2)
}

/// From sums to results, and to where they go.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
pub unsafe fn finish<L: Lanes, const M: usize, const N: usize>(sums: &[[L; N]; M], e: &Epilogue) {
    let mut values = [[L::Reals::splat(0.0); N]; M];
    for m in 0..M {
        for n in 0..N {
            values[m][n] = sums[m][n].scale(e.factor.add(n * BLOCK), e.offset.add(n * BLOCK));
        }
    }
    // Each choice once a tile and not once a value: a tile may be little more than its epilogue.
    if let Some((low, high)) = e.bounds {
        for m in 0..M {
            for n in 0..N {
                values[m][n] = values[m][n].clamp(low, high);
            }
        }
    }
    if let Some((LateActivation { activation: Activation::LeakyRelu, factor, zero }, _)) = e.late {
        for m in 0..M {
            for n in 0..N {
                values[m][n] = values[m][n].leaky_relu(factor, zero);
            }
        }
    } else if let Some((late, activate)) = &e.late {
        let mut pixels = [[[0f32; BLOCK]; N]; M];
        for m in 0..M {
            for n in 0..N {
                values[m][n].store_floats(pixels[m][n].as_mut_ptr());
            }
        }
        // A call, since the tiles of networks without it must not grow; but for the one above, which is short.
        activate(late, pixels.as_flattened_mut());
        for m in 0..M {
            for n in 0..N {
                values[m][n] = L::Reals::load_floats(pixels[m][n].as_ptr());
            }
        }
    }
    if !e.residual.is_null() {
        for m in 0..M {
            let residual = e.residual.add(residual_offset(e.upsampled_from, m));
            for n in 0..N {
                let at = residual.add(n * e.residual_plane);
                values[m][n] = values[m][n].add_bytes(at, e.residual_zero, e.residual_factor);
            }
        }
    }
    if e.out.is_null() {
        return scatter(&values, e);
    }
    for m in 0..M {
        for n in 0..N {
            values[m][n].store_bytes(e.out.add(m * BLOCK + n * e.out_plane));
        }
    }
}

/// The activation of real numbers, in portable vectors whatever the instruction set: they round each
/// operation by itself.
#[inline(always)]
pub fn activate(late: &LateActivation, pixels: &mut [[f32; BLOCK]]) {
    for half in pixels.as_flattened_mut().chunks_exact_mut(BLOCK / 2) {
        // SAFETY: the half is as long as a vector, and portable vectors run anywhere.
        unsafe {
            let value = FloatVector::load(half.as_ptr()).activate(late.activation);
            let value = value.mul(FloatVector::splat(late.factor)).add(FloatVector::splat(late.zero));
            value.store_blocks(half.as_mut_ptr(), 0);
        }
    }
}

/// Writes real results to their channels' planes.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
unsafe fn scatter<R: Reals, const M: usize, const N: usize>(values: &[[R; N]; M], e: &Epilogue) {
    let mut pixels = [[0f32; BLOCK]; M];
    for n in 0..N {
        for m in 0..M {
            values[m][n].store_floats(pixels[m].as_mut_ptr());
        }
        // Channel by channel, so that the pixels of one are put together and stored at once.
        for c in n * BLOCK..e.float_channels.min((n + 1) * BLOCK) {
            let channel: [f32; M] = std::array::from_fn(|m| pixels[m][c - n * BLOCK]);
            e.floats.add(c * e.float_plane).cast::<[f32; M]>().write_unaligned(channel);
        }
    }
}

/// `rounds` rounds of products in registers, each of `VECTORS` of weights with `PIXELS` pixels as
/// in the kernels, what none of them can beat; returns the operations.
///
/// # Safety
/// The function must be compiled for `L`.
#[inline(always)]
pub unsafe fn peak<L: Lanes, const PIXELS: usize, const VECTORS: usize>(rounds: usize) -> usize {
    const STEPS: usize = 96;
    #[repr(align(64))]
    struct Weights([i8; STEPS * BLOCK * QUAD]);
    let (weights, x, start) = (Weights([1; STEPS * BLOCK * QUAD]), [[1u8; QUAD]; PIXELS], [0i32; BLOCK]);
    let mut sums = [[L::load(start.as_ptr()); VECTORS]; PIXELS];
    for _ in 0..rounds / STEPS {
        // Hidden anew each time: else products of what never changes would be formed once. Not at
        // each step, since what is hidden goes through memory.
        let (w, x) = (std::hint::black_box(weights.0.as_ptr()), std::hint::black_box(x.as_ptr()));
        let mut pixels = [L::broadcast(x.cast()); PIXELS];
        for pixel in 1..PIXELS {
            pixels[pixel] = L::broadcast(x.add(pixel).cast());
        }
        for step in 0..STEPS / VECTORS {
            for vector in 0..VECTORS {
                let w = L::weights(w.add((step * VECTORS + vector) * BLOCK * QUAD));
                for pixel in 0..PIXELS {
                    sums[pixel][vector] = sums[pixel][vector].dot(pixels[pixel], w);
                }
            }
        }
    }
    let (factor, mut out) = ([1.0; BLOCK], [0.0; BLOCK]);
    for sum in sums.as_flattened() {
        sum.scale(factor.as_ptr(), factor.as_ptr()).store_floats(out.as_mut_ptr());
        std::hint::black_box(out);
    }
    2 * (rounds / STEPS) * (STEPS / VECTORS * VECTORS) * PIXELS * BLOCK * QUAD
}
