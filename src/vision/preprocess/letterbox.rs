//! The letterbox: an image scaled into the network's input with its aspect kept, and boxes scaled back.

use peregrine_core::image::ImageView;
use peregrine_core::{BoundingBox, PixelInput};

use super::axis::{Axis, COLUMN_ONE, ROW_ONE};
use super::normalisation::Normalisation;
use super::resample::{pairs, Affine, Pair, Resampling};

/// Padding starts at a multiple of this, so that the cells of the segmentation map (stride 4) line up with the image.
const PAD_ALIGN: usize = 4;

/// The transform from one source size to one input size, with its tables of samples.
///
/// The image is scaled by the largest factor at which it fits and centred (to within four pixels); the rest
/// is padded with the mean colour, which normalises to zero. Sampling is bilinear; where it shrinks by more than two,
/// each output pixel is the mean of a grid of up to 4×4 samples over the area that it covers, which keeps fine texture
/// from aliasing.
#[derive(Debug, Clone)]
pub struct Letterbox {
    source: (usize, usize),
    input: (usize, usize),
    /// Size of the scaled image within the input.
    content: (usize, usize),
    /// Input pixels to the left of and above the scaled image.
    pad: (usize, usize),
    columns: Axis,
    rows: Axis,
    /// The columns' taps as [`Resampling`] takes them, as pairs.
    pairs: (usize, Vec<Pair>),
}

/// Samples of a [`Letterbox`]: for each column (and row) of the scaled image its source columns (rows), as pairs of
/// index and weight.
#[derive(Debug)]
pub struct Taps<I> {
    pub per_column: usize,
    pub columns: I,
    pub per_row: usize,
    pub rows: I,
}

impl Letterbox {
    /// The transform from `source` to `input`, each (width, height) in pixels. Allocates.
    ///
    /// # Panics
    /// When the source has no pixels, or a side of the input has fewer than 32, the least that a network takes.
    pub fn new(source: (usize, usize), input: (usize, usize)) -> Self {
        assert!(source.0 > 0 && source.1 > 0 && input.0 >= 32 && input.1 >= 32, "{source:?} to {input:?}");
        let scale = (input.0 as f64 / source.0 as f64).min(input.1 as f64 / source.1 as f64);
        let fit = |size: usize, limit: usize| ((size as f64 * scale).round() as usize).clamp(1, limit);
        let content = (fit(source.0, input.0), fit(source.1, input.1));
        let pad = |input: usize, content: usize| (input - content) / 2 / PAD_ALIGN * PAD_ALIGN;
        let columns = Axis::new(source.0, content.0, COLUMN_ONE);
        Self {
            source,
            input,
            content,
            pad: (pad(input.0, content.0), pad(input.1, content.1)),
            rows: Axis::new(source.1, content.1, ROW_ONE),
            pairs: pairs(&columns),
            columns,
        }
    }

    /// Width and height of the images that this transform takes.
    pub fn source(&self) -> (usize, usize) {
        self.source
    }

    /// Width and height of the network's input.
    pub fn input(&self) -> (usize, usize) {
        self.input
    }

    /// Width and height of the scaled image within the input.
    pub fn content(&self) -> (usize, usize) {
        self.content
    }

    /// Input pixels to the left of and above the scaled image.
    pub fn pad(&self) -> (usize, usize) {
        self.pad
    }

    /// The samples of every column and row, for engines that take them on a device of their own.
    pub fn taps(&self) -> Taps<impl Iterator<Item = [u32; 2]> + '_> {
        fn pairs(axis: &Axis) -> impl Iterator<Item = [u32; 2]> + '_ {
            axis.taps.iter().map(|tap| [tap.index, tap.weight])
        }
        Taps {
            per_column: self.columns.per_position,
            columns: pairs(&self.columns),
            per_row: self.rows.per_position,
            rows: pairs(&self.rows),
        }
    }

    /// Factor and offset for R, G and B that turn weighted sums of the [`taps`](Self::taps), columns' times rows', into a
    /// network's input.
    pub fn affine(normalisation: &Normalisation) -> ([f32; 3], [f32; 3]) {
        let Affine { factor: [r, g, b, _], offset: [s, t, u, _] } = Affine::new(normalisation);
        ([r, g, b], [s, t, u])
    }

    /// Input pixels for one source pixel, across and down. They differ only by the rounding of the content's size.
    pub fn scale(&self) -> (f32, f32) {
        (self.content.0 as f32 / self.source.0 as f32, self.content.1 as f32 / self.source.1 as f32)
    }

    /// A box of source pixels in input pixels.
    pub fn to_input(&self, b: BoundingBox) -> BoundingBox {
        let (sx, sy) = self.scale();
        let (px, py) = (self.pad.0 as f32, self.pad.1 as f32);
        BoundingBox {
            x_min: b.x_min * sx + px,
            y_min: b.y_min * sy + py,
            x_max: b.x_max * sx + px,
            y_max: b.y_max * sy + py,
        }
    }

    /// A box of input pixels in source pixels, clipped to the image.
    pub fn to_source(&self, b: BoundingBox) -> BoundingBox {
        let (sx, sy) = self.scale();
        let x = |v: f32| ((v - self.pad.0 as f32) / sx).clamp(0.0, self.source.0 as f32);
        let y = |v: f32| ((v - self.pad.1 as f32) / sy).clamp(0.0, self.source.1 as f32);
        BoundingBox { x_min: x(b.x_min), y_min: y(b.y_min), x_max: x(b.x_max), y_max: y(b.y_max) }
    }

    /// Fills `output` (planar R, G, B of the input size) from `image`. Does not allocate.
    ///
    /// # Panics
    /// When `image` is not of the source size, or `output` has not 3 · width · height values.
    pub fn apply(&self, image: &ImageView, normalisation: &Normalisation, output: &mut [f32]) {
        assert_eq!(output.len(), 3 * self.input.0 * self.input.1, "the output is not of the input size");
        let mut planes = output.chunks_exact_mut(self.input.0 * self.input.1);
        let planes = std::array::from_fn(|_| planes.next().expect("three planes"));
        self.apply_to(image, normalisation, &mut Planar { planes, width: self.input.0 });
    }

    /// Fills an engine's `input` from `image`, in the layout that the engine works on. Does not allocate.
    ///
    /// # Panics
    /// When `image` is not of the source size, or the engine's input is smaller than this letterbox's.
    pub fn apply_to(&self, image: &ImageView, normalisation: &Normalisation, input: &mut dyn PixelInput) {
        assert_eq!(image.size(), self.source, "the image is not of the size this letterbox was made for");
        self.clear_padding(input);
        let (per_column, pairs) = (self.pairs.0, &self.pairs.1);
        let Self { content, pad, rows, columns, .. } = self;
        let resampling = Resampling { content: *content, pad: *pad, rows, columns, per_column, pairs };
        resampling.run(image, normalisation, input);
    }

    /// Zeroes the padding, which [`Resampling`] does not write.
    fn clear_padding(&self, input: &mut dyn PixelInput) {
        const ZEROS: [[f32; 4]; 64] = [[0.0; 4]; 64];
        let ((width, height), (left, top)) = (self.input, self.pad);
        let (right, bottom) = (left + self.content.0, top + self.content.1);
        let mut clear = |y: usize, columns: std::ops::Range<usize>| {
            for x in columns.clone().step_by(ZEROS.len()) {
                input.store(y, x, &ZEROS[..ZEROS.len().min(columns.end - x)]);
            }
        };
        for y in 0..height {
            if (top..bottom).contains(&y) {
                clear(y, 0..left);
                clear(y, right..width);
            } else {
                clear(y, 0..width);
            }
        }
    }
}

/// An input as three planes, R, G and B.
struct Planar<'a> {
    planes: [&'a mut [f32]; 3],
    width: usize,
}

impl PixelInput for Planar<'_> {
    fn store(&mut self, y: usize, x: usize, pixels: &[[f32; 4]]) {
        for (c, plane) in self.planes.iter_mut().enumerate() {
            let row = &mut plane[y * self.width + x..][..pixels.len()];
            for (value, pixel) in row.iter_mut().zip(pixels) {
                *value = pixel[c];
            }
        }
    }
}
