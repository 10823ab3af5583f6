//! The place of an image in a teacher's input, and the way back.

use image::imageops::{self, FilterType};
use image::RgbImage;
use peregrine_core::BoundingBox;

use super::description::{Colours, Fit, Layout, TeacherDescription};
use super::input_size::InputSize;

/// The grey around a letterboxed image that most detectors were trained with.
const PAD: f32 = 114.0;

/// The place of an image in the input.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Source width and height in pixels.
    source: (u32, u32),
    /// Width and height of the input.
    size: (u32, u32),
    /// Width and height of the scaled image.
    content: (u32, u32),
    /// Padding to its left and above it, in input pixels.
    pad: (u32, u32),
}

impl Placement {
    /// The place of an image of `source` pixels in an input of `size`.
    pub fn new(fit: Fit, source: (u32, u32), size: InputSize) -> Self {
        let (width, height) = (size.width, size.height);
        let ratio = |input: u32, side: u32| f64::from(input) / f64::from(side.max(1));
        let scale = ratio(width, source.0).min(ratio(height, source.1));
        let fitted = |side: u32, limit: u32| ((f64::from(side) * scale).round() as u32).clamp(1, limit);
        let content = match fit {
            Fit::Stretch => (width, height),
            Fit::Letterbox => (fitted(source.0, width), fitted(source.1, height)),
        };
        let pad = ((width - content.0) / 2, (height - content.1) / 2);
        Self { source, size: (width, height), content, pad }
    }

    /// The box with these left, top, right and bottom in input pixels, in source pixels and clipped
    /// to the image.
    pub fn to_source(&self, [left, top, right, bottom]: [f32; 4]) -> BoundingBox {
        let at = |v: f32, pad: u32, content: u32, source: u32| {
            ((v - pad as f32) / content as f32).clamp(0.0, 1.0) * source as f32
        };
        let x = |v| at(v, self.pad.0, self.content.0, self.source.0);
        let y = |v| at(v, self.pad.1, self.content.1, self.source.1);
        BoundingBox::new(x(left), y(top), x(right), y(bottom))
    }

    /// The first and the number (at least 1) of the cells that the image covers, of `cells` along
    /// one axis of the whole input.
    pub fn covered(&self, cells: usize, across: bool) -> (usize, usize) {
        let ((pad, content), size) = if across {
            ((self.pad.0, self.content.0), self.size.0)
        } else {
            ((self.pad.1, self.content.1), self.size.1)
        };
        let at = |v: u32| (f64::from(v) / f64::from(size) * cells as f64).round() as usize;
        let first = at(pad).min(cells.saturating_sub(1));
        (first, at(pad + content).clamp(first + 1, cells.max(first + 1)) - first)
    }

    /// Left, top, right and bottom of the image on a grid of `width` × `height` cells over the
    /// whole input, in cells.
    pub fn on_grid(&self, width: usize, height: usize) -> [f32; 4] {
        let x = |v: u32| v as f32 / self.size.0 as f32 * width as f32;
        let y = |v: u32| v as f32 / self.size.1 as f32 * height as f32;
        let (pad, content) = (self.pad, self.content);
        [x(pad.0), y(pad.1), x(pad.0 + content.0), y(pad.1 + content.1)]
    }

    /// The input tensor in the layout and normalisation of the description.
    pub fn tensor(&self, image: &RgbImage, d: &TeacherDescription) -> Vec<f32> {
        let resized = imageops::resize(image, self.content.0, self.content.1, FilterType::Triangle);
        let (across, pixels) = (self.size.0 as usize, (self.size.0 * self.size.1) as usize);
        let value = |c: usize, v: f32| (v - d.mean[c]) / d.std[c];
        let at = |c: usize, i: usize| match d.layout {
            Layout::Nchw => c * pixels + i,
            Layout::Nhwc => 3 * i + c,
        };
        let mut tensor = vec![0.0; 3 * pixels];
        if self.content != self.size {
            for i in 0..pixels {
                (0..3).for_each(|c| tensor[at(c, i)] = value(c, PAD));
            }
        }
        for (x, y, pixel) in resized.enumerate_pixels() {
            let i = (y + self.pad.1) as usize * across + (x + self.pad.0) as usize;
            for c in 0..3 {
                let source = if d.colours == Colours::Rgb { c } else { 2 - c };
                tensor[at(c, i)] = value(c, f32::from(pixel.0[source]));
            }
        }
        tensor
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letterboxed_image_is_centred_and_its_boxes_map_back() {
        let placement = Placement::new(Fit::Letterbox, (200, 100), InputSize::square(64));
        assert_eq!((placement.content, placement.pad), ((64, 32), (0, 16)));
        assert_eq!(placement.to_source([16.0, 24.0, 32.0, 60.0]), BoundingBox::new(50.0, 25.0, 100.0, 100.0));
        assert_eq!((placement.covered(16, true), placement.covered(16, false)), ((0, 16), (4, 8)));
    }

    #[test]
    fn a_rectangular_input_is_filled_as_far_as_the_aspect_ratio_allows() {
        let size = InputSize { width: 96, height: 64 };
        let placement = Placement::new(Fit::Letterbox, (100, 100), size);
        assert_eq!((placement.content, placement.pad), ((64, 64), (16, 0)));
        assert_eq!(placement.to_source([16.0, 0.0, 48.0, 64.0]), BoundingBox::new(0.0, 0.0, 50.0, 100.0));
        assert_eq!((placement.covered(12, true), placement.covered(8, false)), ((2, 8), (0, 8)));
        assert_eq!(placement.on_grid(12, 8), [2.0, 0.0, 10.0, 8.0]);
    }

    #[test]
    fn a_stretched_image_fills_the_input() {
        let placement = Placement::new(Fit::Stretch, (200, 100), InputSize::square(64));
        assert_eq!(placement.to_source([32.0, 32.0, 64.0, 64.0]), BoundingBox::new(100.0, 50.0, 200.0, 100.0));
    }
}
