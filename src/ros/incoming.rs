//! An image on its way from the middleware to the frame thread, and the view of its pixels.

use std::fmt;
use std::io::Cursor;

use image::{ColorType, ImageDecoder, ImageFormat};
use r2r::NativeMsg;

use crate::preprocess::image::{Encoding, ImageError, ImageView};

use super::clock::Instant;
use super::messages::{bytes, NativeHeader};

/// An image message as the middleware filled it: no copy of the pixels is made.
pub enum ImageMessage {
    Raw(NativeMsg<r2r::sensor_msgs::msg::Image>),
    Compressed(NativeMsg<r2r::sensor_msgs::msg::CompressedImage>),
}

// SAFETY: a message owns its memory, which C allocated and any thread may read and free. Only a message on loan from
// the middleware belongs to a subscription, and neither type can be lent, since its size is not fixed; `is_loaned`
// makes sure of it.
unsafe impl Send for ImageMessage {}

impl ImageMessage {
    pub fn header(&self) -> &NativeHeader {
        match self {
            Self::Raw(m) => &m.header,
            Self::Compressed(m) => &m.header,
        }
    }

    /// Whether the image can be used, as far as its header tells. Of a compressed one: whether it is of a known format,
    /// whole, and of a permitted size; only unpacking finds damage in its midst.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self) -> Result<(), UnpackError> {
        match self {
            Self::Raw(m) => raw_view(m).map(drop),
            Self::Compressed(m) => format_of(data_of(m)).map(drop),
        }
    }

    /// Whether the message is on loan from the middleware, and so must not leave the thread that took it.
    pub fn is_loaned(&self) -> bool {
        match self {
            Self::Raw(m) => m.is_loaned,
            Self::Compressed(m) => m.is_loaned,
        }
    }
}

/// A frame between arrival and work on it.
pub struct Frame {
    pub message: ImageMessage,
    /// When the node took it out of the middleware.
    pub arrival: Instant,
    /// Number of the camera that took it.
    pub camera: usize,
    /// Number among those of its camera that arrived, from 1.
    pub sequence: u64,
}

/// Pixels of a compressed image at most, such as 4096x4096: a few kilobytes of PNG can unpack to any size.
pub const MAX_PIXELS: u64 = 1 << 24;

/// Compressed images in a row after which room that all of them left empty is given back.
const PATIENCE: u32 = 100;

/// Why an image is refused before any work on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UnpackError {
    #[error("the encoding '{0}' is not supported; use rgb8, bgr8, rgba8, bgra8, mono8, uyvy or yuyv")]
    Encoding(ShortText<32>),
    #[error("the data is neither JPEG nor PNG")]
    Format,
    #[error("the JPEG or PNG is damaged")]
    Damaged,
    #[error("unpacked, the image would have more than {MAX_PIXELS} pixels")]
    TooLarge,
    #[error("pixels of {0:?} are not supported; use 8-bit grey, RGB or RGBA")]
    Pixels(ColorType),
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl UnpackError {
    /// A short name for counters, such as `damaged`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "encoding",
            Self::Format => "compressed_format",
            Self::Damaged => "damaged",
            Self::TooLarge => "too_large",
            Self::Pixels(_) => "compressed_pixels",
            Self::Image(error) => error.reason(),
        }
    }
}

/// The beginning of a text, `N` bytes at most, kept without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortText<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> ShortText<N> {
    /// Of a text that came from outside, and may be none.
    pub fn new(text: &[u8]) -> Self {
        let mut short = Self { bytes: [0; N], length: 0 };
        short.append(text);
        short
    }

    /// Of what can be shown.
    pub fn of(shown: &impl fmt::Display) -> Self {
        let mut short = Self::new(&[]);
        // It fails when there is no more room, and what fitted in is kept.
        let _ = fmt::Write::write_fmt(&mut short, format_args!("{shown}"));
        short
    }

    /// As much of it as there is room for; whether that was all.
    fn append(&mut self, text: &[u8]) -> bool {
        let begin = usize::from(self.length);
        let length = text.len().min(N.min(usize::from(u8::MAX)) - begin);
        self.bytes[begin..begin + length].copy_from_slice(&text[..length]);
        self.length += length as u8;
        length == text.len()
    }
}

impl<const N: usize> fmt::Write for ShortText<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.append(text.as_bytes()).then_some(()).ok_or(fmt::Error)
    }
}

impl<const N: usize> fmt::Display for ShortText<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bytes[..usize::from(self.length)].escape_ascii())
    }
}

/// The pixels of a raw image where they lie.
fn raw_view(m: &NativeMsg<r2r::sensor_msgs::msg::Image>) -> Result<ImageView<'_>, UnpackError> {
    let name = bytes(&m.encoding);
    let encoding = std::str::from_utf8(name).ok().and_then(Encoding::from_ros);
    let encoding = encoding.ok_or_else(|| UnpackError::Encoding(ShortText::new(name)))?;
    let data = match m.data.data.is_null() {
        true => &[][..],
        // SAFETY: the middleware put `size` bytes there, which live as long as the message.
        false => unsafe { std::slice::from_raw_parts(m.data.data, m.data.size) },
    };
    Ok(ImageView::with_encoding(encoding, m.width, m.height, m.step, data)?)
}

/// The bytes of a compressed image.
fn data_of(m: &NativeMsg<r2r::sensor_msgs::msg::CompressedImage>) -> &[u8] {
    match m.data.data.is_null() {
        true => &[],
        // SAFETY: the middleware put `size` bytes there, which live as long as the message.
        false => unsafe { std::slice::from_raw_parts(m.data.data, m.data.size) },
    }
}

/// Turns messages into views, with a buffer for the pixels of compressed ones.
#[derive(Default)]
pub struct Unpacker {
    pixels: Vec<u8>,
    /// Images in a row that took less than a quarter of the buffer, and the most bytes that one of them took.
    small: (u32, usize),
}

impl Unpacker {
    /// The pixels of `message`: where they lie, or decompressed. (Decompression allocates; raw images do not.)
    ///
    /// # Errors
    /// When the image is unusable; why is in the error.
    pub fn view<'a>(&'a mut self, message: &'a ImageMessage) -> Result<ImageView<'a>, UnpackError> {
        match message {
            ImageMessage::Raw(m) => raw_view(m),
            ImageMessage::Compressed(m) => self.decompress(data_of(m)),
        }
    }

    fn decompress(&mut self, data: &[u8]) -> Result<ImageView<'_>, UnpackError> {
        use image::codecs::{jpeg::JpegDecoder, png::PngDecoder};
        match format_of(data)? {
            Format::Jpeg => self.decode(JpegDecoder::new(Cursor::new(data)).map_err(|_| UnpackError::Damaged)?),
            Format::Png => self.decode(PngDecoder::new(Cursor::new(data)).map_err(|_| UnpackError::Damaged)?),
        }
    }

    fn decode(&mut self, decoder: impl ImageDecoder) -> Result<ImageView<'_>, UnpackError> {
        let (width, height) = decoder.dimensions();
        // Before memory is set aside.
        if u64::from(width) * u64::from(height) > MAX_PIXELS {
            return Err(UnpackError::TooLarge);
        }
        let encoding = match decoder.color_type() {
            ColorType::L8 => Encoding::Mono8,
            ColorType::Rgb8 => Encoding::Rgb8,
            ColorType::Rgba8 => Encoding::Rgba8,
            other => return Err(UnpackError::Pixels(other)),
        };
        let row = encoding.row_bytes(width as usize);
        self.make_room(row * height as usize);
        decoder.read_image(&mut self.pixels).map_err(|_| UnpackError::Damaged)?;
        Ok(ImageView::with_encoding(encoding, width, height, row as u32, &self.pixels)?)
    }

    /// Room for `bytes` of pixels, and not for long much more than that.
    fn make_room(&mut self, bytes: usize) {
        self.pixels.resize(bytes, 0);
        let (in_a_row, most) = self.small;
        self.small = if bytes < self.pixels.capacity() / 4 { (in_a_row + 1, most.max(bytes)) } else { (0, 0) };
        if self.small.0 == PATIENCE {
            self.pixels.shrink_to(self.small.1);
            self.small = (0, 0);
        }
    }
}

enum Format {
    Jpeg,
    Png,
}

/// What the data is, of a whole image of a permitted size as far as its beginning and its end tell. The format is told by
/// the data, since drivers write many things into the message's `format`.
fn format_of(data: &[u8]) -> Result<Format, UnpackError> {
    match image::guess_format(data) {
        // Decoders go on as if what is missing were grey, and a grey half of a picture has no road users in it.
        Ok(ImageFormat::Jpeg) if !is_whole_jpeg(data) => Err(UnpackError::Damaged),
        Ok(ImageFormat::Jpeg) => Ok(Format::Jpeg),
        Ok(ImageFormat::Png) => {
            let side =
                |at: usize| data.get(at..at + 4).and_then(|b| Some(u64::from(u32::from_be_bytes(b.try_into().ok()?))));
            // The header comes first and the chunk IEND last (ISO/IEC 15948, 5.6).
            let (Some(width), Some(height), true) = (side(16), side(20), is_whole_png(data)) else {
                return Err(UnpackError::Damaged);
            };
            if width.saturating_mul(height) > MAX_PIXELS {
                return Err(UnpackError::TooLarge);
            }
            Ok(Format::Png)
        }
        _ => Err(UnpackError::Format),
    }
}

/// Whether a PNG has its last chunk; a little may be appended to it.
fn is_whole_png(data: &[u8]) -> bool {
    data[data.len().saturating_sub(4096)..].windows(8).any(|bytes| bytes == b"IEND\xAE\x42\x60\x82")
}

/// Whether the last scan of a JPEG comes to its end: after its start (marker SOS) there is an end of image (EOI; ITU-T T.81,
/// B.1.1.3). Compressed data has neither marker in it, and what cameras append has no scan.
fn is_whole_jpeg(data: &[u8]) -> bool {
    const END: [u8; 2] = [0xFF, 0xD9];
    const SCAN: [u8; 2] = [0xFF, 0xDA];
    data.windows(2).rev().find(|pair| *pair == END || *pair == SCAN).is_some_and(|pair| pair == END)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageBuffer};

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn red(width: u32, height: u32) -> DynamicImage {
        DynamicImage::ImageRgb8(ImageBuffer::from_pixel(width, height, image::Rgb([200, 10, 10])))
    }

    #[test]
    fn png_comes_back_pixel_for_pixel() {
        let mut unpacker = Unpacker::default();
        let data = encoded(red(5, 3), ImageFormat::Png);
        let view = unpacker.decompress(&data).unwrap();
        assert_eq!((view.width(), view.height(), view.encoding()), (5, 3, Encoding::Rgb8));
        assert_eq!(unpacker.pixels, [200, 10, 10].repeat(15));
    }

    #[test]
    fn grey_jpeg_is_mono8() {
        let grey = DynamicImage::ImageLuma8(ImageBuffer::from_pixel(16, 8, image::Luma([128])));
        let mut unpacker = Unpacker::default();
        assert_eq!(unpacker.decompress(&encoded(grey, ImageFormat::Jpeg)).unwrap().encoding(), Encoding::Mono8);
    }

    #[test]
    fn a_cut_off_png_is_damaged_and_the_next_image_is_read() {
        let mut unpacker = Unpacker::default();
        let data = encoded(red(64, 64), ImageFormat::Png);
        assert_eq!(unpacker.decompress(&data[..data.len() / 2]).unwrap_err(), UnpackError::Damaged);
        assert!(unpacker.decompress(&data).is_ok());
    }

    #[test]
    fn a_cut_off_jpeg_is_damaged_wherever_it_is_cut_and_padding_is_no_damage() {
        let mut unpacker = Unpacker::default();
        let mut data = encoded(red(64, 64), ImageFormat::Jpeg);
        for length in 0..data.len() {
            assert!(unpacker.decompress(&data[..length]).is_err(), "{length} of {} bytes", data.len());
        }
        data.extend([0; 100]);
        assert!(unpacker.decompress(&data).is_ok());
    }

    fn compressed(data: &[u8]) -> ImageMessage {
        let mut message = NativeMsg::<r2r::sensor_msgs::msg::CompressedImage>::new();
        message.data.update(data);
        ImageMessage::Compressed(message)
    }

    #[test]
    fn a_compressed_image_that_is_cut_off_or_none_is_refused_on_arrival_before_it_takes_a_good_ones_place() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let data = encoded(red(64, 64), format);
            assert_eq!(compressed(&data).check(), Ok(()));
            for length in [9, data.len() / 2, data.len() - 1] {
                assert_eq!(compressed(&data[..length]).check(), Err(UnpackError::Damaged), "{length}, {format:?}");
            }
        }
        assert_eq!(compressed(b"jpeg, honestly").check(), Err(UnpackError::Format));
        assert_eq!(compressed(&claiming(4_097, 4_096)).check(), Err(UnpackError::TooLarge));
    }

    #[test]
    fn what_one_large_image_took_is_given_back_after_many_small_ones() {
        let mut unpacker = Unpacker::default();
        let (large, small) = (encoded(red(512, 512), ImageFormat::Png), encoded(red(16, 16), ImageFormat::Png));
        unpacker.decompress(&large).unwrap();
        for _ in 1..PATIENCE {
            unpacker.decompress(&small).unwrap();
        }
        assert!(unpacker.pixels.capacity() >= 512 * 512 * 3, "large ones may come in between");
        unpacker.decompress(&small).unwrap();
        assert!(unpacker.pixels.capacity() < 512 * 512);
    }

    #[test]
    fn a_text_that_is_too_long_is_cut_and_needs_no_allocation() {
        assert_eq!(ShortText::<8>::of(&format_args!("{}, {}", 1234, 5678)).to_string(), "1234, 56");
        assert_eq!(ShortText::<8>::of(&"short").to_string(), "short");
    }

    #[test]
    fn text_is_no_image() {
        assert_eq!(Unpacker::default().decompress(b"jpeg, honestly").unwrap_err(), UnpackError::Format);
    }

    #[test]
    fn a_claimed_size_beyond_the_limit_is_refused_before_memory_is_set_aside() {
        let mut unpacker = Unpacker::default();
        for (width, height) in [(100_000, 100_000), (8192, 8192), (u32::MAX, u32::MAX)] {
            let refused = unpacker.decompress(&claiming(width, height)).unwrap_err();
            assert_eq!((refused.reason(), unpacker.pixels.capacity()), ("too_large", 0));
        }
    }

    /// A small PNG whose header claims another size.
    fn claiming(width: u32, height: u32) -> Vec<u8> {
        let mut data = encoded(red(4, 4), ImageFormat::Png);
        // IHDR holds width and height from offset 16; its checksum covers bytes 12 to 28.
        data[16..20].copy_from_slice(&width.to_be_bytes());
        data[20..24].copy_from_slice(&height.to_be_bytes());
        let checksum = crc32(&data[12..29]);
        data[29..33].copy_from_slice(&checksum.to_be_bytes());
        data
    }

    #[test]
    fn an_unknown_encoding_is_called_by_its_name_however_odd() {
        let refusal = UnpackError::Encoding(ShortText::new(b"bayer_rggb8"));
        assert!(refusal.to_string().starts_with("the encoding 'bayer_rggb8' is not supported"));
        let odd: Vec<u8> = (0..=255).collect();
        assert!(ShortText::<32>::new(&odd).to_string().starts_with(r"\x00\x01"));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |c, _| if c & 1 == 1 { 0xEDB8_8320 ^ (c >> 1) } else { c >> 1 })
        })
    }
}
