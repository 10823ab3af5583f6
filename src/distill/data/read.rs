//! Decoding of images and masks.

use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, ImageReader, RgbImage};

use super::DataError;

/// Decodes a JPEG or PNG to RGB; the format is detected from the content.
///
/// # Errors
/// [`DataError::Image`] when the file is missing, damaged or in another format.
pub fn load_image(path: &Path) -> Result<RgbImage, DataError> {
    decode(path).map(DynamicImage::into_rgb8)
}

/// Decodes a mask: one byte per pixel, the class index, unchanged.
///
/// # Errors
/// [`DataError::Image`] when the file is missing, damaged, or holds colours instead of indices.
pub fn load_mask(path: &Path) -> Result<GrayImage, DataError> {
    match decode(path)? {
        DynamicImage::ImageLuma8(mask) => Ok(mask),
        other => Err(DataError::Image {
            path: path.to_owned(),
            why: format!(
                "a mask must be an 8-bit greyscale PNG holding class indices, but this is {:?}",
                other.color()
            ),
        }),
    }
}

/// Width and height in pixels, from the file's header alone.
///
/// # Errors
/// [`DataError::Image`] when the file is missing or has no header of an image.
pub fn dimensions(path: &Path) -> Result<(u32, u32), DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| why(&e))?;
    match reader.into_dimensions().map_err(|e| why(&e))? {
        (0, _) | (_, 0) => Err(why(&"it has no pixels")),
        size => Ok(size),
    }
}

fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let bytes = std::fs::read(path).map_err(|e| why(&e))?;
    if is_truncated(&bytes) {
        return Err(why(&"the JPEG is truncated"));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|e| why(&e))?;
    reader.decode().map_err(|e| why(&e))
}

/// Whether a JPEG lacks its end-of-image marker after the last start of a scan. The decoder fills
/// the missing part with grey without an error; neither marker can occur within a scan's data
/// (ITU-T T.81, B.1.1.5).
fn is_truncated(bytes: &[u8]) -> bool {
    let is = |marker: [u8; 2]| move |pair: &[u8]| pair == marker;
    bytes.starts_with(&[0xff, 0xd8])
        && bytes
            .windows(2)
            .rposition(is([0xff, 0xda]))
            .is_some_and(|scan| !bytes[scan..].windows(2).any(is([0xff, 0xd9])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_truncated_jpeg_is_detected() {
        let mut jpeg = Vec::new();
        let encoder = image::codecs::jpeg::JpegEncoder::new(&mut jpeg);
        RgbImage::from_fn(64, 64, |x, y| image::Rgb([x as u8 * 4, y as u8 * 4, 0]))
            .write_with_encoder(encoder)
            .unwrap();
        assert!(!is_truncated(&jpeg));
        assert!(is_truncated(&jpeg[..jpeg.len() - 100]));
        // Data after the end, such as a camera's maker notes, does not matter.
        jpeg.extend([1, 2, 3]);
        assert!(!is_truncated(&jpeg));
    }
}
