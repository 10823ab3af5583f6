//! From rows of bytes to normalised colours, in one pass over the output, row by row: first the source rows that an output
//! row needs are blended as raw bytes (the same for every encoding, and vectorised), then each output pixel blends its
//! columns, is converted to RGB and normalised. Only source rows that carry weight are read.

use std::ops::Range;

use peregrine_core::image::{Encoding, ImageView};
use peregrine_core::PixelInput;

use super::axis::{Axis, Tap, COLUMN_ONE, ROW_ONE};
use super::lanes::{Sums, Weights};
use super::normalisation::Normalisation;

/// Bytes of a source row blended at a time: enough for a full row of most cameras, and within the first-level cache.
const TILE: usize = 8192;

/// Bytes that [`Pixel::samples`] may read past the last pixel.
const SLACK: usize = 4;

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
        match image.encoding() {
            Encoding::Rgb8 => self.encoded::<Interleaved<3, 0, 2>>(image, affine, input),
            Encoding::Bgr8 => self.encoded::<Interleaved<3, 2, 0>>(image, affine, input),
            Encoding::Rgba8 => self.encoded::<Interleaved<4, 0, 2>>(image, affine, input),
            Encoding::Bgra8 => self.encoded::<Interleaved<4, 2, 0>>(image, affine, input),
            Encoding::Mono8 => self.encoded::<Mono>(image, affine, input),
            Encoding::Uyvy => self.encoded::<Yuv422<1, 0, 2>>(image, affine, input),
            Encoding::Yuyv => self.encoded::<Yuv422<0, 1, 3>>(image, affine, input),
        }
    }

    /// The number of pairs decides the inner loop's length; known when compiled, it is unrolled.
    #[inline(always)]
    fn encoded<P: Pixel>(&self, image: &ImageView, affine: &Affine, input: &mut dyn PixelInput) {
        match self.per_column {
            1 => self.paired::<P, 1>(image, affine, input),
            _ => self.paired::<P, 2>(image, affine, input),
        }
    }

    #[inline(always)]
    fn paired<P: Pixel, const PAIRS: usize>(&self, image: &ImageView, affine: &Affine, input: &mut dyn PixelInput) {
        let mut blended = [0u16; TILE + SLACK];
        let mut run = [[0f32; 4]; RUN];
        let tile_columns = self.tile_columns(image.width(), P::BYTES);
        for y in 0..self.content.1 {
            let rows = self.rows.taps_of(y);
            for first in (0..self.content.0).step_by(tile_columns) {
                let last = (first + tile_columns).min(self.content.0);
                // Whole pairs of pixels, for those encodings whose pixels share chroma.
                let from = self.columns.first_source(first) & !1;
                let to = ((self.columns.last_source(last - 1) | 1) + 1) * P::BYTES;
                let bytes = from * P::BYTES..to.min(image.encoding().row_bytes(image.width()));
                let length = bytes.len();
                blend_rows(image, rows, bytes, &mut blended[..length]);
                let blended = &blended[..length + SLACK];

                let mut x = self.pad.0 + first;
                for pairs in self.pairs[first * PAIRS..last * PAIRS].chunks(RUN * PAIRS) {
                    let run = &mut run[..pairs.len() / PAIRS];
                    for (pixel, pairs) in run.iter_mut().zip(pairs.chunks_exact(PAIRS)) {
                        let mut sums = Sums::new();
                        for pair in pairs {
                            let [a, b] = pair.columns.map(|column| P::samples(blended, column as usize - from));
                            sums = sums.add(a, b, pair.weights);
                        }
                        *pixel = affine.apply(P::to_rgb(sums.values()));
                    }
                    input.store(self.pad.1 + y, x, run);
                    x += run.len();
                }
            }
        }
    }

    /// Output columns whose source bytes are sure to fit a tile: at least one, since an image shrinks by no more than
    /// its longest side over the input's least.
    fn tile_columns(&self, source_width: usize, pixel_bytes: usize) -> usize {
        let per_column = source_width.div_ceil(self.content.0) * pixel_bytes;
        (TILE - 8 * pixel_bytes) / per_column
    }
}

/// The weighted sum of rows of bytes.
#[inline(always)]
fn blend_rows(image: &ImageView, rows: &[Tap], bytes: Range<usize>, blended: &mut [u16]) {
    let row = |tap: &Tap| (&image.row(tap.index as usize)[bytes.clone()], tap.weight as u16);
    let mut pairs = rows.chunks_exact(2);
    let mut written = false;
    for pair in &mut pairs {
        let ((a, wa), (b, wb)) = (row(&pair[0]), row(&pair[1]));
        if written {
            for ((out, &a), &b) in blended.iter_mut().zip(a).zip(b) {
                *out += a as u16 * wa + b as u16 * wb;
            }
        } else if wb == 0 {
            for (out, &a) in blended.iter_mut().zip(a) {
                *out = a as u16 * wa;
            }
        } else {
            for ((out, &a), &b) in blended.iter_mut().zip(a).zip(b) {
                *out = a as u16 * wa + b as u16 * wb;
            }
        }
        written = true;
    }
    for (a, wa) in pairs.remainder().iter().map(row) {
        for (out, &a) in blended.iter_mut().zip(a) {
            *out += a as u16 * wa;
        }
    }
}

/// How an encoding's blended bytes become colours.
trait Pixel {
    /// Of one pixel.
    const BYTES: usize;
    /// Channels of pixel `x` in the encoding's own order and colour space; reads at most [`SLACK`] bytes past the row's end.
    fn samples(row: &[u16], x: usize) -> [u16; 4];
    /// RGB, from the weighted sum of samples; both in units of [`UNIT`]. The fourth has no meaning.
    fn to_rgb(sum: [f32; 4]) -> [f32; 4];
}

/// One step of 0…255 in a weighted sum of samples.
const UNIT: f32 = (ROW_ONE * COLUMN_ONE) as f32;

/// `N` bytes a pixel, with R and B at the given places and G between them.
struct Interleaved<const N: usize, const R: usize, const B: usize>;

impl<const N: usize, const R: usize, const B: usize> Pixel for Interleaved<N, R, B> {
    const BYTES: usize = N;

    #[inline(always)]
    fn samples(row: &[u16], x: usize) -> [u16; 4] {
        row[x * N..x * N + 4].try_into().expect("four")
    }

    #[inline(always)]
    fn to_rgb(sum: [f32; 4]) -> [f32; 4] {
        [sum[R], sum[1], sum[B], sum[3]]
    }
}

/// A byte a pixel, which is all three.
struct Mono;

impl Pixel for Mono {
    const BYTES: usize = 1;

    #[inline(always)]
    fn samples(row: &[u16], x: usize) -> [u16; 4] {
        [row[x]; 4]
    }

    #[inline(always)]
    fn to_rgb(sum: [f32; 4]) -> [f32; 4] {
        sum
    }
}

/// Two pixels in four bytes: the first Y at `Y` and the second two later, U at `U`, V at `V`.
struct Yuv422<const Y: usize, const U: usize, const V: usize>;

impl<const Y: usize, const U: usize, const V: usize> Pixel for Yuv422<Y, U, V> {
    const BYTES: usize = 2;

    #[inline(always)]
    fn samples(row: &[u16], x: usize) -> [u16; 4] {
        let pair = &row[(x & !1) * 2..(x & !1) * 2 + 4];
        [if x & 1 == 0 { pair[Y] } else { pair[Y + 2] }, pair[U], pair[V], 0]
    }

    /// ITU-R BT.601, limited range. Blending before the conversion is exact but for the clamp, since both are linear.
    #[inline(always)]
    fn to_rgb([y, u, v, _]: [f32; 4]) -> [f32; 4] {
        let (y, u, v) = ((y - 16.0 * UNIT) * (255.0 / 219.0), u - 128.0 * UNIT, v - 128.0 * UNIT);
        let rgb = [y + 1.596_027 * v, y - 0.812_968 * v - 0.391_762 * u, y + 2.017_232 * u, 0.0];
        rgb.map(|c| c.clamp(0.0, 255.0 * UNIT))
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
