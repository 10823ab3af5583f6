//! The innermost kernels: one tile of output pixels of one panel of output channels, held in registers.
//!
//! Generic over the vector, the number of pixels `M` and of vectors `N`, so that the compiler unrolls them fully;
//! [`super::isa`] instantiates them for each instruction set.

#![allow(clippy::needless_range_loop, reason = "what keeps the accumulators in registers; see `dense`")]

use super::simd::{Vector, BLOCK};

/// The largest kernel side whose row pointers a tile can hold.
pub const MAX_KERNEL: usize = 7;

/// What a tile of a dense convolution reads and writes. Lengths are in floats.
///
/// `rows` holds, for each kernel row inside the input, the first of its pixels under the tile (kernel column 0,
/// channel block 0). The weights are packed `[kernel row][kernel column][input channel][N vectors]`.
#[derive(Clone, Copy)]
pub struct DenseTile {
    pub rows: [*const f32; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    /// From one channel block of the input to the next.
    pub plane: usize,
    /// Input channels, whole blocks and the rest.
    pub blocks: usize,
    pub rest: usize,
    /// From the input of one output pixel to that of the next.
    pub pixel: usize,
    pub weights: *const f32,
    pub bias: *const f32,
    pub out: *mut f32,
    pub out_plane: usize,
    pub relu6: bool,
    /// Null: none. Otherwise that of the tile's first pixel.
    pub residual: *const f32,
    pub residual_plane: usize,
    /// Set when the residual is read through an upsampling by two; then, the tile's first column.
    pub upsampled_from: Option<usize>,
}

/// What a tile of a depthwise convolution reads and writes; the weights are packed `[row][column][BLOCK]`.
#[derive(Clone, Copy)]
pub struct DepthwiseTile {
    pub rows: [*const f32; MAX_KERNEL],
    pub row_count: usize,
    pub kernel: usize,
    pub pixel: usize,
    pub weights: *const f32,
    pub bias: *const f32,
    pub out: *mut f32,
    pub relu6: bool,
    pub residual: *const f32,
    pub upsampled_from: Option<usize>,
}

/// Offset in floats of the residual of a tile's `m`-th pixel.
#[inline(always)]
fn residual_offset(upsampled_from: Option<usize>, m: usize) -> usize {
    BLOCK * upsampled_from.map_or(m, |x| (x + m) / 2 - x / 2)
}

/// `M` output pixels × `N` vectors of channels. `PIXEL` is `tile.pixel` where it is known, else 0.
///
/// # Safety
/// Every pointer of the tile must be valid for what the lengths imply, and the function compiled for `V`.
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
            let mut a = tile.rows[row].add(column * BLOCK);
            for _ in 0..tile.blocks {
                for k in 0..BLOCK {
                    multiply::<V, M, N>(&mut acc, a.add(k), pixel, w.add(k * N * lanes));
                }
                w = w.add(BLOCK * N * lanes);
                a = a.add(tile.plane);
            }
            for k in 0..tile.rest {
                multiply::<V, M, N>(&mut acc, a.add(k), pixel, w);
                w = w.add(N * lanes);
            }
        }
    }
    // Loops over indices: with iterators that borrow `acc` it was kept in memory, at half the speed.
    // Each choice once a tile and not once a value: a tile may be little more than its epilogue.
    if tile.relu6 {
        for m in 0..M {
            for v in 0..N {
                acc[m][v] = acc[m][v].relu6();
            }
        }
    }
    if !tile.residual.is_null() {
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
}

/// Adds the outer product of one input channel of `M` pixels and its weights.
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

/// `M` output pixels of one block. `KERNEL` and `STRIDE` are the convolution's where they are known, else 0.
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
    if tile.relu6 {
        for m in 0..M {
            acc[m] = acc[m].relu6();
        }
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
