//! The `format` of a `sensor_msgs/CompressedImage`: what the decompressed values stand for.
//!
//! `image_transport` writes `SOURCE; jpeg compressed TARGET`: the encoding of the raw image, the
//! compression, and the encoding that was compressed, which is empty where nothing was converted.
//! Drivers write `jpeg`, `png` or nothing.

/// Whether the values are a picture of 8-bit colours or grey once they are decompressed. Those of a
/// Bayer pattern, of 16-bit grey and of depth look like a grey picture, and are none: they are
/// refused, as the raw encodings are.
pub fn is_picture(format: &[u8]) -> bool {
    let contains = |text: &[u8], word: &[u8]| text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word));
    if contains(format, b"compressedDepth") {
        return false;
    }
    let mut parts = format.split(|&byte| byte == b';');
    let (source, compression) = (parts.next().unwrap_or_default(), parts.next());
    // Without a semicolon it names the compression alone, or the encoding.
    let target = compression.and_then(|text| text.split(|&b| b == b' ').rfind(|word| !word.is_empty()));
    let is_target =
        |word: &&[u8]| ![&b"compressed"[..], b"jpeg", b"jpg", b"png"].iter().any(|w| word.eq_ignore_ascii_case(w));
    let values = target.filter(is_target).unwrap_or(source);
    ![&b"bayer"[..], b"mono16", b"16UC", b"16SC", b"32FC", b"32SC", b"64FC"].iter().any(|word| contains(values, word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_told_from_values_that_only_look_like_one() {
        for format in [
            "",
            "jpeg",
            "JPEG",
            "png",
            "jpg",
            "rgb8; jpeg compressed bgr8",
            "bgr8; jpeg compressed ",
            "mono8; png compressed",
            "bayer_rggb8; jpeg compressed bgr8",
            "rgb8;jpeg compressed rgb8",
            "yuv422; jpeg compressed bgr8",
            "bgr8",
            "rgb16; png compressed rgb16",
            "mono16; jpeg compressed mono8",
            ";",
            "; jpeg",
        ] {
            assert!(is_picture(format.as_bytes()), "{format}");
        }
        for format in [
            "bayer_rggb8; jpeg compressed ",
            "bayer_rggb8; jpeg compressed",
            "BAYER_GBRG8; png compressed bayer_gbrg8",
            "bayer_grbg16;png compressed",
            "bayer_bggr8",
            "16UC1; png compressed ",
            "mono16; png compressed mono16",
            "16UC1",
            "16UC1; compressedDepth",
            "32FC1; compressedDepth png",
            "32FC1; png compressed",
            "16SC1; png",
            "bayer_rggb8; jpeg compressed bayer_rggb8",
        ] {
            assert!(!is_picture(format.as_bytes()), "{format}");
        }
        assert!(is_picture(&[0xFF, 0xFE, b';', 0xFF]), "any bytes");
    }
}
