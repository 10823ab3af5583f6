//! A borrowed image, checked once, so that all code after it may index without checks of its own.

/// Longest side of an image, in pixels: beyond it a header is taken for damaged.
pub const MAX_SIDE: usize = 16_384;

/// How the bytes of a row stand for colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// Red, green, blue; a byte each.
    Rgb8,
    /// Blue, green, red; a byte each.
    Bgr8,
    /// Red, green, blue, alpha; a byte each. Alpha is not used.
    Rgba8,
    /// Blue, green, red, alpha; a byte each. Alpha is not used.
    Bgra8,
    /// One byte of grey.
    Mono8,
    /// Two pixels in four bytes: U, Y₀, V, Y₁; BT.601, limited range.
    Uyvy,
    /// Two pixels in four bytes: Y₀, U, Y₁, V; BT.601, limited range.
    Yuyv,
}

impl Encoding {
    /// Every encoding, in the order of declaration.
    pub const ALL: [Self; 7] = [Self::Rgb8, Self::Bgr8, Self::Rgba8, Self::Bgra8, Self::Mono8, Self::Uyvy, Self::Yuyv];

    /// The encoding that `sensor_msgs/Image` calls by `name`; `None` if it is not supported.
    pub fn from_ros(name: &str) -> Option<Self> {
        Some(match name {
            "rgb8" => Self::Rgb8,
            "bgr8" | "8UC3" => Self::Bgr8,
            "rgba8" => Self::Rgba8,
            "bgra8" | "8UC4" => Self::Bgra8,
            "mono8" | "8UC1" => Self::Mono8,
            "uyvy" | "yuv422" => Self::Uyvy,
            "yuyv" | "yuv422_yuy2" => Self::Yuyv,
            _ => return None,
        })
    }

    /// Name of the encoding in `sensor_msgs/Image`.
    pub fn ros_name(self) -> &'static str {
        match self {
            Self::Rgb8 => "rgb8",
            Self::Bgr8 => "bgr8",
            Self::Rgba8 => "rgba8",
            Self::Bgra8 => "bgra8",
            Self::Mono8 => "mono8",
            Self::Uyvy => "uyvy",
            Self::Yuyv => "yuyv",
        }
    }

    /// Bytes of one pixel; of half a pair where two pixels share their chroma.
    pub fn pixel_bytes(self) -> usize {
        match self {
            Self::Mono8 => 1,
            Self::Uyvy | Self::Yuyv => 2,
            Self::Rgb8 | Self::Bgr8 => 3,
            Self::Rgba8 | Self::Bgra8 => 4,
        }
    }

    /// Bytes of a row of `width` pixels without padding. A pair of pixels that shares its chroma is
    /// always whole.
    pub fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::Uyvy | Self::Yuyv => width.div_ceil(2) * 4,
            _ => width * self.pixel_bytes(),
        }
    }
}

/// Why an image is refused. Made without allocation, since a camera may send thousands of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ImageError {
    /// The encoding is not one of [`Encoding::ALL`].
    #[error("the encoding is not supported; use rgb8, bgr8, rgba8, bgra8, mono8, uyvy or yuyv")]
    Encoding,
    /// Width or height is 0.
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: it has no pixels")]
    Empty { width: u32, height: u32 },
    /// Width or height is above [`MAX_SIDE`].
    #[allow(missing_docs, reason = "pixels")]
    #[error("the image is {width}x{height}: a side may have {MAX_SIDE} pixels at most")]
    TooLarge { width: u32, height: u32 },
    /// The step from row to row is shorter than a row; both in bytes.
    #[allow(missing_docs, reason = "said above")]
    #[error("step is {step} bytes, but a row of pixels takes {row_bytes}")]
    Step { step: u32, row_bytes: usize },
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
            Self::Step { .. } => "step",
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
    data: &'a [u8],
}

impl<'a> ImageView<'a> {
    /// Checks an image as `sensor_msgs/Image` describes it: `step` bytes from row to row (any
    /// number that holds a row; the last row needs no padding), sides from 1 to [`MAX_SIDE`]
    /// pixels.
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
        let row_bytes = encoding.row_bytes(width as usize);
        if (step as usize) < row_bytes {
            return Err(ImageError::Step { step, row_bytes });
        }
        // Below 2^14 · 2^32, so it cannot overflow a 64-bit usize; saturating covers 32-bit
        // targets.
        let expected = (step as usize).saturating_mul(height as usize - 1).saturating_add(row_bytes);
        if data.len() < expected {
            return Err(ImageError::ShortData { found: data.len(), expected });
        }
        Ok(Self { encoding, width: width as usize, height: height as usize, step: step as usize, data })
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

    /// All rows as one slice; `None` if rows are padded.
    pub fn without_gaps(&self) -> Option<&'a [u8]> {
        let row_bytes = self.encoding.row_bytes(self.width);
        (self.step == row_bytes).then(|| &self.data[..row_bytes * self.height])
    }

    /// The bytes of row `y`, without padding.
    ///
    /// # Panics
    /// When `y` is not below the height.
    pub fn row(&self, y: usize) -> &'a [u8] {
        assert!(y < self.height);
        let start = y * self.step;
        &self.data[start..start + self.encoding.row_bytes(self.width)]
    }
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
        assert_eq!(check("bayer_rggb8", 4, 4, 4, 16), Err("encoding"));
        assert_eq!(check("mono8", 0, 4, 4, 16), Err("empty"));
        assert_eq!(check("mono8", 4, 0, 4, 16), Err("empty"));
        assert_eq!(check("mono8", u32::MAX, u32::MAX, u32::MAX, 16), Err("too_large"));
        assert_eq!(check("mono8", 4, 4, 3, 16), Err("step"));
        assert_eq!(check("mono8", 4, 16_384, u32::MAX, 16), Err("short_data"));
    }

    #[test]
    fn every_encoding_is_found_by_its_ros_name() {
        for encoding in Encoding::ALL {
            assert_eq!(Encoding::from_ros(encoding.ros_name()), Some(encoding));
        }
    }
}
