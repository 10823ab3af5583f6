//! Which codec a message's `format` names.

/// A video codec that is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264, MPEG-4 AVC.
    H264,
    /// ITU-T H.265, HEVC.
    H265,
}

impl Codec {
    /// The codec that the `format` of a `CompressedImage` or `CompressedVideo` names: `h264`,
    /// `hevc` and their other spellings, ffmpeg's names of encoders (`libx264`, `hevc_nvenc`), also
    /// before a semicolon, behind which ffmpeg_image_transport has pixel formats. `None` if it is
    /// another, or no video.
    pub fn named(format: &[u8]) -> Option<Self> {
        let name = format.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii();
        let mut plain = [0; 32];
        let plain = plain.get_mut(..name.len())?;
        plain.copy_from_slice(name);
        plain.make_ascii_lowercase();
        // What an encoder's name says behind the codec is the hardware: h264_vaapi, hevc_v4l2m2m.
        match plain.split(|&byte| byte == b'_').next().unwrap_or_default() {
            b"h264" | b"h.264" | b"x264" | b"libx264" | b"libx264rgb" | b"libopenh264" | b"avc" | b"avc1" => {
                Some(Self::H264)
            }
            b"h265" | b"h.265" | b"x265" | b"libx265" | b"hevc" | b"hvc1" | b"hev1" => Some(Self::H265),
            _ => None,
        }
    }

    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "H.264",
            Self::H265 => "H.265",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_of_a_codec_are_known() {
        for name in ["h264", "H264", "H.264", "avc", "libx264", "h264_nvenc", " h264 ", "h264;yuv420p;bgr8", "x264"] {
            assert_eq!(Codec::named(name.as_bytes()), Some(Codec::H264), "{name}");
        }
        for name in ["h265", "hevc", "HEVC", "H.265", "libx265", "hevc_vaapi", "hevc;nv12;bgr8;bgr8", "hvc1"] {
            assert_eq!(Codec::named(name.as_bytes()), Some(Codec::H265), "{name}");
        }
        let long = "h264".repeat(20);
        for name in ["", "jpeg", "png", "rgb8; jpeg compressed bgr8", "av1", "vp9", "h266", "mjpeg", "h2645", &long] {
            assert_eq!(Codec::named(name.as_bytes()), None, "{name}");
        }
    }
}
