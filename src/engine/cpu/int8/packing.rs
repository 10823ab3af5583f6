//! How an integer convolution's weights are packed.

use super::super::dispatch::{split_evenly, PanelKernels};
use super::kernels::IntegerKernels;
use super::layout::{BLOCK, QUAD};
use super::tiles::IntegerDenseTile;

/// Weights for a panel of output channels.
pub struct IntegerDensePanel {
    pub kernels: &'static PanelKernels<IntegerDenseTile>,
    pub first_block: usize,
    /// Offset into the packed weights.
    pub weights: usize,
}

/// Whether each pair of weights that `vpmaddubsw` adds up stays within 16 bits whatever the bytes.
pub fn pairs_fit(packed: &[i8]) -> bool {
    packed.chunks_exact(2).all(|p| u16::from(p[0].unsigned_abs()) + u16::from(p[1].unsigned_abs()) <= 128)
}

/// Whole blocks of 16 input channels, and quads of what remains.
pub fn blocks_and_rest(channels: usize, block: usize) -> (usize, usize) {
    if block == BLOCK {
        (channels / BLOCK, (channels % BLOCK).div_ceil(QUAD))
    } else {
        (0, 1)
    }
}

/// `[block][row][shift][quad of pixels][16 channels][4 pixels]`: one shift, 0, and the quads that
/// the kernel needs, or for `sliding` four and two.
pub fn pack_depthwise(kernel: usize, sliding: bool, blocks: usize, weight: &dyn Fn(usize, usize) -> i8) -> Vec<i8> {
    let (shifts, quads) = if sliding { (QUAD, 2) } else { (1, kernel.div_ceil(QUAD)) };
    let mut packed = vec![];
    for block in 0..blocks {
        for row in 0..kernel {
            for (shift, quad) in (0..shifts).flat_map(|s| (0..quads).map(move |q| (s, q))) {
                for channel in block * BLOCK..(block + 1) * BLOCK {
                    for pixel in quad * QUAD..(quad + 1) * QUAD {
                        let inside = (shift..shift + kernel).contains(&pixel);
                        packed.push(if inside { weight(channel, row * kernel + pixel - shift) } else { 0 });
                    }
                }
            }
        }
    }
    packed
}

/// Panels of even widths, each `[tap][quad of inputs][blocks][16 outputs][4 inputs]`.
pub fn pack_dense(
    kernels: &'static IntegerKernels,
    blocks: usize,
    from: usize,
    taps: usize,
    weight: &dyn Fn(usize, usize, usize) -> i8,
) -> (Vec<i8>, Vec<IntegerDensePanel>) {
    let (mut packed, mut panels) = (vec![], vec![]);
    let widest = kernels.panels.len();
    for (first_block, count) in split_evenly(blocks, widest) {
        let weights = packed.len();
        panels.push(IntegerDensePanel { kernels: &kernels.panels[count - 1], first_block, weights });
        for tap in 0..taps {
            for quad in 0..from.div_ceil(QUAD) {
                for output in first_block * BLOCK..(first_block + count) * BLOCK {
                    packed.extend((quad * QUAD..(quad + 1) * QUAD).map(|input| weight(output, input, tap)));
                }
            }
        }
    }
    (packed, panels)
}

/// −zero · Σ weights, over the kernel rows `first..past`, for all `first` and `past`.
pub fn starts(kernel: usize, channels: usize, zero: i32, sum_of_tap: &dyn Fn(usize, usize) -> i32) -> Vec<i32> {
    let row_sum = |o: usize, row: usize| (0..kernel).map(|k| sum_of_tap(o, row * kernel + k)).sum::<i32>();
    let sums: Vec<Vec<i32>> = (0..kernel).map(|row| (0..channels).map(|o| row_sum(o, row)).collect()).collect();
    let mut starts = vec![0; kernel * (kernel + 1) * channels];
    for first in 0..kernel {
        for past in first..=kernel {
            for o in 0..channels {
                let sum: i32 = sums[first..past].iter().map(|row| row[o]).sum();
                starts[(first * (kernel + 1) + past) * channels + o] = -zero * sum;
            }
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_fit_up_to_the_largest_exact_sum() {
        assert!(pairs_fit(&[64, 64, -64, 64, 1, 127, 0, -127]));
        assert!(!pairs_fit(&[0, 0, 65, -64]));
        // What the bound protects: 255 · 128 is within 16 bits, 255 · 129 is not.
        assert!(255 * 128 <= i32::from(i16::MAX) && 255 * 129 > i32::from(i16::MAX));
    }

    #[test]
    fn sums_start_from_the_zero_points_share_of_the_rows_inside() {
        // One channel, taps 1…9: rows sum to 6, 15 and 24.
        let starts = starts(3, 1, 2, &|_, tap| tap as i32 + 1);
        assert_eq!(starts[3], -2 * 45);
        assert_eq!(starts[4 + 3], -2 * 39);
        assert_eq!(starts[2], -2 * 21);
    }
}
