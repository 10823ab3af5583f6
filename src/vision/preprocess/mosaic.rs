//! From a Bayer mosaic to colours, at the rows that are blended: as bilinear demosaicing of the whole image and resampling
//! would have it, since both are linear, without ever making the whole image.
//!
//! A missing colour is the mean of its two or four neighbours (as OpenCV's `demosaicing` with COLOR_Bayer…2RGB; of green
//! the four beside it). So each colour of a blended row is a sum over four lines: those rows themselves that have red,
//! those that have blue, and for each of these kinds the rows above and below the others. A pixel at the image's border
//! is as the one beside it.

use std::ops::Range;

use peregrine_core::ImageView;

use super::axis::Tap;
use super::pixel::{together, PIECE};
use super::rows::{mean, Bits16, Bits8Shared, Depth, Rows, Scale16};

/// Numbers of a piece, and of a pixel on either side.
type Line = [u16; PIECE + 2];

/// What is made on the way to colours.
pub struct Memory {
    /// Sums over rows of rows with red and of those with blue, then the same of rows around the others.
    lines: [Line; 4],
    colours: [[u16; PIECE]; 3],
    /// Red, green and blue together.
    pub pixels: [u64; PIECE],
}

/// The rows whose sums are the lines, of rows with red and of those with blue each.
struct LineRows<'a> {
    own: [Rows<'a>; 2],
    around: [Rows<'a>; 2],
}

impl Memory {
    #[inline(always)]
    pub fn new() -> Self {
        Self { lines: [[0; PIECE + 2]; 4], colours: [[0; PIECE]; 3], pixels: [0; PIECE] }
    }

    /// Blends rows into red, green and blue of the pixels of `columns`, at least one of which is not at the border, of 16
    /// bits where there is a scale. `red_at` is whether the first row and column are without red.
    #[inline(always)]
    pub fn blend(
        &mut self,
        image: &ImageView,
        scale: Option<Scale16>,
        red_at: (usize, usize),
        taps: &[Tap],
        columns: Range<usize>,
    ) {
        let width = image.width();
        let inner = columns.start.max(1)..columns.end.min(width - 1);
        let numbers = inner.len() + 2;
        let bytes = if scale.is_some() { 2 } else { 1 };
        let rows = LineRows::of(image, red_at.0, taps, (inner.start - 1) * bytes..(inner.end + 1) * bytes);
        let lines = &mut self.lines;
        match scale {
            None => rows.blend(Bits8Shared, numbers, lines),
            Some(scale) if scale.big_endian => rows.blend(Bits16::<true>(scale), numbers, lines),
            Some(scale) => rows.blend(Bits16::<false>(scale), numbers, lines),
        }
        let at = inner.start - columns.start..inner.end - columns.start;
        let phase = (inner.start + red_at.1) & 1;
        // Where an image shrinks by an even number, all rows that count are often of one kind.
        match rows.own.each_ref().map(Rows::is_empty) {
            [false, true] => self.write_colours::<true, false>(phase, at),
            [true, false] => self.write_colours::<false, true>(phase, at),
            _ => self.write_colours::<true, true>(phase, at),
        }
        if columns.start == 0 {
            self.pixels[0] = self.pixels[1];
        }
        if columns.end == width {
            self.pixels[columns.len() - 1] = self.pixels[columns.len() - 2];
        }
    }

    /// The colours of the pixels `at`, of which the first is at 1 in the lines, and in a column without red if `phase` is
    /// 1; of rows with red, with blue, or both.
    #[inline(always)]
    fn write_colours<const RED_ROWS: bool, const BLUE_ROWS: bool>(&mut self, phase: usize, at: Range<usize>) {
        let count = at.len();
        let [own_red, own_blue, around_red, around_blue] = self.lines.each_ref().map(|line| &line[..count + 2]);
        let [reds, greens, blues] = self.colours.each_mut().map(|line| &mut line[..count]);
        for i in 0..count {
            // Left of the pixel, at it, and right of it. Around rows with blue are those with red.
            let three = |wanted: bool, line: &[u16]| if wanted { [line[i], line[i + 1], line[i + 2]] } else { [0; 3] };
            let (own_red, around_blue) = (three(RED_ROWS, own_red), three(RED_ROWS, around_blue));
            let (own_blue, around_red) = (three(BLUE_ROWS, own_blue), three(BLUE_ROWS, around_red));
            let sides = |[left, _, right]: [u16; 3]| mean(left, right);
            let red = [own_red[1] + around_red[1], sides(own_red) + sides(around_red)];
            let blue = [own_blue[1] + around_blue[1], sides(own_blue) + sides(around_blue)];
            let green_in_reds_column = mean(sides(own_red), around_blue[1]) + own_blue[1];
            let green_in_blues_column = own_red[1] + mean(sides(own_blue), around_red[1]);
            // All bits in columns with red, as a mask: vectors have no branches.
            let in_red = (((i ^ phase) & 1) as u16).wrapping_sub(1);
            let either = |in_reds: u16, in_blues: u16| in_reds & in_red | in_blues & !in_red;
            reds[i] = either(red[0], red[1]);
            greens[i] = either(green_in_reds_column, green_in_blues_column);
            blues[i] = either(blue[1], blue[0]);
        }
        for (((pixel, &red), &green), &blue) in self.pixels[at].iter_mut().zip(&*reds).zip(&*greens).zip(&*blues) {
            *pixel = together(red, green, blue);
        }
    }
}

impl<'a> LineRows<'a> {
    #[inline(always)]
    fn of(image: &ImageView<'a>, red_at: usize, taps: &[Tap], bytes: Range<usize>) -> Self {
        let mut rows = Self { own: [Rows::none(), Rows::none()], around: [Rows::none(), Rows::none()] };
        let row = |y: usize| &image.row(y)[bytes.clone()];
        for tap in taps.iter().filter(|tap| tap.weight > 0) {
            let y = (tap.index as usize).clamp(1, image.height() - 2);
            let kind = (y + red_at) & 1;
            rows.own[kind].push(y, tap.weight << 8, row);
            rows.around[1 - kind].push(y - 1, tap.weight << 7, row);
            rows.around[1 - kind].push(y + 1, tap.weight << 7, row);
        }
        rows
    }

    /// The lines that have rows; the others remain as they are.
    #[inline(always)]
    fn blend<D: Depth>(&self, depth: D, numbers: usize, lines: &mut [Line; 4]) {
        let all = [&self.own[0], &self.own[1], &self.around[0], &self.around[1]];
        for (rows, line) in all.into_iter().zip(lines) {
            rows.blend(depth, &mut line[..numbers]);
        }
    }
}
