//! Dense 3×3 convolutions of stride 1 by minimal filtering, F(4×4, 3×3) (Lavin & Gray 2016, "Fast Algorithms for
//! Convolutional Neural Networks", section 4): 36 products in place of 144 for a tile of 4×4 outputs, each of them a
//! matrix product over channels and tiles.
//!
//! Along each axis a patch of six inputs becomes six values, of which each is a product's; the 36 planes are kept
//! column by column (`6 · x + y`). Tiles lie row by row with one more in each row that holds nothing, so that all loops
//! run over long lines: of the values `4t + j` along an axis, the fifth and sixth of a tile are the first and second of the
//! next.
//!
//! - [`filters`]: the filters of the products, and their gradients; `tiles`: which tiles are computed together.
//! - `transforms`: of patches, tiles and gradients; `sides`: what they do along an axis.

mod filters;
mod sides;
mod tiles;
mod transforms;

use super::dense::matmul;
use super::Geometry;

pub use filters::{add_weight_gradient, Filters};
use sides::PRODUCTS;
use tiles::{bands, columns, Tiles, TILES};
use transforms::{put_tiles, transform_gradients, transform_patches};

/// Least pixels of a map: of a smaller one too much lies in tiles that reach beyond it.
const PIXELS: usize = 128;

/// Least channels: with fewer, what becomes of the patches outweighs the products.
const CHANNELS: usize = 16;

/// Whether a convolution is computed this way.
pub fn suits(g: &Geometry) -> bool {
    let conv = g.conv;
    conv.kernel == 3
        && conv.stride == 1
        && !conv.depthwise
        && g.input.channels.min(g.output.channels) >= CHANNELS
        && g.input.pixels().min(g.output.pixels()) >= PIXELS
        && g.pad_top.max(g.pad_left) <= 2
}

/// Images of a batch that are convolved together.
pub fn images_together(g: &Geometry) -> usize {
    TILES.div_ceil(Tiles::of(g.output).in_image()).min(4)
}

/// The convolution whose output is the gradient of another's input.
pub fn adjoint(g: &Geometry) -> Geometry {
    Geometry { conv: g.conv, input: g.output, output: g.input, pad_top: 2 - g.pad_top, pad_left: 2 - g.pad_left }
}

/// Length of the gradients of the 36 planes.
pub fn planes_len(g: &Geometry) -> usize {
    PRODUCTS * g.input.channels * g.output.channels
}

/// Values of scratch memory for so many images of this geometry.
pub fn scratch_len(g: &Geometry, images: usize) -> usize {
    let tiles = Tiles::of(g.output);
    let bands = bands(g, images);
    let widest = bands.iter().map(|band| columns(band, &tiles)).max().unwrap_or(0);
    let rows = bands.iter().flatten().map(|part| part.rows.len()).max().unwrap_or(0);
    PRODUCTS * (g.input.channels + g.output.channels) * widest + 56 * (rows + 1) * tiles.pitch + 8
}

/// Convolves images one after the other in `input`, with `filters`; added to `output` if `keep`, else written over it.
pub fn forward(g: &Geometry, filters: &Filters, input: &[f32], output: &mut [f32], keep: bool, scratch: &mut [f32]) {
    let (from, to, tiles) = (g.input.channels, g.output.channels, Tiles::of(g.output));
    for band in bands(g, output.len() / g.output.len()) {
        let n = columns(&band, &tiles);
        let (patches, rest) = scratch.split_at_mut(PRODUCTS * from * n);
        let (products, work) = rest.split_at_mut(PRODUCTS * to * n);
        transform_patches(g, &tiles, &band, input, patches, work);
        for (p, product) in products.chunks_mut(to * n).enumerate() {
            let filter = &filters.values[p * to * from..][..to * from];
            let lhs = (filter, filters.steps.0, filters.steps.1);
            matmul((to, n, from), product, n, 0.0, lhs, (&patches[p * from * n..], n, 1));
        }
        put_tiles(g.output, &tiles, &band, products, output, keep, work);
    }
}

/// Adds to the gradients of the 36 planes, `[36, out, in]`, over images one after the other.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_planes: &mut [f32], scratch: &mut [f32]) {
    let (from, to, tiles) = (g.input.channels, g.output.channels, Tiles::of(g.output));
    for band in bands(g, d_output.len() / g.output.len()) {
        let n = columns(&band, &tiles);
        let (patches, rest) = scratch.split_at_mut(PRODUCTS * from * n);
        let (gradients, work) = rest.split_at_mut(PRODUCTS * to * n);
        transform_patches(g, &tiles, &band, input, patches, work);
        transform_gradients(g.output, &tiles, &band, d_output, gradients, work);
        for (p, plane) in d_planes.chunks_mut(to * from).enumerate() {
            let (gradient, patch) = (&gradients[p * to * n..], &patches[p * from * n..]);
            matmul((to, from, n), plane, from, 1.0, (gradient, n, 1), (patch, 1, n));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{check, dense};
    use super::sides::TAPS;
    use super::*;
    use peregrine_engine::{Activation, Conv, Padding, Shape};

    /// All three passes of `images` images by both ways.
    fn agree(from: usize, to: usize, (height, width): (usize, usize), images: usize) {
        let conv =
            Conv { kernel: 3, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let g = Geometry::new(conv, Shape::new(from, height, width), Shape::new(to, height, width));
        let input = check::values(images * g.input.len(), 1);
        let weight = check::values(to * from * TAPS, 2);
        let d_output = check::values(images * g.output.len(), 3);
        let mut scratch = vec![f32::NAN; scratch_len(&g, images).max(scratch_len(&adjoint(&g), images))];
        let mut plain = vec![0.0; dense::scratch_len(&g)];
        let close = |found: &[f32], expected: &[f32]| {
            let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-5 * (1.0 + largest), "{worst} of {largest}");
        };

        let mut output = vec![f32::NAN; images * g.output.len()];
        forward(&g, &Filters::new(&g, &weight), &input, &mut output, false, &mut scratch);
        let mut d_input = check::values(images * g.input.len(), 4);
        let mut expected_input = d_input.clone();
        forward(&adjoint(&g), &Filters::adjoint(&g, &weight), &d_output, &mut d_input, true, &mut scratch);
        let mut planes = vec![0.0; planes_len(&g)];
        backward_weight(&g, &input, &d_output, &mut planes, &mut scratch);
        let mut d_weight = check::values(weight.len(), 5);
        let mut expected_weight = d_weight.clone();
        add_weight_gradient(&planes, &mut d_weight);

        let mut expected = vec![0.0; output.len()];
        let of_images = input.chunks(g.input.len()).zip(d_output.chunks(g.output.len())).enumerate();
        for (i, (input, d_output)) in of_images {
            let (one, d_one) =
                (i * g.output.len()..(i + 1) * g.output.len(), i * g.input.len()..(i + 1) * g.input.len());
            dense::forward(&g, input, &weight, &mut expected[one], &mut plain);
            dense::backward_input(&g, &weight, d_output, &mut expected_input[d_one], true, &mut plain);
            dense::backward_weight(&g, input, d_output, &mut expected_weight, &mut plain);
        }
        close(&output, &expected);
        close(&d_input, &expected_input);
        close(&d_weight, &expected_weight);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn passes_are_those_of_the_matrix_product(
            (from, to) in (1usize..40, 1usize..40), size in (1usize..30, 1usize..30), images in 1usize..4,
        ) {
            agree(from, to, size, images);
        }
    }

    #[test]
    fn maps_that_take_several_bands_are_put_together() {
        agree(64, 48, (60, 33), 2);
    }
}
