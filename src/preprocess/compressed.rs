//! JPEG and PNG bytes, as `sensor_msgs/CompressedImage` carries them, to an image in a reused buffer.
//!
//! The decoders themselves allocate for each image (some tens of kilobytes for a baseline JPEG); only raw images are
//! free of allocation end to end.

use std::io::Cursor;

use image::codecs::png::PngDecoder;
use image::{ColorType, DynamicImage, ImageDecoder, Limits};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::image::{Encoding, ImageError, ImageView, MAX_SIDE};

/// Most pixels of a compressed image (64 Mi): a few bytes may claim any size, so it is checked before decoding.
pub const MAX_PIXELS: usize = 1 << 26;

/// Why a compressed image is refused.
#[derive(Debug, thiserror::Error)]
pub enum CompressedError {
    #[error("the data is neither JPEG nor PNG")]
    Format,
    #[error("the image is {width}x{height}: at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are decoded")]
    TooLarge { width: usize, height: usize },
    #[error("the {format} image ends early: its last bytes are missing")]
    Truncated { format: &'static str },
    #[error("the {format} image is damaged: {why}")]
    Damaged { format: &'static str, why: String },
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl CompressedError {
    /// A short name for counters, such as `truncated`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format => "format",
            Self::TooLarge { .. } => "too_large",
            Self::Truncated { .. } => "truncated",
            Self::Damaged { .. } => "damaged",
            Self::Image(error) => error.reason(),
        }
    }
}

/// Decodes image after image into one buffer, which grows to the largest seen.
#[derive(Debug, Default)]
pub struct Decompressor {
    pixels: Vec<u8>,
}

impl Decompressor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a JPEG or PNG image, known by its first bytes. The view is of rgb8, rgba8 or mono8, whichever is nearest
    /// to what the file holds; 16-bit and palette images become rgb8.
    ///
    /// # Errors
    /// When the data is of another format, too large, ends early or is damaged. The decompressor stays usable.
    pub fn decode(&mut self, data: &[u8]) -> Result<ImageView<'_>, CompressedError> {
        let (encoding, width, height) = if data.starts_with(&[0xff, 0xd8, 0xff]) {
            self.decode_jpeg(data)?
        } else if data.starts_with(b"\x89PNG\r\n\x1a\n") {
            self.decode_png(data)?
        } else {
            return Err(CompressedError::Format);
        };
        let step = encoding.row_bytes(width);
        Ok(ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &self.pixels)?)
    }

    fn decode_jpeg(&mut self, data: &[u8]) -> Result<(Encoding, usize, usize), CompressedError> {
        let damaged = |why: String| CompressedError::Damaged { format: "JPEG", why };
        let options = DecoderOptions::default()
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        decoder.decode_headers().map_err(|e| damaged(e.to_string()))?;
        let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it gives no size".into()))?;
        check_size(width, height)?;
        // The decoder fills the missing part of a cut file with grey, which must not reach the network.
        if !data.windows(2).rev().any(|marker| marker == [0xff, 0xd9]) {
            return Err(CompressedError::Truncated { format: "JPEG" });
        }
        if decoder.input_colorspace() == Some(ColorSpace::Luma) {
            decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
        }
        let encoding = match decoder.output_colorspace() {
            Some(ColorSpace::Luma) => Encoding::Mono8,
            _ => Encoding::Rgb8,
        };
        self.pixels.resize(encoding.row_bytes(width) * height, 0);
        decoder.decode_into(&mut self.pixels).map_err(|e| damaged(e.to_string()))?;
        Ok((encoding, width, height))
    }

    fn decode_png(&mut self, data: &[u8]) -> Result<(Encoding, usize, usize), CompressedError> {
        let fault = |e: image::ImageError| match e {
            image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                CompressedError::Truncated { format: "PNG" }
            }
            e => CompressedError::Damaged { format: "PNG", why: e.to_string() },
        };
        if let Some((width, height)) = png_size(data) {
            check_size(width, height)?;
        }
        let mut limits = Limits::no_limits();
        // Sixteen bits of four channels, and what inflating takes.
        limits.max_alloc = Some(8 * MAX_PIXELS as u64 + (1 << 20));
        let decoder = PngDecoder::with_limits(Cursor::new(data), limits).map_err(fault)?;
        let (width, height) = decoder.dimensions();
        let (width, height) = (width as usize, height as usize);
        check_size(width, height)?;
        let encoding = match decoder.color_type() {
            ColorType::L8 => Encoding::Mono8,
            ColorType::Rgb8 => Encoding::Rgb8,
            ColorType::Rgba8 => Encoding::Rgba8,
            _ => {
                self.pixels = DynamicImage::from_decoder(decoder).map_err(fault)?.into_rgb8().into_raw();
                return Ok((Encoding::Rgb8, width, height));
            }
        };
        self.pixels.resize(encoding.row_bytes(width) * height, 0);
        decoder.read_image(&mut self.pixels).map_err(fault)?;
        Ok((encoding, width, height))
    }
}

/// Width and height from the header chunk, which a PNG must begin with.
fn png_size(data: &[u8]) -> Option<(usize, usize)> {
    let field = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?) as usize);
    Some((field(16)?, field(20)?))
}

fn check_size(width: usize, height: usize) -> Result<(), CompressedError> {
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(CompressedError::TooLarge { width, height });
    }
    Ok(())
}
