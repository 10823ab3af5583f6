//! How the bytes of an image stand for colours.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// How the bytes of an image stand for colours, in `sensor_msgs/image_encodings` and beyond.
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
    /// Red, green, blue; 16 bits each.
    Rgb16(Channel16),
    /// Blue, green, red; 16 bits each.
    Bgr16(Channel16),
    /// Red, green, blue, alpha; 16 bits each. Alpha is not used.
    Rgba16(Channel16),
    /// Blue, green, red, alpha; 16 bits each. Alpha is not used.
    Bgra16(Channel16),
    /// 16 bits of grey.
    Mono16(Channel16),
    /// Two pixels in four bytes: U, Y₀, V, Y₁.
    Uyvy(YuvRange),
    /// Two pixels in four bytes: Y₀, U, Y₁, V.
    Yuyv(YuvRange),
    /// A plane of Y, then one of U and V by turns for 2×2 pixels each.
    Nv12(YuvRange),
    /// A plane of Y, then one of V and U by turns for 2×2 pixels each.
    Nv21(YuvRange),
    /// A plane of Y, then one of U and V by turns for each pixel.
    Nv24(YuvRange),
    /// A plane of Y, one of U and one of V, the latter for 2×2 pixels each.
    I420(YuvRange),
    /// A byte a pixel, of one colour each.
    Bayer8(Mosaic),
    /// 16 bits a pixel, of one colour each.
    Bayer16(Mosaic, Channel16),
}

/// How 16 bits stand for brightness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Channel16 {
    /// Whether the byte of the higher bits comes first.
    pub big_endian: bool,
    /// The value that is white, and what is above it: 4095 where a camera fills 12 bits.
    pub white: NonZeroU16,
}

/// Values of luma and chroma, ITU-R BT.601.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum YuvRange {
    /// Luma from 16 to 235, chroma from 16 to 240, as video has them.
    #[default]
    Limited,
    /// All from 0 to 255, as JPEG has them.
    Full,
}

impl FromStr for YuvRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "limited" => Ok(Self::Limited),
            "full" => Ok(Self::Full),
            _ => Err(format!("{text:?} is neither limited nor full")),
        }
    }
}

impl fmt::Display for YuvRange {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Limited => "limited",
            Self::Full => "full",
        })
    }
}

/// Colours of the four pixels at the top left: the first row's, then the second's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mosaic {
    #[allow(missing_docs, reason = "the name says it")]
    Rggb,
    #[allow(missing_docs, reason = "the name says it")]
    Bggr,
    #[allow(missing_docs, reason = "the name says it")]
    Gbrg,
    #[allow(missing_docs, reason = "the name says it")]
    Grbg,
}

/// What an image's message does not say of its values, and a user knows of the camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Levels {
    /// Of encodings of luma and chroma.
    pub yuv: YuvRange,
    /// The value of 16 bits that is white.
    pub white: NonZeroU16,
}

impl Default for Levels {
    /// Limited range, and white where all 16 bits are set.
    fn default() -> Self {
        Self { yuv: YuvRange::default(), white: NonZeroU16::MAX }
    }
}

/// One plane of an image, without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plane {
    /// Bytes of a row.
    pub row_bytes: usize,
    /// Number of rows; 0 of a plane that is not there.
    pub rows: usize,
}

/// Most planes of an encoding.
pub const PLANES: usize = 3;

impl Mosaic {
    /// Whether the first row, and the first column, is one without red.
    pub fn red_at(self) -> (usize, usize) {
        match self {
            Self::Rggb => (0, 0),
            Self::Grbg => (0, 1),
            Self::Gbrg => (1, 0),
            Self::Bggr => (1, 1),
        }
    }
}

impl Encoding {
    /// What is supported, as a list for sentences.
    pub const SUPPORTED: &'static str =
        "rgb8, bgr8, rgba8, bgra8, mono8, rgb16, bgr16, rgba16, bgra16, mono16, uyvy, yuyv, nv12, nv21, nv24, yuv420, \
         bayer_rggb8, bayer_bggr8, bayer_gbrg8, bayer_grbg8 or bayer_…16";

    /// Every encoding, in the order of declaration: little-endian, and of the default [`Levels`].
    pub const ALL: [Self; 24] = {
        let full = Channel16 { big_endian: false, white: NonZeroU16::MAX };
        let range = YuvRange::Limited;
        [
            Self::Rgb8,
            Self::Bgr8,
            Self::Rgba8,
            Self::Bgra8,
            Self::Mono8,
            Self::Rgb16(full),
            Self::Bgr16(full),
            Self::Rgba16(full),
            Self::Bgra16(full),
            Self::Mono16(full),
            Self::Uyvy(range),
            Self::Yuyv(range),
            Self::Nv12(range),
            Self::Nv21(range),
            Self::Nv24(range),
            Self::I420(range),
            Self::Bayer8(Mosaic::Rggb),
            Self::Bayer8(Mosaic::Bggr),
            Self::Bayer8(Mosaic::Gbrg),
            Self::Bayer8(Mosaic::Grbg),
            Self::Bayer16(Mosaic::Rggb, full),
            Self::Bayer16(Mosaic::Bggr, full),
            Self::Bayer16(Mosaic::Gbrg, full),
            Self::Bayer16(Mosaic::Grbg, full),
        ]
    };

    /// The encoding that `sensor_msgs/Image` calls by `name`, little-endian and of the default
    /// [`Levels`]; `None` if it is not supported.
    pub fn from_ros(name: &str) -> Option<Self> {
        let name = match name {
            "8UC3" => "bgr8",
            "8UC4" => "bgra8",
            "8UC1" => "mono8",
            "16UC3" => "bgr16",
            "16UC4" => "bgra16",
            "16UC1" => "mono16",
            "yuv422" => "uyvy",
            "yuv422_yuy2" => "yuyv",
            "i420" | "I420" => "yuv420",
            name => name,
        };
        Self::ALL.into_iter().find(|encoding| encoding.ros_name() == name)
    }

    /// The same with the byte order that a message gives, and with what a user knows of the camera.
    #[must_use]
    pub fn with(self, big_endian: bool, levels: Levels) -> Self {
        let channel = Channel16 { big_endian, white: levels.white };
        match self {
            Self::Rgb16(_) => Self::Rgb16(channel),
            Self::Bgr16(_) => Self::Bgr16(channel),
            Self::Rgba16(_) => Self::Rgba16(channel),
            Self::Bgra16(_) => Self::Bgra16(channel),
            Self::Mono16(_) => Self::Mono16(channel),
            Self::Bayer16(mosaic, _) => Self::Bayer16(mosaic, channel),
            Self::Uyvy(_) => Self::Uyvy(levels.yuv),
            Self::Yuyv(_) => Self::Yuyv(levels.yuv),
            Self::Nv12(_) => Self::Nv12(levels.yuv),
            Self::Nv21(_) => Self::Nv21(levels.yuv),
            Self::Nv24(_) => Self::Nv24(levels.yuv),
            Self::I420(_) => Self::I420(levels.yuv),
            Self::Rgb8 | Self::Bgr8 | Self::Rgba8 | Self::Bgra8 | Self::Mono8 | Self::Bayer8(_) => self,
        }
    }

    /// Name of the encoding in `sensor_msgs/Image`.
    pub fn ros_name(self) -> &'static str {
        match self {
            Self::Rgb8 => "rgb8",
            Self::Bgr8 => "bgr8",
            Self::Rgba8 => "rgba8",
            Self::Bgra8 => "bgra8",
            Self::Mono8 => "mono8",
            Self::Rgb16(_) => "rgb16",
            Self::Bgr16(_) => "bgr16",
            Self::Rgba16(_) => "rgba16",
            Self::Bgra16(_) => "bgra16",
            Self::Mono16(_) => "mono16",
            Self::Uyvy(_) => "uyvy",
            Self::Yuyv(_) => "yuyv",
            Self::Nv12(_) => "nv12",
            Self::Nv21(_) => "nv21",
            Self::Nv24(_) => "nv24",
            Self::I420(_) => "yuv420",
            Self::Bayer8(Mosaic::Rggb) => "bayer_rggb8",
            Self::Bayer8(Mosaic::Bggr) => "bayer_bggr8",
            Self::Bayer8(Mosaic::Gbrg) => "bayer_gbrg8",
            Self::Bayer8(Mosaic::Grbg) => "bayer_grbg8",
            Self::Bayer16(Mosaic::Rggb, _) => "bayer_rggb16",
            Self::Bayer16(Mosaic::Bggr, _) => "bayer_bggr16",
            Self::Bayer16(Mosaic::Gbrg, _) => "bayer_gbrg16",
            Self::Bayer16(Mosaic::Grbg, _) => "bayer_grbg16",
        }
    }

    /// How its 16 bits stand for brightness; `None` where a channel has 8.
    pub fn channel16(self) -> Option<Channel16> {
        match self {
            Self::Rgb16(channel) | Self::Bgr16(channel) | Self::Rgba16(channel) => Some(channel),
            Self::Bgra16(channel) | Self::Mono16(channel) | Self::Bayer16(_, channel) => Some(channel),
            _ => None,
        }
    }

    /// The byte order of 16-bit channels; `false` where a channel has 8.
    pub fn is_big_endian(self) -> bool {
        self.channel16().is_some_and(|channel| channel.big_endian)
    }

    /// Bytes of a row of `width` pixels without padding; of luma where chroma has planes of its own.
    /// A pair of pixels that shares its chroma is always whole.
    pub fn row_bytes(self, width: usize) -> usize {
        match self {
            Self::Mono8 | Self::Bayer8(_) => width,
            Self::Nv12(_) | Self::Nv21(_) | Self::Nv24(_) | Self::I420(_) => width,
            Self::Mono16(_) | Self::Bayer16(..) => 2 * width,
            Self::Uyvy(_) | Self::Yuyv(_) => width.div_ceil(2) * 4,
            Self::Rgb8 | Self::Bgr8 => 3 * width,
            Self::Rgba8 | Self::Bgra8 => 4 * width,
            Self::Rgb16(_) | Self::Bgr16(_) => 6 * width,
            Self::Rgba16(_) | Self::Bgra16(_) => 8 * width,
        }
    }

    /// The planes of an image of `width` and `height` pixels, one behind the other.
    pub fn planes(self, (width, height): (usize, usize)) -> [Plane; PLANES] {
        let first = Plane { row_bytes: self.row_bytes(width), rows: height };
        let (half, none) = (Plane { row_bytes: width / 2, rows: height / 2 }, Plane::default());
        match self {
            Self::Nv12(_) | Self::Nv21(_) => [first, Plane { row_bytes: width, rows: height / 2 }, none],
            Self::Nv24(_) => [first, Plane { row_bytes: 2 * width, rows: height }, none],
            Self::I420(_) => [first, half, half],
            _ => [first, none, none],
        }
    }

    /// Bytes of an image of `width` and `height` pixels, without padding.
    pub fn image_bytes(self, size: (usize, usize)) -> usize {
        self.planes(size).iter().map(|plane| plane.row_bytes * plane.rows).sum()
    }

    /// Bytes from row to row in each plane, where it is `step` in the first: as V4L2 and OpenCV have
    /// it, in proportion to the rows.
    pub(crate) fn steps(self, step: usize) -> [usize; PLANES] {
        match self {
            Self::Nv24(_) => [step, 2 * step, 0],
            Self::I420(_) => [step, step / 2, step / 2],
            _ => [step; PLANES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_encoding_is_found_by_its_ros_name_and_told() {
        for encoding in Encoding::ALL {
            let name = encoding.ros_name();
            assert_eq!(Encoding::from_ros(name), Some(encoding));
            let told = name.replace("rggb16", "…16").replace("bggr16", "…16");
            let told = told.replace("gbrg16", "…16").replace("grbg16", "…16");
            assert!(Encoding::SUPPORTED.contains(&told), "{told}");
        }
        for (other, name) in [("16UC1", "mono16"), ("8UC3", "bgr8"), ("I420", "yuv420"), ("yuv422", "uyvy")] {
            assert_eq!(Encoding::from_ros(other).unwrap().ros_name(), name);
        }
        for unknown in ["", "32FC1", "16SC1", "bayer_rggb12", "NV12 ", "yuv444"] {
            assert_eq!(Encoding::from_ros(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn byte_order_and_levels_reach_the_encodings_that_have_them() {
        let levels = Levels { yuv: YuvRange::Full, white: NonZeroU16::new(4095).unwrap() };
        for encoding in Encoding::ALL {
            let with = encoding.with(true, levels);
            assert_eq!(with.ros_name(), encoding.ros_name());
            assert_eq!(with.is_big_endian(), encoding.ros_name().ends_with("16"));
            assert_eq!(with == encoding, encoding.ros_name().ends_with('8'), "{encoding:?}");
            assert_eq!(with.with(false, Levels::default()), encoding);
        }
    }
}
