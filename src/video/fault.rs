//! Why a packet has no picture: each a sentence with its remedy, made without allocation.

use super::codec::Codec;

/// The variable that names libavcodec's file, where it is not the system's.
pub const LIBRARY: &str = "PEREGRINE_LIBAVCODEC";

/// Why a packet of a video has no picture that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VideoFault {
    /// It is no byte stream.
    #[error(
        "the video is no byte stream (Annex B), which begins with a start code; have the encoder write one (ffmpeg: \
         -bsf:v h264_mp4toannexb or hevc_mp4toannexb)"
    )]
    NotAnnexB,
    /// No picture can be decoded before the next key frame.
    #[error(
        "the video waits for a key frame, since it begins or was damaged; an encoder with a shorter interval between \
         key frames (GOP) and a reliable subscription (qos_overrides) shorten the wait"
    )]
    NoKeyFrame,
    /// The bits are no picture, or one that refers to a picture that is not there.
    #[error("the {} frame is damaged, or one before it was lost", .0.name())]
    Damaged(Codec),
    /// Nothing came out for it.
    #[error("the packet has no picture of its own; send one whole frame in each message")]
    NoPicture,
    /// The layout of its pixels, by ffmpeg's name.
    #[error("the video's pixel format {0} is not supported; let the encoder use yuv420p")]
    PixelFormat(&'static str),
    /// More than is permitted.
    #[error("decoded, the video would have more than {max_pixels} pixels a frame")]
    #[allow(missing_docs, reason = "said above")]
    TooLarge { max_pixels: usize },
    /// A packet that is longer than any frame of a permitted size.
    #[error("the packet is of {bytes} bytes, and a frame may have {} at most", super::decoder::MAX_PACKET)]
    #[allow(missing_docs, reason = "said above")]
    LongPacket { bytes: usize },
    /// Packets came faster than they were decoded.
    #[error("the video comes faster than it is decoded here; lower its rate or its size")]
    Behind,
    /// The decoder itself cannot work.
    #[error(transparent)]
    Library(#[from] LibraryFault),
}

/// Why there is no decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum LibraryFault {
    /// The program was built without what loads it.
    #[error("H.264 and H.265 are not decoded by this program; build it with --features video, as make build does")]
    NotBuilt,
    /// No library, of any version.
    #[error(
        "H.264 and H.265 are decoded by ffmpeg's libavcodec, which is not installed (Debian and Ubuntu: apt-get \
         install ffmpeg, or its libavcodec alone, such as libavcodec59); install it and start the program again"
    )]
    NotInstalled,
    /// The file that [`LIBRARY`] names.
    #[error("the file that {} names cannot be loaded as ffmpeg's libavcodec; name its path", LIBRARY)]
    Named,
    /// The major version.
    #[error("libavcodec is of version {0}, which is not known here; install that of ffmpeg 4.3 to 8")]
    Version(u32),
    /// A function that is not in it.
    #[error("the libavcodec that was found lacks {0}; install that of the distribution (apt-get install ffmpeg)")]
    Function(&'static str),
    /// It was built without the codec.
    #[error("this libavcodec was built without {}; install the whole one (Debian: libavcodec-extra)", .0.name())]
    Codec(Codec),
    /// A call that fails only for want of memory.
    #[error("libavcodec could not make a decoder; see whether the machine has memory left")]
    Memory,
}

impl VideoFault {
    /// A short name for counters, such as `no_key_frame`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAnnexB | Self::PixelFormat(_) => "video_format",
            Self::NoKeyFrame => "no_key_frame",
            Self::Damaged(_) => "damaged",
            Self::NoPicture => "no_picture",
            Self::TooLarge { .. } | Self::LongPacket { .. } => "too_large",
            Self::Behind => "decoder_behind",
            Self::Library(_) => "no_decoder",
        }
    }
}
