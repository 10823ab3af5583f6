//! Weights in the order in which the kernels read them.

use half::f16;

use super::kernels::{Element, Tile};
use crate::engine::ConvWeights;

/// Shape `[out, in, kernel, kernel]` of a dense convolution's weights.
pub type DenseShape = [usize; 4];

/// For `kernels/convolution.cu`: `[tile of channels][step of the depth][8 channels][lane][16 bytes]`, zeros where a tile
/// reaches past the last channel.
///
/// A lane's 16 bytes are contiguous input channels of one output channel, at which the kernel's permutations of depth
/// and columns are undone.
pub fn dense<T: Copy + Default>(weights: &[T], shape: DenseShape, element: Element, tile: Tile) -> Vec<T> {
    let [out, channels, kernel, _] = shape;
    let chunks = padded_channels(channels, element).div_ceil(element.chunk());
    let tiles = tiles(out, tile);
    let (per_lane, columns) = (element.per_lane(), tile.columns);
    let mut packed = Vec::with_capacity(tiles * kernel * kernel * chunks * columns * 32 * per_lane);
    for t in 0..tiles {
        for (tap, chunk) in (0..kernel * kernel).flat_map(|tap| (0..chunks).map(move |chunk| (tap, chunk))) {
            for (column, lane) in (0..columns).flat_map(|c| (0..32).map(move |lane| (c, lane))) {
                let (group, quad) = (lane / 4, lane % 4);
                let to = t * tile.warp_channels() + group / 2 * 2 * columns + 2 * column + group % 2;
                let first = chunk * element.chunk() + quad * per_lane;
                packed.extend((first..first + per_lane).map(|from| match to < out && from < channels {
                    true => weights[(to * channels + from) * kernel * kernel + tap],
                    false => T::default(),
                }));
            }
        }
    }
    packed
}

/// Warps' tiles of channels over `out` channels, whole blocks of them.
pub fn tiles(out: usize, tile: Tile) -> usize {
    out.div_ceil(tile.channels()) * tile.warps[1]
}

/// Channels with the padding that tensors of `element` have.
pub fn padded_channels(channels: usize, element: Element) -> usize {
    channels.next_multiple_of(element.per_lane())
}

/// For `kernels/depthwise.cu`: `[kernel row][kernel column][channels, padded to 8]`.
pub fn depthwise(weights: &ConvWeights, kernel: usize) -> Vec<f16> {
    let channels = weights.bias.len();
    let padded = channels.next_multiple_of(8);
    let at = |tap: usize, c: usize| match c < channels {
        true => f16::from_f32(weights.weight[c * kernel * kernel + tap]),
        false => f16::ZERO,
    };
    (0..kernel * kernel).flat_map(|tap| (0..padded).map(move |c| at(tap, c))).collect()
}

/// For `kernels/stem.cu`: `[kernel row][kernel column][4][channels, padded to `multiple`]`.
pub fn stem(weights: &ConvWeights, shape: DenseShape, multiple: usize) -> Vec<f32> {
    let [out, channels, kernel, _] = shape;
    let padded = out.next_multiple_of(multiple);
    let at = |tap: usize, from: usize, to: usize| match from < channels && to < out {
        true => weights.weight[(to * channels + from) * kernel * kernel + tap],
        false => 0.0,
    };
    let taps = 0..kernel * kernel;
    taps.flat_map(|tap| (0..4).flat_map(move |from| (0..padded).map(move |to| at(tap, from, to)))).collect()
}

/// `values` with zeros up to `length`.
pub fn padded(values: &[f32], length: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(length.max(values.len()), 0.0);
    values
}
