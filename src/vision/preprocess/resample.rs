//! From rows of bytes to normalised colours, in one pass over the output, row by row: first the source rows that an output
//! row needs are blended (`rows`, `mosaic`, vectorised), then each output pixel blends its columns, is converted to RGB
//! (`pixel`) and normalised. Only source rows that carry weight are read, and of a mosaic those beside them.

use peregrine_core::{Encoding, ImageView, PixelInput};

use super::axis::{Axis, Tap, COLUMN_ONE, ROW_ONE};
use super::lanes::{Sums, Weights};
use super::normalisation::Normalisation;
use super::pixel::{Bayer, Interleaved, Pixel, PlanarYuv, Yuv, Yuv422, I420, NV12, NV21, NV24, TILE, UNIT};
use super::rows::Scale16;

/// Pixels stored at a time.
const RUN: usize = 64;

/// Two source columns of an output column, and their weights.
#[derive(Debug, Clone, Copy)]
pub struct Pair {
    columns: [u32; 2],
    weights: Weights,
}

/// The taps of every column in pairs, and how many a column has; of an odd number the last is paired with itself.
pub fn pairs(columns: &Axis) -> (usize, Vec<Pair>) {
    let pair = |taps: &[Tap]| match *taps {
        [a, b] => Pair { columns: [a.index, b.index], weights: Weights::new(a.weight, b.weight) },
        _ => Pair { columns: [taps[0].index; 2], weights: Weights::new(taps[0].weight, 0) },
    };
    let position = |taps: &'_ [Tap]| taps.chunks(2).map(pair).collect::<Vec<_>>();
    (columns.per_position.div_ceil(2), columns.taps.chunks_exact(columns.per_position).flat_map(position).collect())
}

/// Position of the scaled image in the input, and its source taps.
pub struct Resampling<'a> {
    /// Width and height of the scaled image.
    pub content: (usize, usize),
    /// Where its first pixel goes.
    pub pad: (usize, usize),
    pub rows: &'a Axis,
    pub columns: &'a Axis,
    /// See [`pairs`].
    pub per_column: usize,
    pub pairs: &'a [Pair],
}

impl Resampling<'_> {
    /// Writes all pixels of the scaled image; the same ones whatever the processor.
    pub fn run(&self, image: &ImageView, normalisation: &Normalisation, input: &mut dyn PixelInput) {
        let affine = Affine::new(normalisation);
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            // SAFETY: just detected.
            return unsafe { self.run_avx2(image, &affine, input) };
        }
        self.run_inlined(image, &affine, input);
    }

    /// The same, compiled for wider vectors.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    fn run_avx2(&self, image: &ImageView, affine: &Affine, input: &mut dyn PixelInput) {
        self.run_inlined(image, affine, input);
    }

    #[inline(always)]
    fn run_inlined(&self, image: &ImageView, affine: &Affine, input: &mut dyn PixelInput) {
        with_pixel(image.encoding(), Resample { by: self, image, affine, input });
    }

    /// The number of pairs decides the inner loop's length; known when compiled, it is unrolled.
    #[inline(always)]
    fn encoded<P: Pixel>(&self, image: &ImageView, pixel: P, affine: &Affine, input: &mut dyn PixelInput) {
        match self.per_column {
            1 => self.paired::<P, 1>(image, pixel, affine, input),
            _ => self.paired::<P, 2>(image, pixel, affine, input),
        }
    }

    #[inline(always)]
    fn paired<P: Pixel, const PAIRS: usize>(
        &self,
        image: &ImageView,
        kind: P,
        affine: &Affine,
        input: &mut dyn PixelInput,
    ) {
        let mut blended = kind.memory();
        let mut run = [[0f32; 4]; RUN];
        let tile_columns = self.tile_columns(image.width(), P::NUMBERS);
        // A mosaic's last pixel takes its colours from the one before it.
        let last_start = image.width().saturating_sub(2) & !1;
        for y in 0..self.content.1 {
            let rows = self.rows.taps_of(y);
            for first in (0..self.content.0).step_by(tile_columns) {
                let last = (first + tile_columns).min(self.content.0);
                // Whole pairs of pixels, for those encodings whose pixels share chroma.
                let from = (self.columns.first_source(first) & !1).min(last_start);
                kind.blend(image, rows, from..(self.columns.last_source(last - 1) | 1) + 1, &mut blended);

                let mut x = self.pad.0 + first;
                for pairs in self.pairs[first * PAIRS..last * PAIRS].chunks(RUN * PAIRS) {
                    let run = &mut run[..pairs.len() / PAIRS];
                    for (pixel, pairs) in run.iter_mut().zip(pairs.chunks_exact(PAIRS)) {
                        let mut sums = Sums::new();
                        for pair in pairs {
                            let [a, b] = pair.columns.map(|column| kind.samples(&blended, column as usize - from));
                            sums = sums.add(a, b, pair.weights);
                        }
                        *pixel = affine.apply(kind.to_rgb(sums.values()));
                    }
                    input.store(self.pad.1 + y, x, run);
                    x += run.len();
                }
            }
        }
    }

    /// Output columns whose source numbers are sure to fit a tile: at least one, since an image shrinks by no more than
    /// its longest side over the input's least.
    fn tile_columns(&self, source_width: usize, pixel_numbers: usize) -> usize {
        let per_column = source_width.div_ceil(self.content.0) * pixel_numbers;
        (TILE - 8 * pixel_numbers) / per_column
    }
}

/// What is done with an image once its encoding is known when compiled.
trait WithPixel {
    fn run<P: Pixel>(self, pixel: P);
}

#[inline(always)]
fn with_pixel(encoding: Encoding, then: impl WithPixel) {
    // What differs in depth alone differs in blending rows alone.
    let scale = encoding.channel16().map(Scale16::new);
    match encoding {
        Encoding::Rgb8 | Encoding::Rgb16(_) => then.run(Interleaved::<3, 0, 2>(scale)),
        Encoding::Bgr8 | Encoding::Bgr16(_) => then.run(Interleaved::<3, 2, 0>(scale)),
        Encoding::Rgba8 | Encoding::Rgba16(_) => then.run(Interleaved::<4, 0, 2>(scale)),
        Encoding::Bgra8 | Encoding::Bgra16(_) => then.run(Interleaved::<4, 2, 0>(scale)),
        Encoding::Mono8 | Encoding::Mono16(_) => then.run(Interleaved::<1, 0, 0>(scale)),
        Encoding::Uyvy(range) => then.run(Yuv422::<1, 0, 2>(Yuv::new(range))),
        Encoding::Yuyv(range) => then.run(Yuv422::<0, 1, 3>(Yuv::new(range))),
        Encoding::Nv12(range) => then.run(PlanarYuv::<NV12>(Yuv::new(range))),
        Encoding::Nv21(range) => then.run(PlanarYuv::<NV21>(Yuv::new(range))),
        Encoding::Nv24(range) => then.run(PlanarYuv::<NV24>(Yuv::new(range))),
        Encoding::I420(range) => then.run(PlanarYuv::<I420>(Yuv::new(range))),
        Encoding::Bayer8(mosaic) | Encoding::Bayer16(mosaic, _) => then.run(Bayer { scale, red_at: mosaic.red_at() }),
    }
}

struct Resample<'a, 'b> {
    by: &'a Resampling<'a>,
    image: &'a ImageView<'a>,
    affine: &'a Affine,
    input: &'b mut dyn PixelInput,
}

impl WithPixel for Resample<'_, '_> {
    #[inline(always)]
    fn run<P: Pixel>(self, pixel: P) {
        self.by.encoded(self.image, pixel, self.affine, self.input);
    }
}

/// The colours of every pixel at the image's own size, rounded, in their order.
pub fn colours(image: &ImageView, each: impl FnMut([u8; 3])) {
    with_pixel(image.encoding(), Colours { image, each });
}

struct Colours<'a, F> {
    image: &'a ImageView<'a>,
    each: F,
}

impl<F: FnMut([u8; 3])> WithPixel for Colours<'_, F> {
    fn run<P: Pixel>(mut self, pixel: P) {
        let mut blended = pixel.memory();
        let (width, height) = self.image.size();
        let piece = (TILE / P::NUMBERS - 8) & !1;
        let last_start = width.saturating_sub(2) & !1;
        for y in 0..height {
            let taps = [Tap { index: y as u32, weight: ROW_ONE }];
            for first in (0..width).step_by(piece) {
                let (from, to) = (first.min(last_start), (first + piece).min(width));
                pixel.blend(self.image, &taps, from..((to - 1) | 1) + 1, &mut blended);
                for x in first..to {
                    let sum = pixel.samples(&blended, x - from).map(|sample| f32::from(sample) * COLUMN_ONE as f32);
                    let [red, green, blue, _] = pixel.to_rgb(sum).map(|colour| (colour / UNIT).round() as u8);
                    (self.each)([red, green, blue]);
                }
            }
        }
    }
}

/// (value − mean) / std for values in units of [`UNIT`], as one multiplication and one addition.
pub struct Affine {
    /// Of R, G and B. The fourth is unused, but not zero, so that all four are computed alike.
    pub factor: [f32; 4],
    pub offset: [f32; 4],
}

impl Affine {
    pub fn new(n: &Normalisation) -> Self {
        Self {
            factor: std::array::from_fn(|c| 1.0 / (UNIT * n.std[c.min(2)])),
            offset: std::array::from_fn(|c| -n.mean[c.min(2)] / n.std[c.min(2)]),
        }
    }

    #[inline(always)]
    fn apply(&self, rgb: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|c| rgb[c] * self.factor[c] + self.offset[c])
    }
}
