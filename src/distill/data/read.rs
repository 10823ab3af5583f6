//! Decoding of images.
//!
//! An image is turned as its EXIF orientation says, since every label tool shows and labels it so.

use std::borrow::Cow;
use std::fs;
use std::io::Cursor;
use std::path::Path;

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageReader, RgbImage};
use peregrine_vision::preprocess::jpeg::{self, JpegFault};

use super::DataError;

/// Larger files are refused before they are read: in bytes.
const LARGEST: u64 = 1 << 30;

/// Decodes an image to RGB, turned upright; the format is detected from the content.
///
/// # Errors
/// [`DataError::Image`] when the file is missing, damaged or in a format that is not read.
pub fn load_image(path: &Path) -> Result<RgbImage, DataError> {
    decode(path).map(DynamicImage::into_rgb8)
}

/// Width and height in pixels of the upright image, from the file's header alone.
///
/// # Errors
/// [`DataError::Image`] when the file is missing or its header is damaged.
pub fn dimensions(path: &Path) -> Result<(u32, u32), DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| why(&e))?;
    let mut decoder = reader.into_decoder().map_err(|e| why(&e))?;
    match (decoder.dimensions(), orientation(&mut decoder)) {
        ((0, _) | (_, 0), _) => Err(why(&"it has no pixels")),
        ((width, height), turned) if swaps_sides(turned) => Ok((height, width)),
        (size, _) => Ok(size),
    }
}

/// The upright image in the file's own pixel format.
pub(super) fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let bytes = read_file(path, LARGEST).map_err(|e| why(&e))?;
    // The decoder would fill with grey what a damaged JPEG lacks, without an error.
    let bytes = if bytes.starts_with(&[0xFF, 0xD8]) {
        jpeg::checked(&bytes).map_err(|fault| match fault {
            JpegFault::Truncated => why(&"the JPEG is truncated"),
            fault => why(&format!("the JPEG {fault}")),
        })?
    } else {
        Cow::Borrowed(&bytes[..])
    };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| why(&e))?;
    let mut decoder = reader.into_decoder().map_err(|e| why(&e))?;
    let turned = orientation(&mut decoder);
    let mut image = DynamicImage::from_decoder(decoder).map_err(|e| why(&e))?;
    image.apply_orientation(turned);
    Ok(image)
}

/// The bytes of a file, if it has no more than `limit`.
pub(super) fn read_file(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let length = fs::metadata(path)?.len();
    if length > limit {
        let why = format!("it has {} MiB, which is more than the {} that are read", length >> 20, limit >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    fs::read(path)
}

/// As stored if the file does not say, or what it says is damaged: viewers do the same.
fn orientation(decoder: &mut impl ImageDecoder) -> Orientation {
    decoder.orientation().unwrap_or(Orientation::NoTransforms)
}

fn swaps_sides(orientation: Orientation) -> bool {
    use Orientation::{Rotate270, Rotate270FlipH, Rotate90, Rotate90FlipH};
    matches!(orientation, Rotate90 | Rotate270 | Rotate90FlipH | Rotate270FlipH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jpeg() -> Vec<u8> {
        let mut jpeg = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
        RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 0]))
            .write_with_encoder(encoder)
            .unwrap();
        jpeg
    }

    fn is_truncated(bytes: &[u8]) -> bool {
        jpeg::checked(bytes).err() == Some(JpegFault::Truncated)
    }

    #[test]
    fn a_truncated_jpeg_is_detected() {
        let mut jpeg = jpeg();
        assert!(!is_truncated(&jpeg));
        assert!((2..jpeg.len() - 1).all(|length| is_truncated(&jpeg[..length])));
        // Data after the end, such as a camera's maker notes, does not matter.
        jpeg.extend([1, 2, 3]);
        assert!(!is_truncated(&jpeg));
    }

    #[test]
    fn a_film_behind_a_photo_does_not_make_it_truncated() {
        let mut photo = jpeg();
        // The film's bytes happen to hold markers: a start of scan and no end of image.
        photo.extend(b"\x00\x00\x00\x18ftypmp42\xff\xda\x00\x08\xff\xd8\x12\x34");
        assert!(!is_truncated(&photo));
        // A thumbnail within the EXIF segment has its own end of image.
        let mut with_thumbnail = vec![0xff, 0xd8, 0xff, 0xe1, 0x00, 0x06, 0xff, 0xd8, 0xff, 0xd9];
        assert!(is_truncated(&with_thumbnail));
        with_thumbnail.extend(&jpeg()[2..]);
        assert!(!is_truncated(&with_thumbnail));
    }
}
