//! Pictures and masks, decoded.

use std::path::Path;

use image::{DynamicImage, GrayImage, ImageReader, RgbImage};

use super::DataError;

/// Decodes a JPEG or PNG, whatever its file name says, to RGB.
///
/// # Errors
/// [`DataError::Image`] when the file is missing, damaged or of another kind.
pub fn load_image(path: &Path) -> Result<RgbImage, DataError> {
    decode(path).map(DynamicImage::into_rgb8)
}

/// Decodes a mask: one byte a pixel, a class's index, unchanged.
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
pub(super) fn dimensions(path: &Path) -> Result<(u32, u32), DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| why(&e))?;
    match reader.into_dimensions().map_err(|e| why(&e))? {
        (0, _) | (_, 0) => Err(why(&"it has no pixels")),
        size => Ok(size),
    }
}

fn decode(path: &Path) -> Result<DynamicImage, DataError> {
    let why = |e: &dyn std::fmt::Display| DataError::Image { path: path.to_owned(), why: e.to_string() };
    let reader = ImageReader::open(path).and_then(ImageReader::with_guessed_format).map_err(|e| why(&e))?;
    reader.decode().map_err(|e| why(&e))
}
