//! The matrix products between the transforms.

use super::super::layout::BLOCK;
use super::simd::WinogradLanes;

/// What the products of one transformed filter read and write: `[block][tile][16]` words, and as many sums.
/// Lengths are in words.
pub struct ProductTile {
    /// The first tile's words of the first block.
    pub from: *const i16,
    /// From one block to the next, and how many there are.
    pub plane: usize,
    pub blocks: usize,
    /// Pairs of inputs in a block: not a constant, since loops that are unrolled over them are summed in another order,
    /// for which there are not enough registers.
    pub pairs: usize,
    /// `[pair of inputs][16 outputs][2 inputs]`
    pub weights: *const i16,
    /// The first tile's sums.
    pub out: *mut i32,
}

/// `M` tiles × a block of outputs.
///
/// # Safety
/// Every pointer of the tile must be valid for what the lengths imply, and the function compiled for `L`.
#[inline(always)]
pub unsafe fn multiply<L: WinogradLanes, const M: usize>(tile: &ProductTile) {
    let mut sums = [L::zero(); M];
    let (mut a, mut w) = (tile.from, tile.weights);
    for _ in 0..tile.blocks {
        for pair in 0..tile.pairs {
            let weights = L::pairs(w.add(pair * 2 * BLOCK));
            for (m, sum) in sums.iter_mut().enumerate() {
                *sum = sum.dot_pairs(L::broadcast_pair(a.add(m * BLOCK + 2 * pair)), weights);
            }
        }
        w = w.add(BLOCK * BLOCK);
        a = a.add(tile.plane);
    }
    for (m, sum) in sums.iter().enumerate() {
        sum.store(tile.out.add(m * BLOCK));
    }
}
