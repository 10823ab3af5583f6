//! Weights in the order in which the kernels read them.

use super::kernels::{Element, Tile};

/// Shape `[out, in, kernel, kernel]` of a dense convolution's weights.
pub type DenseShape = [usize; 4];

/// For `kernels/convolution.cu`: `[tile of channels][step of the depth][8 channels][lane][16
/// bytes]`, zeros where a tile reaches past the last channel.
///
/// A lane's 16 bytes are contiguous input channels of one output channel, at which the kernel's
/// permutations of depth and columns are undone.
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
                packed.extend((first..first + per_lane).map(|from| {
                    if to < out && from < channels {
                        weights[(to * channels + from) * kernel * kernel + tap]
                    } else {
                        T::default()
                    }
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

/// For depthwise kernels: `[kernel row][kernel column][channels, padded to 16 bytes]`, from
/// `[channel][row][column]`.
pub fn depthwise<T: Copy + Default>(weights: &[T], channels: usize, kernel: usize, element: Element) -> Vec<T> {
    let padded = padded_channels(channels, element);
    let at = |tap: usize, c: usize| if c < channels { weights[c * kernel * kernel + tap] } else { T::default() };
    (0..kernel * kernel).flat_map(|tap| (0..padded).map(move |c| at(tap, c))).collect()
}

/// For `kernels/stem.cu`: `[kernel row][kernel column][4][padded channels]`.
pub fn stem<T: Copy + Default>(weights: &[T], shape: DenseShape, padded: usize) -> Vec<T> {
    let taps = 0..shape[2] * shape[2];
    let at = first_layer(weights, shape);
    taps.flat_map(|tap| (0..4).flat_map(move |from| (0..padded).map(move |to| at(tap, from, to)))).collect()
}

/// For first layers in bytes: `[kernel row][kernel column][padded channels][4]`.
pub fn quads<T: Copy + Default>(weights: &[T], shape: DenseShape, padded: usize) -> Vec<T> {
    let taps = 0..shape[2] * shape[2];
    let at = first_layer(weights, shape);
    taps.flat_map(|tap| (0..padded).flat_map(move |to| (0..4).map(move |from| at(tap, from, to)))).collect()
}

/// A weight by its tap, input channel and output channel; zeros past the last of them.
fn first_layer<T: Copy + Default>(
    weights: &[T],
    [out, channels, kernel, _]: DenseShape,
) -> impl Fn(usize, usize, usize) -> T + Copy + '_ {
    move |tap, from, to| {
        if from < channels && to < out {
            weights[(to * channels + from) * kernel * kernel + tap]
        } else {
            T::default()
        }
    }
}

/// `values` with zeros up to `length`.
pub fn padded(values: &[f32], length: usize) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(length.max(values.len()), 0.0);
    values
}
