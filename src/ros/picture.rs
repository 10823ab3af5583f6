//! Images of messages as JPEG, for recordings and for the web page.

use jpeg_encoder::{ColorType, Encoder};
use peregrine_core::Encoding;
use peregrine_vision::preprocess::rgb::to_rgb8;

use super::incoming::{ImageMessage, Unpacker};

/// Quality of the JPEGs, 1 to 100.
const QUALITY: u8 = 85;

/// An image as JPEG.
pub struct Picture<'a> {
    pub jpeg: &'a [u8],
    /// Width and height.
    pub size: [usize; 2],
    pub is_grey: bool,
}

/// Makes JPEGs, in buffers that are used again.
#[derive(Default)]
pub struct PictureEncoder {
    unpacker: Unpacker,
    pixels: Vec<u8>,
    jpeg: Vec<u8>,
}

impl PictureEncoder {
    /// The image of a message; `None` if it cannot be decoded, or is larger than a JPEG may be.
    pub fn encode(&mut self, message: &ImageMessage) -> Option<Picture<'_>> {
        let view = self.unpacker.view(message).ok()?;
        let (width, height) = (u16::try_from(view.width()).ok()?, u16::try_from(view.height()).ok()?);
        let is_grey = view.encoding() == Encoding::Mono8;
        let colours = if is_grey {
            self.pixels.clear();
            (0..view.height()).for_each(|y| self.pixels.extend_from_slice(view.row(y)));
            ColorType::Luma
        } else {
            to_rgb8(&view, &mut self.pixels);
            ColorType::Rgb
        };
        self.jpeg.clear();
        Encoder::new(&mut self.jpeg, QUALITY).encode(&self.pixels, width, height, colours).ok()?;
        Some(Picture { jpeg: &self.jpeg, size: [width.into(), height.into()], is_grey })
    }
}
