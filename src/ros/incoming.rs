//! An image on its way from the middleware to the frame thread, and the view of its pixels.

use std::fmt;
use std::mem::offset_of;
use std::sync::Arc;

use peregrine_core::encoding::Levels;
use peregrine_core::{Encoding, ImageError, ImageView};
use peregrine_video::{is_annex_b, Codec, Picture, VideoFault};
use peregrine_vision::preprocess::compressed;
use peregrine_vision::preprocess::compressed::MAX_PIXELS;
use peregrine_vision::preprocess::compressed_format::is_picture;
use peregrine_vision::preprocess::jpeg::JpegFault;
use peregrine_vision::preprocess::{CompressedError, Decompressor};
use r2r::{NativeMsg, WrappedTypesupport};

use super::clock::ClockSample;
use super::messages::{bytes, NativeHeader};

/// An image message as the middleware filled it: no copy of the pixels is made.
pub enum ImageMessage {
    /// With what the message does not say of its values.
    Raw(NativeMsg<r2r::sensor_msgs::msg::Image>, Levels),
    Compressed(NativeMsg<r2r::sensor_msgs::msg::CompressedImage>),
    /// A packet of a video, in Foxglove's message.
    Packet(NativeMsg<r2r::foxglove_msgs::msg::CompressedVideo>),
    /// A packet of a video, with its picture.
    Video(Arc<ImageMessage>, Picture),
}

// SAFETY: a message owns its memory, which C allocated and any thread may read and free. Only a
// message on loan from the middleware belongs to a subscription, and neither type can be lent,
// since its size is not fixed; `is_loaned` makes sure of it.
unsafe impl Send for ImageMessage {}

// SAFETY: all that is done with a shared message is to read it.
unsafe impl Sync for ImageMessage {}

impl ImageMessage {
    pub fn header(&self) -> &NativeHeader {
        match self {
            Self::Raw(m, _) => &m.header,
            Self::Compressed(m) => &m.header,
            Self::Packet(m) => header_of(m),
            Self::Video(packet, _) => packet.header(),
        }
    }

    /// The codec, if it is a packet of a video that is still to be decoded.
    pub fn codec(&self) -> Option<Codec> {
        match self {
            Self::Compressed(m) => Codec::named(bytes(&m.format)),
            Self::Packet(m) => Codec::named(bytes(&m.format)),
            Self::Raw(..) | Self::Video(..) => None,
        }
    }

    /// Whether its pixels are there only after [`Unpacker::view`] has decompressed them.
    pub fn is_compressed(&self) -> bool {
        matches!(self, Self::Compressed(_) | Self::Packet(_))
    }

    /// Checks what can be checked without decoding: of a compressed image that its format is
    /// supported, its end is there, and its size is permitted. Damage within it shows only on
    /// decoding.
    ///
    /// # Errors
    /// Why the image cannot be used.
    pub fn check(&self) -> Result<(), UnpackError> {
        match self {
            Self::Raw(m, levels) => raw_view(m, *levels).map(drop),
            Self::Video(..) => Ok(()),
            Self::Compressed(_) | Self::Packet(_) if self.codec().is_some() => {
                is_annex_b(self.data()).then_some(()).ok_or(UnpackError::Video(VideoFault::NotAnnexB))
            }
            Self::Packet(m) => Err(UnpackError::Codec(ShortText::new(bytes(&m.format)))),
            Self::Compressed(m) => {
                let format = bytes(&m.format);
                if !is_picture(format) {
                    return Err(UnpackError::Values(ShortText::new(format)));
                }
                Ok(compressed::check(self.data())?)
            }
        }
    }

    /// What is compressed; nothing where that is gone, or never was.
    fn data(&self) -> &[u8] {
        let (data, size) = match self {
            Self::Compressed(m) => (m.data.data, m.data.size),
            Self::Packet(m) => (m.data.data, m.data.size),
            Self::Raw(..) | Self::Video(..) => return &[],
        };
        if data.is_null() {
            return &[];
        }
        // SAFETY: the middleware put `size` bytes there, which live as long as the message.
        unsafe { std::slice::from_raw_parts(data, size) }
    }

    /// Whether the message is loaned by the middleware, and so must not leave the thread that took
    /// it.
    pub fn is_loaned(&self) -> bool {
        match self {
            Self::Raw(m, _) => m.is_loaned,
            Self::Compressed(m) => m.is_loaned,
            Self::Packet(m) => m.is_loaned,
            Self::Video(packet, _) => packet.is_loaned(),
        }
    }
}

/// A frame between arrival and processing.
pub struct Frame {
    /// Shared with the threads that draw or keep it; whichever is last frees it.
    pub message: Arc<ImageMessage>,
    /// When the node took it out of the middleware.
    pub arrival: ClockSample,
    /// Index of its camera.
    pub camera: usize,
    /// Number among the frames of its camera that arrived, from 1.
    pub sequence: u64,
}

/// A packet of a video.
impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.message.data()
    }
}

/// Why an image is rejected before processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UnpackError {
    #[error("the encoding '{0}' is not supported; use {supported}", supported = Encoding::SUPPORTED)]
    Encoding(ShortText<32>),
    #[error("the data is neither JPEG nor PNG, and the format names neither H.264 nor H.265")]
    Format,
    #[error(
        "the format '{0}' is of values that are no picture of 8 bits (a Bayer pattern, 16-bit grey or depth), which is \
         not supported; let the camera's driver convert before it compresses"
    )]
    Values(ShortText<64>),
    #[error("the video's format '{0}' is neither h264 nor h265; let the encoder use one of them")]
    Codec(ShortText<32>),
    #[error("the PNG is of 16-bit grey, as depth and thermal cameras send it; let the driver send mono8")]
    Grey16,
    #[error("the JPEG or PNG is damaged")]
    Damaged,
    #[error("the JPEG {0}")]
    Jpeg(JpegFault),
    #[error("decoded, the image would have more than {MAX_PIXELS} pixels")]
    TooLarge,
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Video(#[from] VideoFault),
}

impl UnpackError {
    /// The key of its counter in `/diagnostics`, such as `damaged`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Encoding(_) => "encoding",
            Self::Format | Self::Values(_) | Self::Grey16 | Self::Codec(_) => "compressed_format",
            Self::Damaged | Self::Jpeg(_) => "damaged",
            Self::TooLarge => "too_large",
            Self::Image(error) => error.reason(),
            Self::Video(fault) => fault.reason(),
        }
    }
}

impl From<CompressedError> for UnpackError {
    fn from(error: CompressedError) -> Self {
        match error {
            CompressedError::Format => Self::Format,
            CompressedError::Grey16 => Self::Grey16,
            CompressedError::TooLarge { .. } => Self::TooLarge,
            CompressedError::Truncated { .. } | CompressedError::Damaged { .. } => Self::Damaged,
            CompressedError::Jpeg(fault) => Self::Jpeg(fault),
            CompressedError::Image(error) => Self::Image(error),
        }
    }
}

/// The first `N` bytes, at most, of a text, without allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShortText<const N: usize> {
    bytes: [u8; N],
    length: u8,
}

impl<const N: usize> ShortText<N> {
    /// Of a text from outside, which need not be UTF-8.
    pub fn new(text: &[u8]) -> Self {
        let mut short = Self { bytes: [0; N], length: 0 };
        short.append(text);
        short
    }

    /// Of anything that can be displayed.
    pub fn of(shown: &impl fmt::Display) -> Self {
        let mut short = Self::new(&[]);
        // It fails when the capacity is exceeded, and keeps what fits.
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

/// A view of the pixels of a raw image, without a copy.
fn raw_view(m: &NativeMsg<r2r::sensor_msgs::msg::Image>, levels: Levels) -> Result<ImageView<'_>, UnpackError> {
    let name = bytes(&m.encoding);
    let encoding = std::str::from_utf8(name).ok().and_then(Encoding::from_ros);
    let encoding = encoding.ok_or_else(|| UnpackError::Encoding(ShortText::new(name)))?;
    let encoding = encoding.with(m.is_bigendian != 0, levels);
    let data = if m.data.data.is_null() {
        &[]
    } else {
        // SAFETY: the middleware put `size` bytes there, which live as long as the message.
        unsafe { std::slice::from_raw_parts(m.data.data, m.data.size) }
    };
    Ok(ImageView::with_encoding(encoding, m.width, m.height, m.step, data)?)
}

type NativeVideo = <r2r::foxglove_msgs::msg::CompressedVideo as WrappedTypesupport>::CStruct;

/// A video's time and frame as a header, which it begins with but in name.
fn header_of(video: &NativeVideo) -> &NativeHeader {
    const {
        assert!(offset_of!(NativeVideo, timestamp) == offset_of!(NativeHeader, stamp));
        assert!(offset_of!(NativeVideo, frame_id) == offset_of!(NativeHeader, frame_id));
        assert!(align_of::<NativeVideo>() == align_of::<NativeHeader>());
    }
    fn same_types(video: &mut NativeVideo, header: &mut NativeHeader) {
        std::mem::swap(&mut video.timestamp, &mut header.stamp);
        std::mem::swap(&mut video.frame_id, &mut header.frame_id);
    }
    let _ = same_types; // that it compiles
                        // SAFETY: both are C's structures, with the same types at the same places.
    unsafe { &*std::ptr::from_ref(video).cast() }
}

/// Turns messages into image views, with a buffer for the pixels of compressed ones.
#[derive(Default)]
pub struct Unpacker(Decompressor);

impl Unpacker {
    /// The pixels of `message`: in place, or decompressed. (Decompression allocates; raw images do
    /// not.)
    ///
    /// # Errors
    /// When the image is unusable; why is in the error.
    pub fn view<'a>(&'a mut self, message: &'a ImageMessage) -> Result<ImageView<'a>, UnpackError> {
        match message {
            ImageMessage::Raw(m, levels) => raw_view(m, *levels),
            ImageMessage::Compressed(_) | ImageMessage::Packet(_) => Ok(self.0.decode(message.data())?),
            ImageMessage::Video(_, picture) => Ok(picture.view()?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{DynamicImage, ImageBuffer, ImageFormat};

    use super::*;

    fn encoded(image: DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.write_to(&mut Cursor::new(&mut bytes), format).unwrap();
        bytes
    }

    fn red(width: u32, height: u32) -> DynamicImage {
        DynamicImage::ImageRgb8(ImageBuffer::from_pixel(width, height, image::Rgb([200, 10, 10])))
    }

    fn compressed(data: &[u8]) -> ImageMessage {
        let mut message = NativeMsg::<r2r::sensor_msgs::msg::CompressedImage>::new();
        message.data.update(data);
        ImageMessage::Compressed(message)
    }

    #[test]
    fn a_truncated_or_unknown_compressed_image_fails_the_check() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg] {
            let data = encoded(red(64, 64), format);
            assert_eq!(compressed(&data).check(), Ok(()));
            for length in [9, data.len() / 2, data.len() - 1] {
                assert_eq!(compressed(&data[..length]).check(), Err(UnpackError::Damaged), "{length}, {format:?}");
            }
        }
        assert_eq!(compressed(b"jpeg, honestly").check(), Err(UnpackError::Format));
        let mut claiming = encoded(red(4, 4), ImageFormat::Png);
        claiming[16..20].copy_from_slice(&60_000u32.to_be_bytes());
        assert_eq!(compressed(&claiming).check(), Err(UnpackError::TooLarge));
    }

    #[test]
    fn a_text_that_is_too_long_is_truncated() {
        assert_eq!(ShortText::<8>::of(&format_args!("{}, {}", 1234, 5678)).to_string(), "1234, 56");
        assert_eq!(ShortText::<8>::of(&"short").to_string(), "short");
    }

    #[test]
    fn an_unknown_encoding_is_named_with_escaped_bytes() {
        let refusal = UnpackError::Encoding(ShortText::new(b"infrared7"));
        assert!(refusal.to_string().starts_with("the encoding 'infrared7' is not supported; use rgb8, "));
        let odd: Vec<u8> = (0..=255).collect();
        assert!(ShortText::<32>::new(&odd).to_string().starts_with(r"\x00\x01"));
    }
}
