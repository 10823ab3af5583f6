//! One recorded image: what the messages of the types that carry images have in common.

use std::borrow::Cow;

use peregrine_core::encoding::Levels;
use peregrine_core::{Encoding, ImageView};
use peregrine_video::Picture;
use peregrine_vision::preprocess::compressed_format::is_picture;
use peregrine_vision::preprocess::{CompressedError, Decompressor};

use crate::cdr::{Cdr, CdrError};

/// A message type that carries an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageType {
    /// `sensor_msgs/msg/Image`.
    Raw,
    /// `sensor_msgs/msg/CompressedImage`.
    Compressed,
    /// `foxglove_msgs/msg/CompressedImage`: the same fields in another order.
    Foxglove,
    /// `foxglove_msgs/msg/CompressedVideo`: the same fields, and each image a frame of a video.
    FoxgloveVideo,
}

impl ImageType {
    /// The type that a topic calls by `name`.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "sensor_msgs/msg/Image" | "sensor_msgs/Image" => Self::Raw,
            "sensor_msgs/msg/CompressedImage" | "sensor_msgs/CompressedImage" => Self::Compressed,
            "foxglove_msgs/msg/CompressedImage" | "foxglove_msgs/CompressedImage" => Self::Foxglove,
            "foxglove_msgs/msg/CompressedVideo" | "foxglove_msgs/CompressedVideo" => Self::FoxgloveVideo,
            _ => return None,
        })
    }
}

/// An image of a recording, borrowed from the reader that yielded it.
#[derive(Debug, Clone)]
pub struct RecordedImage<'a> {
    /// When it was recorded: nanoseconds since 1970; of a video, since its beginning.
    pub log_time: u64,
    /// When it was taken, as its header says, or `log_time` where the header has no stamp.
    pub stamp: u64,
    /// The camera's frame, as the header names it.
    pub frame_id: Cow<'a, str>,
    /// Its pixels.
    pub content: Content<'a>,
}

/// The pixels of a recorded image.
#[derive(Debug, Clone)]
pub enum Content<'a> {
    /// As `sensor_msgs/Image` describes them; not checked yet.
    #[allow(missing_docs, reason = "the message's own fields")]
    Raw { encoding: Cow<'a, str>, big_endian: bool, width: u32, height: u32, step: u32, data: &'a [u8] },
    /// An encoded picture, as `sensor_msgs/CompressedImage` carries it.
    #[allow(missing_docs, reason = "the message's own fields")]
    Compressed { format: Cow<'a, str>, data: &'a [u8] },
    /// A picture of a video of H.264 or H.265, whose frames the messages of a topic carry.
    Decoded(&'a Picture),
}

/// Why an image has no pixels that can be used.
#[derive(Debug, thiserror::Error)]
pub enum PixelError {
    /// A raw encoding that is not read here.
    #[error("the encoding {0:?} is not supported; use {supported}", supported = Encoding::SUPPORTED)]
    Encoding(String),
    /// Impossible sizes.
    #[error(transparent)]
    Image(#[from] peregrine_core::ImageError),
    /// A compressed image that cannot be decoded.
    #[error("format {format:?}: {source}")]
    Compressed {
        /// The message's `format`.
        format: String,
        /// What is wrong.
        source: CompressedError,
    },
    /// Values in a JPEG or PNG that are no picture, and would be taken for grey.
    #[error(
        "format {0:?}: values that are no picture of 8 bits (a Bayer pattern, 16-bit grey or depth) are not supported; \
         record the converted image"
    )]
    Values(String),
}

impl<'a> RecordedImage<'a> {
    /// Reads a message of `image_type`, recorded at `log_time`.
    ///
    /// # Errors
    /// When it is no such message, or shorter than it says.
    pub fn read(image_type: ImageType, log_time: u64, message: &'a [u8]) -> Result<Self, CdrError> {
        let mut cdr = Cdr::new(message)?;
        let stamp = stamp(&mut cdr)?.unwrap_or(log_time);
        let frame_id = String::from_utf8_lossy(cdr.text()?);
        let content = match image_type {
            ImageType::Raw => {
                let (height, width) = (cdr.u32()?, cdr.u32()?);
                let encoding = String::from_utf8_lossy(cdr.text()?);
                let big_endian = cdr.u8()? != 0;
                Content::Raw { encoding, big_endian, width, height, step: cdr.u32()?, data: cdr.bytes()? }
            }
            ImageType::Compressed => {
                Content::Compressed { format: String::from_utf8_lossy(cdr.text()?), data: cdr.bytes()? }
            }
            ImageType::Foxglove | ImageType::FoxgloveVideo => {
                let data = cdr.bytes()?;
                Content::Compressed { format: String::from_utf8_lossy(cdr.text()?), data }
            }
        };
        Ok(Self { log_time, stamp, frame_id, content })
    }

    /// Its pixels: in place, or decoded into `decompressor`.
    ///
    /// # Errors
    /// When the encoding is not supported, or the image is damaged.
    pub fn view<'v>(&'v self, decompressor: &'v mut Decompressor, levels: Levels) -> Result<ImageView<'v>, PixelError> {
        match &self.content {
            Content::Raw { encoding, big_endian, width, height, step, data } => {
                let known = Encoding::from_ros(encoding).ok_or_else(|| PixelError::Encoding(encoding.to_string()))?;
                let known = known.with(*big_endian, levels);
                Ok(ImageView::with_encoding(known, *width, *height, *step, data)?)
            }
            Content::Decoded(picture) => Ok(picture.view()?),
            Content::Compressed { format, data } => {
                if !is_picture(format.as_bytes()) {
                    return Err(PixelError::Values(format.to_string()));
                }
                decompressor
                    .decode(data)
                    .map_err(|source| PixelError::Compressed { format: format.to_string(), source })
            }
        }
    }
}

/// Nanoseconds since 1970. `None` for the stamp of a header that nobody filled in, or before 1970.
fn stamp(cdr: &mut Cdr) -> Result<Option<u64>, CdrError> {
    let (seconds, nanoseconds) = (cdr.i32()?, cdr.u32()?);
    let stamp = u64::try_from(seconds).ok().map(|s| s * 1_000_000_000 + u64::from(nanoseconds));
    Ok(stamp.filter(|&stamp| stamp > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compressed_image_is_refused_by_what_its_values_are() {
        let mut bytes = std::io::Cursor::new(vec![]);
        let mut write = |picture: image::DynamicImage| {
            bytes = std::io::Cursor::new(vec![]);
            picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            bytes.get_ref().clone()
        };
        let grey = write(image::GrayImage::from_pixel(6, 4, image::Luma([9])).into());
        let deep = write(image::ImageBuffer::from_pixel(6, 4, image::Luma([900u16])).into());
        let view = |format: &str, data: &[u8]| {
            let content = Content::Compressed { format: format.into(), data };
            let image = RecordedImage { log_time: 0, stamp: 0, frame_id: "".into(), content };
            image
                .view(&mut Decompressor::new(), Levels::default())
                .map(|view| view.encoding())
                .map_err(|error| error.to_string())
        };
        for format in ["", "png", "mono8; png compressed ", "bayer_rggb8; png compressed mono8"] {
            assert_eq!(view(format, &grey), Ok(Encoding::Mono8), "{format}");
        }
        for format in ["bayer_rggb8; png compressed ", "16UC1; png compressed ", "32FC1; compressedDepth"] {
            assert!(view(format, &grey).unwrap_err().contains(format), "{format}");
        }
        assert!(view("png", &deep).unwrap_err().contains("16-bit grey"));
    }
}
