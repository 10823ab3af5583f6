//! Pictures in a page: shrunk, with boxes drawn on them.

use base64::prelude::{Engine, BASE64_STANDARD};
use image::codecs::jpeg::JpegEncoder;
use image::imageops::{self, FilterType};
use image::{ImageError, RgbImage};
use peregrine_core::BoundingBox;

use crate::Colour;

const JPEG_QUALITY: u8 = 80;

/// Shrinks to at most `side` pixels either way; what is smaller stays.
pub fn shrink(image: &RgbImage, side: u32) -> RgbImage {
    let scale = f64::from(side) / f64::from(image.width().max(image.height()));
    if scale >= 1.0 {
        return image.clone();
    }
    let to = |size: u32| ((f64::from(size) * scale).round() as u32).max(1);
    imageops::resize(image, to(image.width()), to(image.height()), FilterType::Triangle)
}

/// Draws a box's outline of `thickness` pixels, clipped to the image.
pub fn draw_box(image: &mut RgbImage, bbox: &BoundingBox, colour: Colour, thickness: u32) {
    let (width, height) = image.dimensions();
    let at = |v: f32, limit: u32| (v.max(0.0) as u32).min(limit.saturating_sub(1));
    let (left, right) = (at(bbox.x_min, width), at(bbox.x_max, width));
    let (top, bottom) = (at(bbox.y_min, height), at(bbox.y_max, height));
    for y in top..=bottom {
        for x in left..=right {
            let inside = [x - left, right - x, y - top, bottom - y].into_iter().min().unwrap_or(0);
            if inside < thickness {
                image.put_pixel(x, y, colour);
            }
        }
    }
}

/// The picture as a JPEG within a URI.
pub(crate) fn data_uri(image: &RgbImage) -> Result<String, ImageError> {
    let mut jpeg = Vec::new();
    image.write_with_encoder(JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY))?;
    Ok(format!("data:image/jpeg;base64,{}", BASE64_STANDARD.encode(jpeg)))
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;
    use crate::colour::RED;

    #[test]
    fn a_box_is_drawn_as_an_outline_within_the_image() {
        let mut image = RgbImage::new(10, 10);
        draw_box(&mut image, &BoundingBox::new(2.0, 2.0, 50.0, 7.0), RED, 1);
        assert_eq!(image.get_pixel(2, 5), &RED);
        assert_eq!(image.get_pixel(9, 5), &RED);
        assert_eq!(image.get_pixel(5, 5), &Rgb([0; 3]));
    }
}
