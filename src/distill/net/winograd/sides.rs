//! What the transforms do along one axis, at many places at once: the matrices of F(4×4, 3×3) by Lavin & Gray 2016,
//! section 4.3.

use std::array::from_fn;
use std::ops::Range;

/// Outputs of a tile along an axis.
pub const TILE: usize = 4;
/// Inputs of a tile along an axis.
pub const PATCH: usize = 6;
/// Of a tile.
pub const PRODUCTS: usize = PATCH * PATCH;
/// Of a filter.
pub const TAPS: usize = 9;

/// `f` of the values at each place of `from`, for as many places as there are in `into`.
#[inline(always)]
pub fn map<const K: usize, const L: usize>(
    from: [&[f32]; K],
    mut into: [&mut [f32]; L],
    f: impl Fn([f32; K]) -> [f32; L],
) {
    let len = into[0].len();
    let mut inputs = from;
    for input in &mut inputs {
        *input = &input[..len];
    }
    for output in &mut into {
        assert_eq!(output.len(), len);
    }
    for place in 0..len {
        let mut values = [0.0; K];
        for (value, input) in values.iter_mut().zip(&inputs) {
            *value = input[place];
        }
        let values = f(values);
        for (output, value) in into.iter_mut().zip(values) {
            output[place] = value;
        }
    }
}

/// The first `N` pieces of `len` values.
#[inline(always)]
pub fn split<const N: usize>(values: &mut [f32], len: usize) -> [&mut [f32]; N] {
    parts(values, len, 0..len)
}

/// The same part of each of the first `N` pieces of `len` values.
#[inline(always)]
pub fn parts<const N: usize>(values: &mut [f32], len: usize, part: Range<usize>) -> [&mut [f32]; N] {
    let mut pieces = values.chunks_exact_mut(len);
    from_fn(|_| &mut pieces.next().expect("there are as many")[part.clone()])
}

/// `G`: from three taps.
#[inline(always)]
pub fn filter_side([a, b, c]: [f32; 3]) -> [f32; PATCH] {
    let (ends, far) = ((a + c) / 6.0, a / 24.0 + c / 6.0);
    [a / 4.0, -(ends + b / 6.0), b / 6.0 - ends, far + b / 12.0, far - b / 12.0, c]
}

/// `Gᵀ`.
#[inline(always)]
pub fn filter_gradient_side([a, b, c, d, e, f]: [f32; PATCH]) -> [f32; 3] {
    [a / 4.0 - (b + c) / 6.0 + (d + e) / 24.0, (c - b) / 6.0 + (d - e) / 12.0, (d + e - b - c) / 6.0 + f]
}

/// `Bᵀ`: from six inputs.
#[inline(always)]
pub fn patch_side([a, b, c, d, e, f]: [f32; PATCH]) -> [f32; PATCH] {
    let (even, odd) = (e - 4.0 * c, d - 4.0 * b);
    let (near, far) = (e - c, 2.0 * (d - b));
    [4.0 * a - 5.0 * c + e, even + odd, even - odd, near + far, near - far, 4.0 * b - 5.0 * d + f]
}

/// `Aᵀ`: to four outputs.
#[inline(always)]
pub fn tile_side([a, b, c, d, e, f]: [f32; PATCH]) -> [f32; TILE] {
    let (near, far) = (b + c, d + e);
    let (near_odd, far_odd) = (b - c, d - e);
    [a + near + far, near_odd + 2.0 * far_odd, near + 4.0 * far, near_odd + 8.0 * far_odd + f]
}

/// `A`: from the gradients of four outputs.
#[inline(always)]
pub fn gradient_side([a, b, c, d]: [f32; TILE]) -> [f32; PATCH] {
    let (even, odd) = (a + c, b + d);
    let (far_even, far_odd) = (a + 4.0 * c, 2.0 * b + 8.0 * d);
    [a, even + odd, even - odd, far_even + far_odd, far_even - far_odd, d]
}
