//! A borrowed image, checked once, so that all code after it may index without checks of its own.

use crate::encoding::{Encoding, PLANES};

/// Longest side of an image, in pixels: beyond it a header is taken for damaged.
pub const MAX_SIDE: usize = 16_384;

/// Why an image is refused. Made without allocation, since a camera may send thousands of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ImageError {
    /// The encoding is not one of [`Encoding::ALL`].
    #[error("the encoding is not supported; use {}", Encoding::SUPPORTED)]
    Encoding,
    /// Width or height is 0.
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: it has no pixels")]
    Empty { width: u32, height: u32 },
    /// Width or height is above [`MAX_SIDE`].
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: a side may have {MAX_SIDE} pixels at most")]
    TooLarge { width: u32, height: u32 },
    /// Pixels share their chroma across a border.
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: of {name}, both sides must be even, since 2x2 pixels share their chroma")]
    Odd { name: &'static str, width: u32, height: u32 },
    /// A mosaic with pixels that lack neighbours of the other colours.
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: a Bayer mosaic has at least 3 pixels a side")]
    SmallMosaic { width: u32, height: u32 },
    /// The step from row to row is shorter than a row; both in bytes.
    #[allow(missing_docs, reason = "said above")]
    #[error("step is {step} bytes, but a row of pixels takes {row_bytes}")]
    Step { step: u32, row_bytes: usize },
    /// The step cannot be halved, and that is what the rows of chroma take.
    #[error("step is {0} bytes: yuv420 needs an even one, since rows of chroma take half of it")]
    OddStep(u32),
    /// The data are shorter than height and step ask for; both in bytes.
    #[allow(missing_docs, reason = "said above")]
    #[error("data has {found} bytes, but height and step ask for {expected}")]
    ShortData { found: usize, expected: usize },
}

impl ImageError {
    /// A short name for counters, such as `short_data`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Encoding => "encoding",
            Self::Empty { .. } => "empty",
            Self::TooLarge { .. } => "too_large",
            Self::Odd { .. } => "odd_size",
            Self::SmallMosaic { .. } => "too_small",
            Self::Step { .. } | Self::OddStep(_) => "step",
            Self::ShortData { .. } => "short_data",
        }
    }
}

/// A borrowed image. The fields hold what [`ImageView::new`] has checked.
#[derive(Debug, Clone, Copy)]
pub struct ImageView<'a> {
    encoding: Encoding,
    width: usize,
    height: usize,
    step: usize,
    /// Of each plane, where it begins.
    starts: [usize; PLANES],
    data: &'a [u8],
}

impl<'a> ImageView<'a> {
    /// Checks an image as `sensor_msgs/Image` describes it: `step` bytes from row to row (any
    /// number that holds a row; the last row needs no padding), sides from 1 to [`MAX_SIDE`]
    /// pixels. Planes of chroma follow that of luma at once, their steps in proportion; where the data
    /// are just those of an image without padding, a step that counts all planes' bytes, or two a
    /// pixel, is taken for the width, since drivers give these as well.
    ///
    /// # Errors
    /// [`ImageError`], the first that applies in its order of declaration.
    pub fn new(encoding: &str, width: u32, height: u32, step: u32, data: &'a [u8]) -> Result<Self, ImageError> {
        let encoding = Encoding::from_ros(encoding).ok_or(ImageError::Encoding)?;
        Self::with_encoding(encoding, width, height, step, data)
    }

    /// The same for an encoding already known.
    ///
    /// # Errors
    /// See [`ImageView::new`].
    pub fn with_encoding(
        encoding: Encoding,
        width: u32,
        height: u32,
        step: u32,
        data: &'a [u8],
    ) -> Result<Self, ImageError> {
        if width == 0 || height == 0 {
            return Err(ImageError::Empty { width, height });
        }
        if width as usize > MAX_SIDE || height as usize > MAX_SIDE {
            return Err(ImageError::TooLarge { width, height });
        }
        if matches!(encoding, Encoding::Nv12(_) | Encoding::Nv21(_) | Encoding::I420(_)) && (width | height) & 1 == 1 {
            return Err(ImageError::Odd { name: encoding.ros_name(), width, height });
        }
        if matches!(encoding, Encoding::Bayer8(_) | Encoding::Bayer16(..)) && width.min(height) < 3 {
            return Err(ImageError::SmallMosaic { width, height });
        }
        let size = (width as usize, height as usize);
        let row_bytes = encoding.row_bytes(size.0);
        let step = if counts_all_planes(encoding, size, step, data.len()) { row_bytes as u32 } else { step };
        if (step as usize) < row_bytes {
            return Err(ImageError::Step { step, row_bytes });
        }
        if matches!(encoding, Encoding::I420(_)) && step & 1 == 1 {
            return Err(ImageError::OddStep(step));
        }
        // Below 3 · 2^14 · 2^32, so it cannot overflow a 64-bit usize; saturating covers 32-bit
        // targets.
        let (mut starts, mut start, mut expected) = ([0; PLANES], 0usize, 0);
        let steps = encoding.steps(step as usize);
        for (i, (plane, step)) in encoding.planes(size).into_iter().zip(steps).enumerate().filter(|(_, p)| p.0.rows > 0)
        {
            starts[i] = start;
            expected = start.saturating_add(step.saturating_mul(plane.rows - 1)).saturating_add(plane.row_bytes);
            start = start.saturating_add(step.saturating_mul(plane.rows));
        }
        if data.len() < expected {
            return Err(ImageError::ShortData { found: data.len(), expected });
        }
        Ok(Self { encoding, width: size.0, height: size.1, step: step as usize, starts, data })
    }

    /// How the bytes of a row stand for colours.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (usize, usize) {
        (self.width, self.height)
    }

    /// All rows of all planes as one slice; `None` if rows are padded.
    pub fn without_gaps(&self) -> Option<&'a [u8]> {
        let row_bytes = self.encoding.row_bytes(self.width);
        (self.step == row_bytes).then(|| &self.data[..self.encoding.image_bytes(self.size())])
    }

    /// The bytes of row `y`, without padding; of luma where chroma has planes of its own.
    ///
    /// # Panics
    /// When `y` is not below the height.
    pub fn row(&self, y: usize) -> &'a [u8] {
        self.plane_row(0, y)
    }

    /// The bytes of row `y` of a plane, as [`Encoding::planes`] counts them, without padding.
    ///
    /// # Panics
    /// When the plane has no such row.
    #[inline]
    pub fn plane_row(&self, plane: usize, y: usize) -> &'a [u8] {
        let of = self.encoding.planes(self.size())[plane];
        assert!(y < of.rows);
        let start = self.starts[plane] + y * self.encoding.steps(self.step)[plane];
        &self.data[start..start + of.row_bytes]
    }

    /// The rows of all planes in their order, without padding: what an image of the least step
    /// consists of.
    pub fn rows(&self) -> impl Iterator<Item = &'a [u8]> + '_ {
        let planes = self.encoding.planes(self.size()).into_iter().enumerate();
        planes.flat_map(move |(i, plane)| (0..plane.rows).map(move |y| self.plane_row(i, y)))
    }
}

/// Whether a step is that of a driver which divides the bytes of all planes by the height, as cv_bridge
/// asked for, or counts two bytes a pixel, as `sensor_msgs` said of nv21 and nv24.
fn counts_all_planes(encoding: Encoding, size: (usize, usize), step: u32, data: usize) -> bool {
    let bytes = encoding.image_bytes(size);
    let is_planar = encoding.planes(size)[1].rows > 0;
    is_planar && data == bytes && [bytes / size.1, 2 * size.0].contains(&(step as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(encoding: &str, width: u32, height: u32, step: u32, bytes: usize) -> Result<(), &'static str> {
        let data = vec![0; bytes];
        ImageView::new(encoding, width, height, step, &data).map(|_| ()).map_err(|e| e.reason())
    }

    #[test]
    fn the_last_row_needs_no_padding() {
        assert_eq!(check("rgb8", 5, 3, 20, 20 * 2 + 15), Ok(()));
        assert_eq!(check("rgb8", 5, 3, 20, 20 * 2 + 14), Err("short_data"));
    }

    #[test]
    fn rows_are_one_piece_only_where_nothing_lies_between_them() {
        let data: Vec<u8> = (0..60).collect();
        let view = |step| ImageView::new("rgb8", 5, 3, step, &data).unwrap();
        assert_eq!(view(15).without_gaps(), Some(&data[..45]));
        assert_eq!(view(16).without_gaps(), None);
    }

    #[test]
    fn an_odd_row_of_pixel_pairs_ends_with_a_whole_pair() {
        assert_eq!(check("uyvy", 5, 1, 12, 12), Ok(()));
        assert_eq!(check("uyvy", 5, 1, 10, 12), Err("step"));
    }

    #[test]
    fn impossible_headers_are_refused_by_reason() {
        assert_eq!(check("bayer_rggb12", 4, 4, 4, 16), Err("encoding"));
        assert_eq!(check("mono8", 0, 4, 4, 16), Err("empty"));
        assert_eq!(check("mono8", 4, 0, 4, 16), Err("empty"));
        assert_eq!(check("mono8", u32::MAX, u32::MAX, u32::MAX, 16), Err("too_large"));
        assert_eq!(check("mono8", 4, 4, 3, 16), Err("step"));
        assert_eq!(check("mono8", 4, 16_384, u32::MAX, 16), Err("short_data"));
    }

    #[test]
    fn planes_of_chroma_follow_with_steps_in_proportion() {
        // Of 4x2 pixels in steps of 6 bytes: luma takes 12, and no last row is padded.
        for (encoding, bytes) in [("nv12", 16), ("nv21", 16), ("nv24", 32), ("yuv420", 12 + 3 + 2)] {
            assert_eq!(check(encoding, 4, 2, 6, bytes), Ok(()), "{encoding}");
            assert_eq!(check(encoding, 4, 2, 6, bytes - 1), Err("short_data"), "{encoding}");
        }
        let data: Vec<u8> = (0..36).collect();
        let rows = |encoding| {
            let view = ImageView::new(encoding, 4, 2, 6, &data).unwrap();
            view.rows().map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        assert_eq!(rows("nv12"), [[0, 1, 2, 3], [6, 7, 8, 9], [12, 13, 14, 15]]);
        assert_eq!(rows("yuv420")[2..], [[12, 13], [15, 16]]);
        assert_eq!(rows("nv24")[3], [24, 25, 26, 27, 28, 29, 30, 31]);
    }

    #[test]
    fn steps_that_count_all_planes_are_understood() {
        for (encoding, bytes, steps) in [
            ("nv12", 48, [8, 12, 16]),
            ("nv21", 48, [8, 12, 16]),
            ("yuv420", 48, [8, 12, 16]),
            ("nv24", 96, [8, 24, 16]),
        ] {
            let data: Vec<u8> = (0..bytes).collect();
            for step in steps {
                let view = ImageView::new(encoding, 8, 4, step, &data).unwrap();
                assert!(view.rows().flatten().eq(&data), "{encoding} {step}");
            }
            assert_eq!(check(encoding, 8, 4, steps[1], bytes as usize - 1), Err("short_data"));
        }
        assert_eq!(check("mono8", 8, 4, 16, 32), Err("short_data"));
    }

    #[test]
    fn sizes_that_cannot_have_chroma_or_a_mosaic_are_refused() {
        for encoding in ["nv12", "nv21", "yuv420"] {
            assert_eq!(check(encoding, 5, 4, 6, 99), Err("odd_size"));
            assert_eq!(check(encoding, 4, 5, 6, 99), Err("odd_size"));
        }
        assert_eq!(check("nv24", 5, 3, 5, 45), Ok(()));
        assert_eq!(check("yuv420", 4, 4, 5, 99), Err("step"));
        assert_eq!(check("bayer_rggb8", 2, 4, 4, 99), Err("too_small"));
        assert_eq!(check("bayer_rggb16", 5, 3, 10, 30), Ok(()));
        assert_eq!(check("mono16", 5, 3, 9, 99), Err("step"));
    }
}
