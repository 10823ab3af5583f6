//! Whether a camera's values are as the user says, as far as the values tell: nothing in a message says how many of its
//! 16 bits a camera fills, or of which range its luma is, and with the wrong one a network sees an image that is nearly
//! black, or has too little contrast, and nothing else shows it.

use std::fmt;

use peregrine_core::encoding::YuvRange::Limited;
use peregrine_core::{Encoding, ImageView};

/// Rows and columns of an image that are looked at.
const GRID: (usize, usize) = (16, 4);

/// Values without which nothing is said.
const ENOUGH: u32 = 2048;

/// Values after which older ones weigh half.
const MANY: u32 = 1 << 16;

/// What luma of limited range may be; video has a few values beyond it.
const LIMITED_LUMA: std::ops::RangeInclusive<u16> = 16..=235;

/// The values of a stream's images, looked at here and there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LevelWatch {
    /// Of what the values are, the last image's; none yet of another.
    encoding: Option<Encoding>,
    images: u32,
    values: u32,
    /// Values above white, or luma beyond limited range.
    beyond: u32,
    largest: u16,
}

/// What is doubtful about the values of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LevelDoubt {
    /// No value comes near white.
    #[allow(missing_docs, reason = "the value that is white, and a likelier one")]
    TooDark { white: u16, likely: u16 },
    /// Most values are above white.
    #[allow(missing_docs, reason = "the value that is white")]
    TooBright { white: u16 },
    /// Luma is often beyond limited range.
    FullRange,
}

impl LevelWatch {
    /// Looks at a few values of an image: 64, other ones in each, without allocation.
    pub fn look(&mut self, image: &ImageView) {
        let encoding = image.encoding();
        if self.encoding != Some(encoding) {
            *self = Self { encoding: Some(encoding), ..Self::default() };
        }
        let Some(value) = reader(encoding) else { return };
        let (width, height) = image.size();
        self.images = self.images.wrapping_add(1);
        // A part of the image each, and within it every time another place.
        let offset = self.images as usize * 7919;
        for j in 0..GRID.1 {
            let row = image.row((j * height + offset % height) / GRID.1 % height);
            for i in 0..GRID.0 {
                self.add(value(row, (i * width + offset % width) / GRID.0 % width));
            }
        }
        if self.values > MANY {
            (self.values, self.beyond) = (self.values / 2, self.beyond / 2);
        }
    }

    /// Looks at so many values of an image that something can be said of it alone.
    pub fn look_closely(&mut self, image: &ImageView) {
        (0..ENOUGH as usize / (GRID.0 * GRID.1)).for_each(|_| self.look(image));
    }

    fn add(&mut self, value: u16) {
        let beyond = match self.encoding.and_then(Encoding::channel16) {
            Some(channel) => value > channel.white.get(),
            None => !LIMITED_LUMA.contains(&value),
        };
        self.values += 1;
        self.beyond += u32::from(beyond);
        self.largest = self.largest.max(value);
    }

    /// What is doubtful, once enough has been seen.
    pub fn doubt(&self) -> Option<LevelDoubt> {
        let encoding = self.encoding.filter(|_| self.values >= ENOUGH)?;
        let Some(white) = encoding.channel16().map(|channel| channel.white.get()) else {
            return (self.beyond > self.values / 20).then_some(LevelDoubt::FullRange);
        };
        if self.beyond > self.values / 2 {
            return Some(LevelDoubt::TooBright { white });
        }
        let likely = (u16::MAX >> self.largest.leading_zeros().min(8)).min(white);
        (self.largest < white / 4).then_some(LevelDoubt::TooDark { white, likely })
    }
}

/// How a value of 16 bits, or luma of what is taken for limited range, is read of a row at a pixel.
fn reader(encoding: Encoding) -> Option<fn(&[u8], usize) -> u16> {
    Some(match encoding {
        Encoding::Uyvy(Limited) => |row, x| row[2 * x + 1].into(),
        Encoding::Yuyv(Limited) => |row, x| row[2 * x].into(),
        Encoding::Nv12(Limited) | Encoding::Nv21(Limited) | Encoding::Nv24(Limited) | Encoding::I420(Limited) => {
            |row, x| row[x].into()
        }
        _ if encoding.is_big_endian() => |row, x| u16::from_be_bytes([row[2 * x], row[2 * x + 1]]),
        _ if encoding.channel16().is_some() => |row, x| u16::from_le_bytes([row[2 * x], row[2 * x + 1]]),
        _ => return None,
    })
}

impl LevelDoubt {
    /// The setting to look at, as the node's parameter is called, and a likely value.
    pub fn setting(&self) -> (&'static str, String) {
        match self {
            Self::TooDark { likely, .. } => ("white_level", likely.to_string()),
            Self::TooBright { .. } => ("white_level", u16::MAX.to_string()),
            Self::FullRange => ("yuv_range", "full".into()),
        }
    }

    /// The program's option for it, such as `--white-level 4095`.
    pub fn option(&self) -> String {
        let (name, value) = self.setting();
        format!("--{} {value}", name.replace('_', "-"))
    }
}

impl fmt::Display for LevelDoubt {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::TooDark { white, .. } => {
                write!(f, "no value of the 16-bit images comes near {white}, which counts as white: they are seen dark")
            }
            Self::TooBright { white } => {
                write!(f, "most values of the 16-bit images are above {white}, which counts as white")
            }
            Self::FullRange => {
                write!(f, "the images' luma is often outside of 16 to 235, the limited range that it is taken for")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use peregrine_core::encoding::{Levels, YuvRange};

    use super::*;

    /// What is doubtful of 100 images whose values are those of a ramp between `low` and `high`.
    fn doubt(name: &str, levels: Levels, big_endian: bool, (low, high): (u16, u16)) -> Option<LevelDoubt> {
        let (width, height) = (66, 34);
        let encoding = Encoding::from_ros(name).unwrap().with(big_endian, levels);
        let number = |i: usize| low + (i * 7919 % (usize::from(high - low) + 1)) as u16;
        let data: Vec<u8> = match encoding.channel16() {
            None => (0..6 * width * height).map(|i| number(i) as u8).collect(),
            Some(_) if big_endian => (0..4 * width * height).flat_map(|i| number(i).to_be_bytes()).collect(),
            Some(_) => (0..4 * width * height).flat_map(|i| number(i).to_le_bytes()).collect(),
        };
        let step = encoding.row_bytes(width) as u32;
        let image = ImageView::with_encoding(encoding, width as u32, height as u32, step, &data).unwrap();
        let mut watch = LevelWatch::default();
        (0..10).for_each(|_| watch.look(&image));
        assert_eq!(watch.doubt(), None, "too little was seen");
        (0..90).for_each(|_| watch.look(&image));
        watch.doubt()
    }

    #[test]
    fn a_camera_that_fills_fewer_bits_is_noticed() {
        let white = |white| Levels { white: NonZeroU16::new(white).unwrap(), ..Levels::default() };
        for (name, big_endian) in [("mono16", false), ("mono16", true), ("bayer_rggb16", false), ("rgb16", true)] {
            let found = doubt(name, Levels::default(), big_endian, (100, 4000)).unwrap();
            assert_eq!(found, LevelDoubt::TooDark { white: 65535, likely: 4095 });
            assert_eq!(found.option(), "--white-level 4095");
            assert_eq!(doubt(name, white(4095), big_endian, (100, 4000)), None);
            assert_eq!(doubt(name, Levels::default(), big_endian, (100, 40_000)), None);
            let found = doubt(name, white(4095), big_endian, (100, 65_000)).unwrap();
            assert_eq!(found, LevelDoubt::TooBright { white: 4095 });
        }
    }

    #[test]
    fn luma_beyond_limited_range_is_noticed() {
        let full = Levels { yuv: YuvRange::Full, ..Levels::default() };
        for name in ["nv12", "nv21", "nv24", "yuv420", "yuyv", "uyvy"] {
            assert_eq!(doubt(name, Levels::default(), false, (16, 235)), None, "{name}");
            assert_eq!(doubt(name, Levels::default(), false, (0, 255)), Some(LevelDoubt::FullRange), "{name}");
            assert_eq!(doubt(name, full, false, (0, 255)), None, "{name}");
        }
        assert_eq!(doubt("rgb8", Levels::default(), false, (0, 255)), None);
    }
}
