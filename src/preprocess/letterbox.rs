//! The letterbox: an image scaled into the network's input with its aspect kept, and boxes scaled back.
//!
//! Resampling, colour conversion and normalisation happen in one pass over the output, row by row: first the source
//! rows that an output row needs are blended as raw bytes (the same for every encoding, and vectorised), then each
//! output pixel blends its columns, is converted to RGB and normalised. Only source rows that carry weight are read.

use super::image::{Encoding, ImageView};
use crate::decode::BoundingBox;

/// Padding starts at a multiple of this, so that the cells of the segmentation map (stride 4) line up with the image.
const PAD_ALIGN: usize = 4;

/// What turns a colour of 0…255 into a network's input: (value − mean) / std, for R, G and B.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalisation {
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

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
}

/// Samples of a [`Letterbox`]: for each column (and row) of the scaled image so many source columns (rows), as pairs of
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
        Self {
            source,
            input,
            content,
            pad: (pad(input.0, content.0), pad(input.1, content.1)),
            columns: Axis::new(source.0, content.0, COLUMN_ONE),
            rows: Axis::new(source.1, content.1, ROW_ONE),
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
        let Affine { factor, offset } = Affine::new(normalisation);
        (factor, offset)
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
        assert_eq!(image.size(), self.source, "the image is not of the size this letterbox was made for");
        assert_eq!(output.len(), 3 * self.input.0 * self.input.1, "the output is not of the input size");
        let planes = output.chunks_exact_mut(self.input.0 * self.input.1);
        let mut planes: [&mut [f32]; 3] = collect3(planes);
        self.clear_padding(&mut planes);
        let affine = Affine::new(normalisation);
        match image.encoding() {
            Encoding::Rgb8 => self.resample::<Interleaved<3, 0, 1, 2>>(image, &affine, &mut planes),
            Encoding::Bgr8 => self.resample::<Interleaved<3, 2, 1, 0>>(image, &affine, &mut planes),
            Encoding::Rgba8 => self.resample::<Interleaved<4, 0, 1, 2>>(image, &affine, &mut planes),
            Encoding::Bgra8 => self.resample::<Interleaved<4, 2, 1, 0>>(image, &affine, &mut planes),
            Encoding::Mono8 => self.resample::<Interleaved<1, 0, 0, 0>>(image, &affine, &mut planes),
            Encoding::Uyvy => self.resample::<Yuv422<1, 0, 2>>(image, &affine, &mut planes),
            Encoding::Yuyv => self.resample::<Yuv422<0, 1, 3>>(image, &affine, &mut planes),
        }
    }

    /// Zeroes what [`resample`](Self::resample) does not write.
    fn clear_padding(&self, planes: &mut [&mut [f32]; 3]) {
        let ((width, _), (left, top)) = (self.input, self.pad);
        let (right, bottom) = (left + self.content.0, top + self.content.1);
        for plane in planes {
            plane[..top * width].fill(0.0);
            plane[bottom * width..].fill(0.0);
            if self.content.0 < width {
                for row in plane[top * width..bottom * width].chunks_exact_mut(width) {
                    row[..left].fill(0.0);
                    row[right..].fill(0.0);
                }
            }
        }
    }

    /// The number of taps decides the inner loop's length; known when compiled, it is unrolled.
    fn resample<P: Pixel>(&self, image: &ImageView, affine: &Affine, planes: &mut [&mut [f32]; 3]) {
        match self.columns.per_position {
            2 => self.resample_taps::<P, 2>(image, affine, planes),
            3 => self.resample_taps::<P, 3>(image, affine, planes),
            _ => self.resample_taps::<P, MAX_SAMPLES>(image, affine, planes),
        }
    }

    fn resample_taps<P: Pixel, const TAPS: usize>(
        &self,
        image: &ImageView,
        affine: &Affine,
        planes: &mut [&mut [f32]; 3],
    ) {
        let mut blended = [0u16; TILE];
        let tile_columns = self.tile_columns(P::BYTES);
        for y in 0..self.content.1 {
            let rows = self.rows.taps_of(y);
            let start = (self.pad.1 + y) * self.input.0 + self.pad.0;
            let [red, green, blue] = planes.each_mut().map(|plane| &mut plane[start..start + self.content.0]);
            for first in (0..self.content.0).step_by(tile_columns) {
                let last = (first + tile_columns).min(self.content.0);
                // Whole pairs of pixels, for those encodings whose pixels share chroma.
                let from = self.columns.first_source(first) & !1;
                let to = ((self.columns.last_source(last - 1) | 1) + 1) * P::BYTES;
                let bytes = from * P::BYTES..to.min(image.encoding().row_bytes(self.source.0));
                let blended = &mut blended[..bytes.len()];
                blend_rows(image, rows, bytes, blended);

                let taps = self.columns.taps[first * TAPS..last * TAPS].chunks_exact(TAPS);
                let colours = red[first..last].iter_mut().zip(&mut green[first..last]).zip(&mut blue[first..last]);
                for (taps, ((r, g), b)) in taps.zip(colours) {
                    let mut sum = [0u32; 3];
                    for tap in taps {
                        let samples = P::samples(blended, tap.index as usize - from);
                        for c in 0..3 {
                            sum[c] += samples[c] as u32 * tap.weight;
                        }
                    }
                    [*r, *g, *b] = affine.apply(P::to_rgb(sum.map(|v| v as i32 as f32)));
                }
            }
        }
    }

    /// Output columns whose source bytes are sure to fit a tile: at least one, since an image shrinks by no more than
    /// its longest side over the input's least.
    fn tile_columns(&self, pixel_bytes: usize) -> usize {
        let per_column = self.source.0.div_ceil(self.content.0) * pixel_bytes;
        (TILE - 8 * pixel_bytes) / per_column
    }
}

/// Most samples of an output pixel along one axis.
const MAX_SAMPLES: usize = 4;

/// Bytes of a source row blended at a time: enough for a full row of most cameras, and within the first-level cache.
const TILE: usize = 8192;

/// One, as a weight of rows: 255 · `ROW_ONE` fits 16 bits.
const ROW_ONE: u32 = 1 << 8;

/// One, as a weight of columns: 255 · `ROW_ONE` · `COLUMN_ONE` fits 31 bits, which convert to `f32` in one instruction.
const COLUMN_ONE: u32 = 1 << 15;

/// A source row or column, and its share of an output row or column.
#[derive(Debug, Clone, Copy)]
struct Tap {
    index: u32,
    weight: u32,
}

/// The taps of every output position along one axis; their weights add up to `one` at each.
#[derive(Debug, Clone)]
struct Axis {
    per_position: usize,
    taps: Vec<Tap>,
}

impl Axis {
    fn new(source: usize, output: usize, one: u32) -> Self {
        let step = source as f64 / output as f64;
        if step <= 2.0 {
            let taps = (0..output).flat_map(|i| bilinear_taps((i as f64 + 0.5) * step - 0.5, source, one)).collect();
            return Self { per_position: 2, taps };
        }
        let samples = ((step / 2.0).ceil() as usize).clamp(2, MAX_SAMPLES);
        let taps = (0..output).flat_map(|i| box_taps(i, samples, source, output, one)).collect();
        Self { per_position: samples, taps }
    }

    fn taps_of(&self, position: usize) -> &[Tap] {
        &self.taps[position * self.per_position..][..self.per_position]
    }

    fn first_source(&self, position: usize) -> usize {
        self.taps_of(position)[0].index as usize
    }

    fn last_source(&self, position: usize) -> usize {
        self.taps_of(position)[self.per_position - 1].index as usize
    }
}

/// The two pixels around `at` (in pixel centres), the border repeated.
fn bilinear_taps(at: f64, source: usize, one: u32) -> [Tap; 2] {
    let at = at.clamp(0.0, (source - 1) as f64);
    let index = at as u32;
    let second = ((at - at.floor()) * one as f64).round() as u32;
    [Tap { index, weight: one - second }, Tap { index: (index + 1).min(source as u32 - 1), weight: second }]
}

/// `samples` pixels of equal weight, spread evenly over what output position `i` covers. In whole numbers, since many
/// samples fall on the very border of two pixels.
fn box_taps(i: usize, samples: usize, source: usize, output: usize, one: u32) -> impl Iterator<Item = Tap> {
    let share = move |n: usize| (n as u32 * one + samples as u32 / 2) / samples as u32;
    (0..samples).map(move |n| {
        let index = (2 * (i * samples + n) + 1) * source / (2 * samples * output);
        Tap { index: index as u32, weight: share(n + 1) - share(n) }
    })
}

/// The weighted sum of rows of bytes.
fn blend_rows(image: &ImageView, rows: &[Tap], bytes: std::ops::Range<usize>, blended: &mut [u16]) {
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
    /// The three values of pixel `x`, in the encoding's own colour space.
    fn samples(row: &[u16], x: usize) -> [u16; 3];
    /// RGB, from the weighted sum of samples; both in units of [`UNIT`].
    fn to_rgb(sum: [f32; 3]) -> [f32; 3];
}

/// One step of 0…255 in a weighted sum of samples.
const UNIT: f32 = (ROW_ONE * COLUMN_ONE) as f32;

/// `N` bytes a pixel, with R, G and B at the given places.
struct Interleaved<const N: usize, const R: usize, const G: usize, const B: usize>;

impl<const N: usize, const R: usize, const G: usize, const B: usize> Pixel for Interleaved<N, R, G, B> {
    const BYTES: usize = N;

    #[inline(always)]
    fn samples(row: &[u16], x: usize) -> [u16; 3] {
        let pixel = &row[x * N..x * N + N];
        [pixel[R], pixel[G], pixel[B]]
    }

    #[inline(always)]
    fn to_rgb(sum: [f32; 3]) -> [f32; 3] {
        sum
    }
}

/// Two pixels in four bytes: the first Y at `Y` and the second two later, U at `U`, V at `V`.
struct Yuv422<const Y: usize, const U: usize, const V: usize>;

impl<const Y: usize, const U: usize, const V: usize> Pixel for Yuv422<Y, U, V> {
    const BYTES: usize = 2;

    #[inline(always)]
    fn samples(row: &[u16], x: usize) -> [u16; 3] {
        let pair = &row[(x & !1) * 2..(x & !1) * 2 + 4];
        [if x & 1 == 0 { pair[Y] } else { pair[Y + 2] }, pair[U], pair[V]]
    }

    /// ITU-R BT.601, limited range. Blending before the conversion is exact but for the clamp, since both are linear.
    #[inline(always)]
    fn to_rgb([y, u, v]: [f32; 3]) -> [f32; 3] {
        let (y, u, v) = ((y - 16.0 * UNIT) * (255.0 / 219.0), u - 128.0 * UNIT, v - 128.0 * UNIT);
        let rgb = [y + 1.596_027 * v, y - 0.812_968 * v - 0.391_762 * u, y + 2.017_232 * u];
        rgb.map(|c| c.clamp(0.0, 255.0 * UNIT))
    }
}

/// (value − mean) / std for values in units of [`UNIT`], as one multiplication and one addition.
struct Affine {
    factor: [f32; 3],
    offset: [f32; 3],
}

impl Affine {
    fn new(n: &Normalisation) -> Self {
        Self {
            factor: std::array::from_fn(|c| 1.0 / (UNIT * n.std[c])),
            offset: std::array::from_fn(|c| -n.mean[c] / n.std[c]),
        }
    }

    #[inline(always)]
    fn apply(&self, rgb: [f32; 3]) -> [f32; 3] {
        std::array::from_fn(|c| rgb[c] * self.factor[c] + self.offset[c])
    }
}

/// The three items of an iterator that has three.
fn collect3<T>(mut items: impl Iterator<Item = T>) -> [T; 3] {
    std::array::from_fn(|_| items.next().expect("three planes"))
}
