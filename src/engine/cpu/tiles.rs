//! The innermost kernels: one tile of output pixels of one panel of output channels, held in
//! registers.
//!
//! Generic over the vector, the number of pixels `M` and of vectors `N`, so that the compiler
//! unrolls them fully; [`super::kernels`] instantiates them for each instruction set.

#![allow(clippy::needless_range_loop, reason = "what keeps the accumulators in registers; see `dense`")]

use super::input_channels::ChannelRun;
use super::simd::{Vector, BLOCK};
use crate::Activation;

/// The largest kernel side whose row pointers a tile can hold.
pub const MAX_KERNEL: usize = 8;

/// What a tile of a dense convolution reads and writes. Lengths are in floats.
///
/// `rows` holds, for each kernel row inside the input, the first of its pixels under the tile
/// (kernel column 0, channel 0). The weights are packed `[kernel row][kernel column][input channel,
/// in the order of the runs][N vectors]`.
#[derive(Clone, Copy)]
pub struct DenseTile {
    pub rows: [*const f32; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    /// The input channels.
    pub runs: *const ChannelRun,
    pub run_count: usize,
    /// From one input pixel to the next.
    pub column: usize,
    /// From the input of one output pixel to that of the next.
    pub pixel: usize,
    pub weights: *const f32,
    pub bias: *const f32,
    pub out: *mut f32,
    pub out_plane: usize,
    pub activation: Activation,
    /// Null: none. Otherwise that of the tile's first pixel.
    pub residual: *const f32,
    pub residual_plane: usize,
    /// Set when the residual is read through an upsampling by two; then, the tile's first column.
    pub upsampled_from: Option<usize>,
}

/// What a tile of a depthwise convolution reads and writes; the weights are packed
/// `[row][column][BLOCK]`.
#[derive(Clone, Copy)]
pub struct DepthwiseTile {
    pub rows: [*const f32; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    pub pixel: usize,
    pub weights: *const f32,
    pub bias: *const f32,
    pub out: *mut f32,
    pub activation: Activation,
    pub residual: *const f32,
    pub upsampled_from: Option<usize>,
}

/// Whether an activation is computed once the tile is stored; see [`activate_stored`].
#[inline(always)]
fn is_late(activation: Activation) -> bool {
    use Activation::{Hardsigmoid, Hardswish, Sigmoid, Silu};
    matches!(activation, Silu | Hardswish | Sigmoid | Hardsigmoid)
}

/// Offset in floats of the residual of a tile's `m`-th pixel.
#[inline(always)]
fn residual_offset(upsampled_from: Option<usize>, m: usize) -> usize {
    BLOCK * upsampled_from.map_or(m, |x| (x + m) / 2 - x / 2)
}

/// `M` output pixels × `N` vectors of channels. `PIXEL` is `tile.pixel` where it is known, else 0.
///
/// # Safety
/// Every pointer of the tile must be valid for what the lengths imply, and the function compiled
/// for `V`.
#[inline(always)]
pub unsafe fn dense<V: Vector, const M: usize, const N: usize, const PIXEL: usize>(tile: &DenseTile) {
    let pixel = if PIXEL == 0 { tile.pixel } else { PIXEL };
    let lanes = V::BLOCKS * BLOCK;
    let mut acc = [[V::zero(); N]; M];
    for v in 0..N {
        let bias = V::load(tile.bias.add(v * lanes));
        for row in &mut acc {
            row[v] = bias;
        }
    }
    let mut w = tile.weights;
    for row in 0..tile.row_count {
        for column in 0..tile.kernel {
            let input = tile.rows[row].add(column * tile.column);
            for run in 0..tile.run_count {
                let run = *tile.runs.add(run);
                let a = input.offset(run.offset);
                if run.len == BLOCK {
                    for k in 0..BLOCK {
                        multiply::<V, M, N>(&mut acc, a.add(k), pixel, w.add(k * N * lanes));
                    }
                } else {
                    for k in 0..run.len {
                        multiply::<V, M, N>(&mut acc, a.add(k), pixel, w.add(k * N * lanes));
                    }
                }
                w = w.add(run.len * N * lanes);
            }
        }
    }
    // Loops over indices: with iterators that borrow `acc` it was kept in memory, at half the
    // speed. Each choice once a tile and not once a value: a tile may be little more than its
    // epilogue.
    match tile.activation {
        Activation::Relu6 => {
            for m in 0..M {
                for v in 0..N {
                    acc[m][v] = acc[m][v].relu6();
                }
            }
        }
        Activation::Relu => {
            for m in 0..M {
                for v in 0..N {
                    acc[m][v] = acc[m][v].relu();
                }
            }
        }
        Activation::LeakyRelu => {
            for m in 0..M {
                for v in 0..N {
                    acc[m][v] = acc[m][v].leaky_relu();
                }
            }
        }
        _ => {}
    }
    let late = is_late(tile.activation);
    if !tile.residual.is_null() && !late {
        for m in 0..M {
            let residual = tile.residual.add(residual_offset(tile.upsampled_from, m));
            for v in 0..N {
                let at = residual.add(v * V::BLOCKS * tile.residual_plane);
                acc[m][v] = acc[m][v].add(V::load_blocks(at, tile.residual_plane));
            }
        }
    }
    for (m, row) in acc.iter().enumerate() {
        for (v, &value) in row.iter().enumerate() {
            value.store_blocks(tile.out.add(m * BLOCK + v * V::BLOCKS * tile.out_plane), tile.out_plane);
        }
    }
    if late {
        activate_stored::<V>(tile, M, N);
    }
}

/// The longer activations, and the residual after them, over a tile that was just stored: unrolled
/// over registers, they would be too much for the compiler, which then keeps the accumulators in
/// memory throughout.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
unsafe fn activate_stored<V: Vector>(tile: &DenseTile, pixels: usize, vectors: usize) {
    for m in 0..pixels {
        for v in 0..vectors {
            let out = tile.out.add(m * BLOCK + v * V::BLOCKS * tile.out_plane);
            let mut value = V::load_blocks(out, tile.out_plane);
            value = value.activate(tile.activation);
            if !tile.residual.is_null() {
                let residual = tile.residual.add(residual_offset(tile.upsampled_from, m));
                value =
                    value.add(V::load_blocks(residual.add(v * V::BLOCKS * tile.residual_plane), tile.residual_plane));
            }
            value.store_blocks(out, tile.out_plane);
        }
    }
}

/// Adds the outer product of one input channel of `M` pixels and its weights.
///
/// # Safety
/// As for [`dense`].
#[inline(always)]
unsafe fn multiply<V: Vector, const M: usize, const N: usize>(
    acc: &mut [[V; N]; M],
    a: *const f32,
    pixel: usize,
    w: *const f32,
) {
    let mut weights = [V::zero(); N];
    for (v, weight) in weights.iter_mut().enumerate() {
        *weight = V::load(w.add(v * V::BLOCKS * BLOCK));
    }
    for (m, row) in acc.iter_mut().enumerate() {
        let x = V::broadcast(a.add(m * pixel));
        for v in 0..N {
            row[v] = row[v].multiply_add(x, weights[v]);
        }
    }
}

/// `M` output pixels of one block. `KERNEL` and `STRIDE` are the convolution's where they are
/// known, else 0.
///
/// # Safety
/// As for [`dense`]; `V` must be one block wide.
#[inline(always)]
pub unsafe fn depthwise<V: Vector, const M: usize, const KERNEL: usize, const STRIDE: usize>(tile: &DepthwiseTile) {
    let kernel = if KERNEL == 0 { tile.kernel } else { KERNEL };
    let pixel = if STRIDE == 0 { tile.pixel } else { STRIDE * BLOCK };
    let mut acc = [V::load(tile.bias); M];
    let mut w = tile.weights;
    for row in 0..tile.row_count {
        let a = tile.rows[row];
        for column in 0..kernel {
            let weight = V::load(w.add(column * BLOCK));
            for (m, sum) in acc.iter_mut().enumerate() {
                *sum = sum.multiply_add(V::load(a.add(column * BLOCK + m * pixel)), weight);
            }
        }
        w = w.add(kernel * BLOCK);
    }
    match tile.activation {
        Activation::Relu6 => {
            for m in 0..M {
                acc[m] = acc[m].relu6();
            }
        }
        Activation::Relu => {
            for m in 0..M {
                acc[m] = acc[m].relu();
            }
        }
        Activation::LeakyRelu => {
            for m in 0..M {
                acc[m] = acc[m].leaky_relu();
            }
        }
        _ => {}
    }
    if is_late(tile.activation) {
        for (m, &value) in acc.iter().enumerate() {
            value.store_blocks(tile.out.add(m * BLOCK), 0);
        }
        for m in 0..M {
            let out = tile.out.add(m * BLOCK);
            let mut value = V::load(out);
            value = value.activate(tile.activation);
            if !tile.residual.is_null() {
                value = value.add(V::load(tile.residual.add(residual_offset(tile.upsampled_from, m))));
            }
            value.store_blocks(out, 0);
        }
        return;
    }
    if !tile.residual.is_null() {
        for m in 0..M {
            acc[m] = acc[m].add(V::load(tile.residual.add(residual_offset(tile.upsampled_from, m))));
        }
    }
    for (m, &value) in acc.iter().enumerate() {
        value.store_blocks(tile.out.add(m * BLOCK), 0);
    }
}

/// `rounds` rounds of independent multiply-adds in registers, what no kernel can beat; returns the
/// operations.
///
/// # Safety
/// The function must be compiled for `V`.
#[inline(always)]
pub unsafe fn peak<V: Vector>(rounds: usize) -> usize {
    const CHAINS: usize = 12;
    let one = std::hint::black_box(1.0);
    let (mut acc, a, b) = ([V::zero(); CHAINS], V::splat(one), V::splat(one));
    for _ in 0..rounds {
        for i in 0..CHAINS {
            acc[i] = acc[i].multiply_add(a, b);
        }
    }
    let mut sum = V::zero();
    for i in 0..CHAINS {
        sum = sum.add(acc[i]);
    }
    let mut out = [0.0f32; 2 * BLOCK];
    sum.store_blocks(out.as_mut_ptr(), BLOCK);
    std::hint::black_box(out);
    2 * rounds * CHAINS * V::BLOCKS * BLOCK
}
