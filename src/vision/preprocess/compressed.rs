//! JPEG and PNG bytes, as `sensor_msgs/CompressedImage` carries them, to an image in a reused buffer.
//!
//! The decoders themselves allocate for each image (some tens of kilobytes for a baseline JPEG); only raw images are
//! free of allocation end to end.

use std::io::Cursor;

use peregrine_core::image::MAX_SIDE;
use peregrine_core::{Encoding, ImageError, ImageView};
use png::{ColorType, DecodingError, Limits, Transformations};
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::jpeg::{JpegFault, Structure};

/// Most pixels of a compressed image, such as 4096×4096: a few kilobytes may unpack to any size, so it is checked before
/// decoding.
pub const MAX_PIXELS: usize = 1 << 24;

/// Consecutive small images after which unused capacity is released.
const SHRINK_AFTER: u32 = 100;

/// Why a compressed image is refused.
#[derive(Debug, thiserror::Error)]
pub enum CompressedError {
    #[error("the data is neither JPEG nor PNG")]
    Format,
    #[error(
        "the PNG image is of 16-bit grey, as depth and thermal cameras send it, which is not supported; store 8 bits"
    )]
    Grey16,
    #[error("the image is {width}x{height}: at most {MAX_SIDE} pixels a side and {MAX_PIXELS} in all are decoded")]
    TooLarge { width: usize, height: usize },
    #[error("the {format} image ends early: its last bytes are missing")]
    Truncated { format: &'static str },
    #[error("the {format} image is damaged: {why}")]
    Damaged { format: &'static str, why: String },
    #[error("the JPEG image {0}")]
    Jpeg(JpegFault),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl CompressedError {
    /// A short name for counters, such as `truncated`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Format | Self::Grey16 => "format",
            Self::TooLarge { .. } => "too_large",
            Self::Truncated { .. } => "truncated",
            Self::Damaged { .. } | Self::Jpeg(_) => "damaged",
            Self::Image(error) => error.reason(),
        }
    }
}

impl From<JpegFault> for CompressedError {
    fn from(fault: JpegFault) -> Self {
        match fault {
            JpegFault::Truncated => Self::Truncated { format: "JPEG" },
            fault => Self::Jpeg(fault),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Format<'a> {
    Jpeg(Structure<'a>),
    Png,
}

/// Whether the data is of a JPEG or PNG image that is whole and of a permitted size, as far as its header, its markers and
/// its end tell; only decoding finds damage between them. Does not allocate.
///
/// # Errors
/// What is wrong.
pub fn check(data: &[u8]) -> Result<(), CompressedError> {
    format_of(data).map(drop)
}

fn format_of(data: &[u8]) -> Result<Format<'_>, CompressedError> {
    if data.starts_with(&[0xff, 0xd8, 0xff]) {
        let structure = Structure::read(data)?;
        let (width, height) = structure.size();
        check_size(width, height)?;
        return Ok(Format::Jpeg(structure));
    }
    if !data.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(CompressedError::Format);
    }
    // The header chunk comes first, and the chunk IEND last (ISO/IEC 15948, 5.6).
    let field = |at: usize| Some(u32::from_be_bytes(data.get(at..at + 4)?.try_into().ok()?) as usize);
    let (Some(width), Some(height)) = (field(16), field(20)) else {
        return Err(CompressedError::Truncated { format: "PNG" });
    };
    check_size(width, height)?;
    // Which of its values is white is not known here, and the upper 8 bits alone are mostly black. Of 16 bits a
    // channel, and without colour (11.2.2).
    if let Some([16, 0 | 4]) = data.get(24..26) {
        return Err(CompressedError::Grey16);
    }
    is_whole_png(data).then_some(Format::Png).ok_or(CompressedError::Truncated { format: "PNG" })
}

/// Whether a PNG has its last chunk; a little may be appended to it.
fn is_whole_png(data: &[u8]) -> bool {
    data[data.len().saturating_sub(4096)..].windows(8).any(|bytes| bytes == b"IEND\xAE\x42\x60\x82")
}

/// Decodes images into one reused buffer, sized for the largest recent one.
#[derive(Debug, Default)]
pub struct Decompressor {
    pixels: PixelBuffer,
    /// A JPEG that was sent without Huffman tables, with them.
    complete: Vec<u8>,
}

#[derive(Debug, Default)]
struct PixelBuffer {
    bytes: Vec<u8>,
    /// Consecutive images that took less than a quarter of the buffer, and the largest of them in bytes.
    small: (u32, usize),
}

impl Decompressor {
    pub fn new() -> Self {
        Self::default()
    }

    /// Decodes a JPEG or PNG image, known by its first bytes. The view is of rgb8, rgba8 or mono8, whichever is nearest
    /// to what the file holds: palettes become rgb8, 16-bit channels lose their lower 8 bits, and grey loses its transparency.
    ///
    /// # Errors
    /// When the data is of another format, too large, ends early or is damaged. The decompressor stays usable.
    pub fn decode(&mut self, data: &[u8]) -> Result<ImageView<'_>, CompressedError> {
        let (encoding, width, height) = match format_of(data)? {
            Format::Jpeg(structure) => self.decode_jpeg(&structure)?,
            Format::Png => self.decode_png(data)?,
        };
        let step = encoding.row_bytes(width);
        Ok(ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &self.pixels.bytes)?)
    }

    fn decode_jpeg(&mut self, structure: &Structure) -> Result<(Encoding, usize, usize), CompressedError> {
        // The decoder fills what is missing with grey, and no road user is detected in a grey half of an image.
        structure.check_data()?;
        let mut data = structure.data();
        if structure.lacks_tables() {
            structure.write_with_tables(&mut self.complete);
            data = &self.complete;
        }
        let damaged = |why: String| CompressedError::Damaged { format: "JPEG", why };
        let options = DecoderOptions::default()
            .set_max_width(usize::MAX)
            .set_max_height(usize::MAX)
            // Of several passes, it is the decoder that finds what is missing.
            .set_strict_mode(structure.is_progressive())
            .jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
        decoder.decode_headers().map_err(|e| damaged(e.to_string()))?;
        let (width, height) = decoder.dimensions().ok_or_else(|| damaged("it gives no size".into()))?;
        check_size(width, height)?;
        if decoder.input_colorspace() == Some(ColorSpace::Luma) {
            decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
        }
        let encoding = match decoder.output_colorspace() {
            Some(ColorSpace::Luma) => Encoding::Mono8,
            _ => Encoding::Rgb8,
        };
        self.pixels.resize(encoding.row_bytes(width) * height);
        decoder.decode_into(&mut self.pixels.bytes).map_err(|e| damaged(e.to_string()))?;
        Ok((encoding, width, height))
    }

    fn decode_png(&mut self, data: &[u8]) -> Result<(Encoding, usize, usize), CompressedError> {
        let fault = |e: DecodingError| match e {
            DecodingError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => {
                CompressedError::Truncated { format: "PNG" }
            }
            e => CompressedError::Damaged { format: "PNG", why: e.to_string() },
        };
        // Sixteen bits of four channels, and what inflating takes.
        let limits = Limits { bytes: 8 * MAX_PIXELS + (1 << 20) };
        let mut decoder = png::Decoder::new_with_limits(Cursor::new(data), limits);
        // Palettes become colours, and each channel has 8 bits.
        decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(fault)?;
        let (width, height) = (reader.info().width as usize, reader.info().height as usize);
        check_size(width, height)?;
        let (encoding, channels) = match reader.output_color_type().0 {
            ColorType::Grayscale => (Encoding::Mono8, 1),
            ColorType::GrayscaleAlpha => (Encoding::Mono8, 2),
            ColorType::Rgba => (Encoding::Rgba8, 4),
            ColorType::Rgb | ColorType::Indexed => (Encoding::Rgb8, 3),
        };
        self.pixels.resize(channels * width * height);
        reader.next_frame(&mut self.pixels.bytes).map_err(fault)?;
        if channels == 2 {
            let pixels = &mut self.pixels.bytes;
            (0..width * height).for_each(|i| pixels[i] = pixels[2 * i]);
            pixels.truncate(width * height);
        }
        Ok((encoding, width, height))
    }
}

impl PixelBuffer {
    /// Resizes the buffer, and shrinks it when it has been far too large for a while.
    fn resize(&mut self, bytes: usize) {
        self.bytes.resize(bytes, 0);
        let (in_a_row, most) = self.small;
        self.small = if bytes < self.bytes.capacity() / 4 { (in_a_row + 1, most.max(bytes)) } else { (0, 0) };
        if self.small.0 == SHRINK_AFTER {
            self.bytes.shrink_to(self.small.1);
            self.small = (0, 0);
        }
    }
}

fn check_size(width: usize, height: usize) -> Result<(), CompressedError> {
    if width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS {
        return Err(CompressedError::TooLarge { width, height });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png(side: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        let red = image::RgbImage::from_pixel(side, side, image::Rgb([200, 10, 10]));
        red.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn capacity_of_one_large_image_is_released_after_small_ones() {
        let mut decompressor = Decompressor::new();
        let (large, small) = (png(512), png(16));
        decompressor.decode(&large).unwrap();
        for _ in 1..SHRINK_AFTER {
            decompressor.decode(&small).unwrap();
        }
        assert!(decompressor.pixels.bytes.capacity() >= 512 * 512 * 3, "large ones may come in between");
        decompressor.decode(&small).unwrap();
        assert!(decompressor.pixels.bytes.capacity() < 512 * 512);
    }

    #[test]
    fn a_claimed_size_beyond_the_limit_is_refused_before_allocation() {
        let mut decompressor = Decompressor::new();
        for (width, height) in [(100_000u32, 100_000u32), (4_097, 4_096), (u32::MAX, u32::MAX)] {
            let mut data = png(4);
            data[16..20].copy_from_slice(&width.to_be_bytes());
            data[20..24].copy_from_slice(&height.to_be_bytes());
            let refused = decompressor.decode(&data).unwrap_err();
            assert_eq!((refused.reason(), decompressor.pixels.bytes.capacity()), ("too_large", 0));
        }
    }
}
