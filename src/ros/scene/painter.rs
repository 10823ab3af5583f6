//! The annotated image: boxes, names and the road, drawn into a copy of the image.

use embedded_graphics::mono_font::{ascii::FONT_7X13_BOLD, MonoTextStyle};
use embedded_graphics::pixelcolor::{Rgb888, RgbColor};
use embedded_graphics::prelude::{DrawTarget, Drawable, OriginDimensions, Pixel, Point, Primitive, Size};
use embedded_graphics::primitives::{PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Baseline, Text};
use jpeg_encoder::{ColorType, Encoder};
use peregrine_core::{BoundingBox, ClassMask, ImageView};
use peregrine_vision::preprocess::rgb::to_rgb8;

use crate::annotations::Annotations;

/// Colours that are distinguishable at a glance, also with most kinds of colour blindness: Okabe & Ito
/// (2008).
pub const COLOURS: [[u8; 3]; 7] =
    [[230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167]];

const ROAD: [u8; 3] = [0, 200, 120];

/// Draws the annotations into a copy of the image.
#[derive(Default)]
pub struct Painter {
    picture: Picture,
}

impl Painter {
    pub(super) fn paint(&mut self, view: &ImageView, found: &Annotations) -> &Picture {
        self.copy(view);
        let picture = &mut self.picture;
        let classes = found.classes.as_deref();
        if let Some(classes) = classes.filter(|classes| classes.has_road()) {
            picture.tint(&found.mask, |class| classes.is_road(class), ROAD);
        }
        // Tracks without a detection in this frame: thin, and without a name.
        for track in found.tracks.iter().filter(|t| t.missed > 0) {
            picture.frame(&track.bbox, COLOURS[track.class % COLOURS.len()], 1);
        }
        let identities = found.identities.iter().copied().chain(std::iter::repeat(0));
        for (detection, identity) in found.detections.iter().zip(identities) {
            let colour = COLOURS[detection.class % COLOURS.len()];
            let name = classes.and_then(|classes| classes.detection.get(detection.class)).map_or("", |n| n.as_str());
            let identity = if identity == 0 { String::new() } else { format!(" {identity}") };
            picture.frame(&detection.bbox, colour, 2);
            picture.label(&detection.bbox, colour, &format!("{name}{identity} {:.2}", detection.score));
        }
        picture
    }

    /// The image's pixels as RGB.
    fn copy(&mut self, view: &ImageView) {
        let picture = &mut self.picture;
        if view.size() != (picture.width, picture.height) {
            // The memory of one huge image is freed with the next of another size.
            picture.pixels = Vec::new();
        }
        (picture.width, picture.height) = view.size();
        to_rgb8(view, &mut picture.pixels);
    }
}

/// An RGB image, row-major.
#[derive(Default)]
pub(super) struct Picture {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) pixels: Vec<u8>,
}

impl Picture {
    /// Blends a third of `colour` over the cells of `class`.
    fn tint(&mut self, mask: &ClassMask, is_tinted: impl Fn(u8) -> bool, colour: [u8; 3]) {
        let size = (self.width, self.height);
        for (i, pixel) in self.pixels.chunks_exact_mut(3).enumerate() {
            if mask.at(i % size.0, i / size.0, size).is_some_and(&is_tinted) {
                for (value, tint) in pixel.iter_mut().zip(colour) {
                    *value = ((2 * u16::from(*value) + u16::from(tint)) / 3) as u8;
                }
            }
        }
    }

    fn frame(&mut self, bbox: &BoundingBox, colour: [u8; 3], stroke: u32) {
        let (corner, size) = self.place(bbox);
        let _ = Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_stroke(rgb(colour), stroke)).draw(self);
    }

    /// A text on a background of `colour`, above the box or, at the image's upper edge, in it.
    fn label(&mut self, bbox: &BoundingBox, colour: [u8; 3], text: &str) {
        let (corner, _) = self.place(bbox);
        let size = Size::new(7 * text.len() as u32 + 2, 14);
        let corner = Point::new(corner.x, if corner.y >= 14 { corner.y - 14 } else { corner.y });
        let _ = Rectangle::new(corner, size).into_styled(PrimitiveStyle::with_fill(rgb(colour))).draw(self);
        let style = MonoTextStyle::new(&FONT_7X13_BOLD, Rgb888::BLACK);
        let _ = Text::with_baseline(text, corner + Point::new(1, 0), style, Baseline::Top).draw(self);
    }

    /// A box clipped to the image: that of a track may reach far beyond it.
    fn place(&self, bbox: &BoundingBox) -> (Point, Size) {
        let (width, height) = (self.width as f32, self.height as f32);
        let (x, y) = (bbox.x_min.clamp(0.0, width), bbox.y_min.clamp(0.0, height));
        let size = Size::new(
            (bbox.x_max.clamp(0.0, width) - x).max(0.0) as u32,
            (bbox.y_max.clamp(0.0, height) - y).max(0.0) as u32,
        );
        (Point::new(x as i32, y as i32), size)
    }

    /// Appends the image as JPEG of a quality from 1 to 100; false if it is larger than the format
    /// allows.
    pub(super) fn encode_jpeg(&self, to: &mut Vec<u8>, quality: u8) -> bool {
        let (Ok(width), Ok(height)) = (u16::try_from(self.width), u16::try_from(self.height)) else { return false };
        Encoder::new(to, quality).encode(&self.pixels, width, height, ColorType::Rgb).is_ok()
    }
}

fn rgb([r, g, b]: [u8; 3]) -> Rgb888 {
    Rgb888::new(r, g, b)
}

impl OriginDimensions for Picture {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Picture {
    type Color = Rgb888;
    type Error = std::convert::Infallible;

    fn draw_iter<I: IntoIterator<Item = Pixel<Rgb888>>>(&mut self, pixels: I) -> Result<(), Self::Error> {
        for Pixel(at, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(at.x), usize::try_from(at.y)) else { continue };
            if x < self.width && y < self.height {
                let i = 3 * (y * self.width + x);
                self.pixels[i..i + 3].copy_from_slice(&[colour.r(), colour.g(), colour.b()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use peregrine_core::Detection;
    use peregrine_student::Architecture;

    use super::*;
    use crate::model::ModelClasses;

    fn painted(encoding: &str, bytes: usize, found: &Annotations) -> Picture {
        let data = vec![100; 64 * 48 * bytes];
        let view = ImageView::new(encoding, 64, 48, 64 * bytes as u32, &data).unwrap();
        let mut painter = Painter::default();
        painter.paint(&view, found);
        painter.picture
    }

    fn at(picture: &Picture, x: usize, y: usize) -> [u8; 3] {
        let i = 3 * (y * picture.width + x);
        [picture.pixels[i], picture.pixels[i + 1], picture.pixels[i + 2]]
    }

    #[test]
    fn without_results_the_annotated_image_is_the_image() {
        for (encoding, bytes) in [("rgb8", 3), ("bgra8", 4), ("mono8", 1)] {
            let picture = painted(encoding, bytes, &Annotations::default());
            assert!(picture.pixels.iter().all(|&v| v == 100), "{encoding}");
        }
    }

    #[test]
    fn an_image_of_any_size_is_painted_also_after_another() {
        let mut painter = Painter::default();
        let found = Annotations {
            detections: vec![Detection { class: 0, score: 0.9, bbox: BoundingBox::new(0.0, 0.0, 2.0, 1.0) }],
            ..Annotations::default()
        };
        for (width, height) in [(640usize, 480usize), (2, 1), (1, 1), (31, 700)] {
            let data = vec![100; 3 * width * height];
            let view = ImageView::new("rgb8", width as u32, height as u32, 3 * width as u32, &data).unwrap();
            let picture = painter.paint(&view, &found);
            assert_eq!((picture.width, picture.height, picture.pixels.len()), (width, height, 3 * width * height));
        }
    }

    #[test]
    fn a_box_is_framed_named_and_the_road_is_tinted() {
        let found = Annotations {
            detections: vec![Detection { class: 0, score: 0.9, bbox: BoundingBox::new(10.0, 20.0, 60.0, 44.0) }],
            mask: ClassMask { width: 2, height: 1, classes: vec![0, 3] },
            classes: Some(Arc::new(ModelClasses::new(&Architecture::default_student(), "road"))),
            ..Annotations::default()
        };
        let picture = painted("rgb8", 3, &found);
        assert_eq!(at(&picture, 10, 30), COLOURS[0]);
        assert_eq!(at(&picture, 10, 7), COLOURS[0], "the background of the name");
        assert_eq!(at(&picture, 20, 35), [100; 3], "left, no road");
        assert_eq!(at(&picture, 40, 35), [66, 133, 106], "right, road");
    }

    #[test]
    fn a_box_beyond_the_image_or_with_nan_does_not_panic() {
        let huge = BoundingBox::new(-1e9, -1e9, 1e9, 1e9);
        let nan = BoundingBox::new(f32::NAN, 0.0, f32::NAN, 1.0);
        let of = |bbox| Detection { class: 5, score: 0.9, bbox };
        painted("rgb8", 3, &Annotations { detections: vec![of(huge), of(nan)], ..Annotations::default() });
    }
}
