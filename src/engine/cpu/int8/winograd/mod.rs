//! 3×3 convolutions of stride 1 by F(4×4, 3×3) in whole numbers: a quarter of the multiplications, and
//! the same sums to the last bit.
//!
//! The formula is that of the f32 engine's [`winograd`](super::super::winograd). Its filter transform
//! has fractions; here each row of G is multiplied by what makes it whole (4, 6, 6, 24, 24, 1), and the
//! output transform's rows by 24 over that. What then comes out is 24² times the sum. All of it is
//! computed modulo 2³², where an odd factor has an inverse, so the sum is found again wherever
//! 24² / 9 times it fits 32 bits ([`Winograd::suits`] asks for that). Transformed bytes and filters fit
//! 16 bits, so AVX2 has two instructions for 16 products, where direct convolution has three for 32 and
//! four times as many products.

mod products;
mod simd;
mod transforms;

use std::ops::Range;

use super::super::band_split::BandSplit;
use super::super::dispatch::split_evenly;
use super::super::layout::ThreadMemory;
use super::layout::{ByteView, BLOCK};
use super::tiles::Epilogue;
use crate::Conv;
pub use products::{multiply, ProductTile};
pub use simd::{WinogradLanes, Words};
pub use transforms::{input, output, InputPatch, OutputPatch, TILE};
use transforms::{transformed_filter, PATCH, PRODUCTS};

/// Bytes of transformed inputs that a band may take, where one tile row allows: half of a 512 KiB
/// second-level cache.
const BAND_BYTES: usize = 256 * 1024;

/// The largest sum in magnitude, since 64 times it must fit 32 bits.
const LARGEST_SUM: u64 = (1 << 25) - 1;

/// The kernels of one instruction set.
pub struct WinogradKernels {
    /// [`input`] in its vectors.
    pub input: unsafe fn(&InputPatch),
    /// [`multiply`] for 1, 2, … tiles.
    pub multiply: &'static [unsafe fn(&ProductTile)],
    /// [`output`] in its vectors.
    pub output: unsafe fn(&OutputPatch),
}

/// A convolution's filters, transformed and packed.
pub struct Winograd {
    /// `[block of outputs][product][pair of inputs][16 outputs][2 inputs]`: in the order in which they are read.
    weights: Vec<i16>,
    /// Words of one product of one block of outputs.
    panel: usize,
    /// Blocks of inputs.
    from: usize,
    /// Tiles across.
    across: usize,
    split: BandSplit,
    kernels: &'static WinogradKernels,
}

impl Winograd {
    /// Whether F(4×4, 3×3) applies, is faster than direct convolution and exact.
    ///
    /// With few channels the transforms cost more than the products save; with few tiles so does reading
    /// more weights.
    pub fn suits(conv: Conv, input: &ByteView, to: usize, weights: &[i8]) -> bool {
        let shape = input.shape;
        let largest = |filters: &[i8]| {
            let sum = |sign: i8| filters.iter().map(|w| u64::from((w * sign).max(0).unsigned_abs())).sum::<u64>();
            255 * sum(1).max(sum(-1))
        };
        (conv.kernel, conv.stride, conv.depthwise) == (3, 1, false)
            && input.block == BLOCK
            && shape.channels >= BLOCK
            && to >= BLOCK
            && shape.height.div_ceil(TILE) * shape.width.div_ceil(TILE) >= 12
            && weights.chunks_exact(9 * shape.channels).all(|filters| largest(filters) <= LARGEST_SUM)
    }

    /// Transforms and packs the weights `[to, input's channels, 3, 3]`, for as many `threads`.
    pub fn new(input: &ByteView, to: usize, weights: &[i8], kernels: &'static WinogradKernels, threads: usize) -> Self {
        let channels = input.shape.channels;
        let (from, to_blocks) = (input.blocks(), to.div_ceil(BLOCK));
        let across = input.shape.width.div_ceil(TILE);
        let tile_row = PRODUCTS * across * from * BLOCK * size_of::<i16>();
        let tile_rows = input.shape.height.div_ceil(TILE);
        let band = (BAND_BYTES / tile_row).clamp(1, tile_rows);
        let panel = from * BLOCK * BLOCK;
        let mut packed = vec![0; PRODUCTS * to_blocks * panel];
        for (filter, taps) in weights.chunks_exact(9).enumerate() {
            let (o, i) = (filter / channels, filter % channels);
            let at = o / BLOCK * PRODUCTS * panel + i / 2 * 2 * BLOCK + o % BLOCK * 2 + i % 2;
            for (product, value) in transformed_filter(taps).into_iter().enumerate() {
                packed[product * panel + at] = value;
            }
        }
        let split = BandSplit::new(threads, (tile_rows, band), to_blocks, size_of_val(packed.as_slice()));
        Self { weights: packed, panel, from, across, split, kernels }
    }

    /// Bytes of the transformed filters.
    pub fn weight_bytes(&self) -> usize {
        size_of_val(self.weights.as_slice())
    }

    /// Bytes of scratch that it takes.
    pub fn scratch(&self) -> usize {
        PRODUCTS * (self.from + 2) * self.plane()
    }

    /// How threads share it; its groups are blocks of outputs.
    pub fn split(&self) -> &BandSplit {
        &self.split
    }

    /// Tiles across a row.
    pub fn across(&self) -> usize {
        self.across
    }

    /// Bytes of one block's words of one product, in an odd number of cache lines, as in a view.
    fn plane(&self) -> usize {
        ((self.split.band() * self.across * BLOCK * size_of::<i16>()).div_ceil(64) | 1) * 64
    }

    /// The words of a tile of a block, of the first product: the others are `from` planes apart.
    ///
    /// # Safety
    /// The thread's scratch must have [`scratch`](Self::scratch) bytes; the tile must be within the band.
    unsafe fn transformed(&self, memory: &ThreadMemory, block: usize, tile: usize) -> *mut i16 {
        memory.scratch.cast::<u8>().add(block * self.plane()).cast::<i16>().add(tile * BLOCK)
    }

    /// The sums of a tile, of the first product, likewise, after all words: the others are two planes apart.
    ///
    /// # Safety
    /// As for [`transformed`](Self::transformed).
    unsafe fn products(&self, memory: &ThreadMemory, tile: usize) -> *mut i32 {
        let words = PRODUCTS * self.from * self.plane();
        memory.scratch.cast::<u8>().add(words).cast::<i32>().add(tile * BLOCK)
    }

    /// Bᵀ d B of every block and tile under output rows `rows`, which are no more than a band.
    ///
    /// # Safety
    /// The view must lie within `memory` and have a border of one pixel, and the thread's scratch must have
    /// [`scratch`](Self::scratch) bytes.
    pub unsafe fn transform_inputs(&self, memory: &ThreadMemory, view: &ByteView, rows: Range<usize>) {
        for block in 0..self.from {
            for (tile_row, y) in rows.clone().step_by(TILE).enumerate() {
                let mut from = [std::ptr::null(); PATCH];
                for (i, row) in from.iter_mut().enumerate() {
                    // One row of padding above: unsigned, so that -1 is far beyond the height.
                    let y = (y + i).wrapping_sub(1);
                    if y < view.shape.height {
                        // Column -1, which is in the border.
                        *row = view.at(memory, block, y).sub(BLOCK).cast_const();
                    }
                }
                for tile in 0..self.across {
                    let x = tile * TILE;
                    (self.kernels.input)(&InputPatch {
                        rows: from.map(|row| if row.is_null() { row } else { row.add(x * BLOCK) }),
                        columns: PATCH.min(view.shape.width + 2 - x),
                        zero: view.zero,
                        out: self.transformed(memory, block, tile_row * self.across + tile),
                        step: self.from * self.plane() / size_of::<i16>(),
                    });
                }
            }
        }
    }

    /// The products of a block of outputs and the first `tiles` tiles.
    ///
    /// # Safety
    /// As for [`transform_inputs`](Self::transform_inputs), which must have been called.
    pub unsafe fn multiply(&self, memory: &ThreadMemory, block: usize, tiles: usize) {
        let most = self.kernels.multiply.len();
        for product in 0..PRODUCTS {
            let from = product * self.from * self.plane() / size_of::<i16>();
            let to = product * 2 * self.plane() / size_of::<i32>();
            let weights = self.weights.as_ptr().add((block * PRODUCTS + product) * self.panel);
            for (first, length) in split_evenly(tiles, most) {
                (self.kernels.multiply[length - 1])(&ProductTile {
                    from: self.transformed(memory, 0, first).add(from),
                    plane: self.plane() / size_of::<i16>(),
                    blocks: self.from,
                    pairs: BLOCK / 2,
                    weights,
                    out: self.products(memory, first).add(to),
                });
            }
        }
    }

    /// Aᵀ m A of a tile, which is the `tile`-th of the band, and what becomes of the sums of its rows.
    ///
    /// # Safety
    /// As for [`multiply`](Self::multiply), which must have been called for the block that the epilogues are of;
    /// `start` points to what its sums start from, and `width` is that of the tile within the map.
    pub unsafe fn transform_outputs(
        &self,
        memory: &ThreadMemory,
        tile: usize,
        start: *const i32,
        rows: &[Epilogue],
        width: usize,
    ) {
        let step = 2 * self.plane() / size_of::<i32>();
        (self.kernels.output)(&OutputPatch { from: self.products(memory, tile), step, start, rows, width });
    }
}
