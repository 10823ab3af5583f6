//! How each encoding's rows become lines of numbers, and these colours.

use std::ops::Range;

use peregrine_core::encoding::YuvRange;
use peregrine_core::ImageView;

use super::axis::{Tap, COLUMN_ONE, ROW_ONE};
use super::mosaic;
use super::rows::{Bits16, Bits8, Rows, Scale16};

/// Numbers of blended rows at a time: enough for a full row of most cameras, and within the first-level cache.
pub const TILE: usize = 8192;

/// Numbers that [`Pixel::samples`] may read past the last pixel.
const SLACK: usize = 4;

/// One step of 0…255 in a weighted sum of samples.
pub const UNIT: f32 = (ROW_ONE * COLUMN_ONE) as f32;

/// An encoding, with what it knows of its values.
pub trait Pixel: Copy {
    /// Numbers that a pixel takes of a [`TILE`].
    const NUMBERS: usize;
    /// Blended rows of a piece of an image, 255 being 255 · `ROW_ONE`.
    type Blended;
    fn memory(self) -> Self::Blended;
    /// Blends the rows of the pixels `columns`, which begin with an even one and hold at least two unless the image is
    /// narrower; where pixels share chroma in pairs the last pair is whole, even if the image is not.
    fn blend(self, image: &ImageView, taps: &[Tap], columns: Range<usize>, out: &mut Self::Blended);
    /// Channels of pixel `x`, counted from the first that was blended, in the encoding's own order and colour space.
    fn samples(self, blended: &Self::Blended, x: usize) -> [u16; 4];
    /// RGB, from the weighted sum of samples; both in units of [`UNIT`]. The fourth has no meaning.
    fn to_rgb(self, sum: [f32; 4]) -> [f32; 4];
}

/// `N` numbers a pixel, with R and B at the given places and G between them; of 16 bits where there is a scale.
#[derive(Clone, Copy)]
pub struct Interleaved<const N: usize, const R: usize, const B: usize>(pub Option<Scale16>);

impl<const N: usize, const R: usize, const B: usize> Pixel for Interleaved<N, R, B> {
    const NUMBERS: usize = N;
    type Blended = [u16; TILE + SLACK];

    #[inline(always)]
    fn memory(self) -> Self::Blended {
        [0; TILE + SLACK]
    }

    #[inline(always)]
    fn blend(self, image: &ImageView, taps: &[Tap], columns: Range<usize>, out: &mut Self::Blended) {
        let numbers = columns.start * N..columns.end.min(image.width()) * N;
        let out = &mut out[..numbers.len()];
        match self.0 {
            None => Rows::of(taps, |y| &image.row(y)[numbers.clone()]).blend(Bits8, out),
            Some(scale) => {
                let rows = Rows::of(taps, |y| &image.row(y)[2 * numbers.start..2 * numbers.end]);
                match scale.big_endian {
                    false => rows.blend(Bits16::<false>(scale), out),
                    true => rows.blend(Bits16::<true>(scale), out),
                }
            }
        }
    }

    #[inline(always)]
    fn samples(self, blended: &Self::Blended, x: usize) -> [u16; 4] {
        if N == 1 {
            return [blended[x]; 4];
        }
        blended[x * N..x * N + 4].try_into().expect("four")
    }

    #[inline(always)]
    fn to_rgb(self, sum: [f32; 4]) -> [f32; 4] {
        if N == 1 {
            return sum;
        }
        [sum[R], sum[1], sum[B], sum[3]]
    }
}

/// Two pixels in four bytes: the first Y at `Y` and the second two later, U at `U`, V at `V`.
#[derive(Clone, Copy)]
pub struct Yuv422<const Y: usize, const U: usize, const V: usize>(pub Yuv);

impl<const Y: usize, const U: usize, const V: usize> Pixel for Yuv422<Y, U, V> {
    const NUMBERS: usize = 2;
    type Blended = [u16; TILE + SLACK];

    #[inline(always)]
    fn memory(self) -> Self::Blended {
        [0; TILE + SLACK]
    }

    #[inline(always)]
    fn blend(self, image: &ImageView, taps: &[Tap], columns: Range<usize>, out: &mut Self::Blended) {
        let bytes = columns.start * 2..columns.end.next_multiple_of(2) * 2;
        Rows::of(taps, |y| &image.row(y)[bytes.clone()]).blend(Bits8, &mut out[..bytes.len()]);
    }

    #[inline(always)]
    fn samples(self, blended: &Self::Blended, x: usize) -> [u16; 4] {
        let pair = &blended[(x & !1) * 2..(x & !1) * 2 + 4];
        [if x & 1 == 0 { pair[Y] } else { pair[Y + 2] }, pair[U], pair[V], 0]
    }

    #[inline(always)]
    fn to_rgb(self, sum: [f32; 4]) -> [f32; 4] {
        self.0.to_rgb(sum)
    }
}

/// Most pixels of a piece whose channels are put together here, 16 bits each.
pub const PIECE: usize = TILE / 4;

/// Three channels of a pixel in one number, the first in its lowest 16 bits.
#[inline(always)]
pub fn together(a: u16, b: u16, c: u16) -> u64 {
    u64::from(a) | u64::from(b) << 16 | u64::from(c) << 32
}

#[inline(always)]
fn apart(pixel: u64) -> [u16; 4] {
    [0, 16, 32, 48].map(|shift| (pixel >> shift) as u16)
}

/// A plane of Y, and U and V in planes of their own, or by turns in one.
#[derive(Clone, Copy)]
pub struct PlanarYuv<const CHROMA: u8>(pub Yuv);

/// Where the chroma of a [`PlanarYuv`] is: by turns, for 2×2 pixels, U or V first, or for each pixel; or planes for 2×2.
pub const NV12: u8 = 0;
pub const NV21: u8 = 1;
pub const NV24: u8 = 2;
pub const I420: u8 = 3;

/// What is made of planes: their sums over rows, and these together.
pub struct Planes {
    luma: [u16; PIECE],
    /// By turns, or U alone.
    chroma: [u16; 2 * PIECE],
    /// V alone.
    second: [u16; PIECE],
    pixels: [u64; PIECE],
}

impl<const CHROMA: u8> Pixel for PlanarYuv<CHROMA> {
    const NUMBERS: usize = 4;
    type Blended = Planes;

    #[inline(always)]
    fn memory(self) -> Self::Blended {
        Planes { luma: [0; PIECE], chroma: [0; 2 * PIECE], second: [0; PIECE], pixels: [0; PIECE] }
    }

    #[inline(always)]
    fn blend(self, image: &ImageView, taps: &[Tap], columns: Range<usize>, out: &mut Self::Blended) {
        let columns = columns.start..columns.end.min(image.width());
        let luma = &mut out.luma[..columns.len()];
        Rows::of(taps, |y| &image.row(y)[columns.clone()]).blend(Bits8, luma);
        let places = match CHROMA {
            NV24 => 2 * columns.start..2 * columns.end,
            I420 => columns.start / 2..columns.end / 2,
            _ => columns.clone(),
        };
        let halved = u32::from(CHROMA != NV24);
        let (chroma, second) = (&mut out.chroma[..places.len()], &mut out.second[..places.len().min(PIECE)]);
        Rows::of(taps, |y| &image.plane_row(1, y >> halved)[places.clone()]).blend(Bits8, chroma);
        if CHROMA == I420 {
            Rows::of(taps, |y| &image.plane_row(2, y >> halved)[places.clone()]).blend(Bits8, second);
        }
        let pixels = &mut out.pixels[..columns.len()];
        if CHROMA == NV24 {
            for ((pixel, &luma), chroma) in pixels.iter_mut().zip(&*luma).zip(chroma.chunks_exact(2)) {
                *pixel = together(luma, chroma[0], chroma[1]);
            }
            return;
        }
        let pairs = pixels.chunks_exact_mut(2).zip(luma.chunks_exact(2));
        if CHROMA == I420 {
            for ((pair, luma), (&u, &v)) in pairs.zip(chroma.iter().zip(&*second)) {
                (pair[0], pair[1]) = (together(luma[0], u, v), together(luma[1], u, v));
            }
            return;
        }
        let (u, v) = if CHROMA == NV12 { (0, 1) } else { (1, 0) };
        for ((pair, luma), chroma) in pairs.zip(chroma.chunks_exact(2)) {
            let (u, v) = (chroma[u], chroma[v]);
            (pair[0], pair[1]) = (together(luma[0], u, v), together(luma[1], u, v));
        }
    }

    #[inline(always)]
    fn samples(self, blended: &Self::Blended, x: usize) -> [u16; 4] {
        apart(blended.pixels[x])
    }

    #[inline(always)]
    fn to_rgb(self, sum: [f32; 4]) -> [f32; 4] {
        self.0.to_rgb(sum)
    }
}

/// One colour a pixel: the other two are its neighbours'. Of 16 bits where there is a scale.
#[derive(Clone, Copy)]
pub struct Bayer {
    pub scale: Option<Scale16>,
    /// Whether the first row and column are without red.
    pub red_at: (usize, usize),
}

impl Pixel for Bayer {
    const NUMBERS: usize = 4;
    type Blended = mosaic::Memory;

    #[inline(always)]
    fn memory(self) -> Self::Blended {
        mosaic::Memory::new()
    }

    #[inline(always)]
    fn blend(self, image: &ImageView, taps: &[Tap], columns: Range<usize>, out: &mut Self::Blended) {
        out.blend(image, self.scale, self.red_at, taps, columns.start..columns.end.min(image.width()));
    }

    #[inline(always)]
    fn samples(self, blended: &Self::Blended, x: usize) -> [u16; 4] {
        apart(blended.pixels[x])
    }

    #[inline(always)]
    fn to_rgb(self, sum: [f32; 4]) -> [f32; 4] {
        sum
    }
}

/// ITU-R BT.601, luma below black being black, as OpenCV has it. Blending before the conversion is exact but for these
/// clamps, since both are linear.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yuv {
    /// Luma of black, in steps.
    pub black: f32,
    /// Steps of brightness for one of luma.
    pub luma: f32,
    /// Red's share of V, green's of V and of U, and blue's of U.
    pub chroma: [f32; 4],
}

impl Yuv {
    pub fn new(range: YuvRange) -> Self {
        match range {
            YuvRange::Limited => {
                Self { black: 16.0, luma: 255.0 / 219.0, chroma: [1.596_027, -0.812_968, -0.391_762, 2.017_232] }
            }
            YuvRange::Full => Self { black: 0.0, luma: 1.0, chroma: [1.402, -0.714_136, -0.344_136, 1.772] },
        }
    }

    #[inline(always)]
    fn to_rgb(self, [y, u, v, _]: [f32; 4]) -> [f32; 4] {
        let (y, u, v) = ((y - self.black * UNIT).max(0.0) * self.luma, u - 128.0 * UNIT, v - 128.0 * UNIT);
        let [red, green_v, green_u, blue] = self.chroma;
        let rgb = [y + red * v, y + green_v * v + green_u * u, y + blue * u, 0.0];
        rgb.map(|c| c.clamp(0.0, 255.0 * UNIT))
    }
}
