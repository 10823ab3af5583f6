//! What the letterbox kernel is told of an image's encoding.

use peregrine_core::encoding::{Encoding, YuvRange};
use peregrine_engine::cuda::arguments::LetterboxImage;
use peregrine_vision::preprocess::pixel::Yuv;
use peregrine_vision::preprocess::rows::Scale16;

use super::working_memory::ImageKind;

const INTERLEAVED: i32 = 0;
const PAIRS: i32 = 1;
const PLANES: i32 = 2;
const MOSAIC: i32 = 3;

/// The fields that depend on the image alone; its rows lie without padding.
pub(super) fn image_form(ImageKind { encoding, size }: ImageKind) -> LetterboxImage {
    let planes = encoding.planes(size);
    let mut form = LetterboxImage {
        row_bytes: planes[0].row_bytes as i32,
        chroma_bytes: planes[1].row_bytes as i32,
        source_width: size.0 as i32,
        source_height: size.1 as i32,
        numbers: 1,
        ..Default::default()
    };
    if let Some(scale) = encoding.channel16().map(Scale16::new) {
        form.wide = 1;
        form.big_endian = i32::from(scale.big_endian);
        form.white = i32::from(scale.white);
        form.shift = scale.shift as i32;
        form.white_factor = i32::from(scale.factor);
    }
    let second = (planes[0].row_bytes * planes[0].rows) as i32;
    let third = second + (planes[1].row_bytes * planes[1].rows) as i32;
    match encoding {
        Encoding::Rgb8 | Encoding::Rgb16(_) => form.interleaved(3, [0, 1, 2]),
        Encoding::Bgr8 | Encoding::Bgr16(_) => form.interleaved(3, [2, 1, 0]),
        Encoding::Rgba8 | Encoding::Rgba16(_) => form.interleaved(4, [0, 1, 2]),
        Encoding::Bgra8 | Encoding::Bgra16(_) => form.interleaved(4, [2, 1, 0]),
        Encoding::Mono8 | Encoding::Mono16(_) => form.interleaved(1, [0, 0, 0]),
        Encoding::Uyvy(range) => form.yuv(PAIRS, range, [1, 0, 2]),
        Encoding::Yuyv(range) => form.yuv(PAIRS, range, [0, 1, 3]),
        Encoding::Nv12(range) => {
            LetterboxImage { halved: 1, by_turns: 1, ..form.yuv(PLANES, range, [0, second, second + 1]) }
        }
        Encoding::Nv21(range) => {
            LetterboxImage { halved: 1, by_turns: 1, ..form.yuv(PLANES, range, [0, second + 1, second]) }
        }
        Encoding::Nv24(range) => LetterboxImage { by_turns: 1, ..form.yuv(PLANES, range, [0, second, second + 1]) },
        Encoding::I420(range) => LetterboxImage { halved: 1, ..form.yuv(PLANES, range, [0, second, third]) },
        Encoding::Bayer8(mosaic) | Encoding::Bayer16(mosaic, _) => {
            let (row, column) = mosaic.red_at();
            LetterboxImage { form: MOSAIC, at: [row as i32, column as i32, 0], ..form }
        }
    }
}

trait Form {
    /// Numbers of a pixel, and where R, G and B are among them.
    fn interleaved(self, numbers: i32, at: [i32; 3]) -> Self;
    /// Where Y, U and V are.
    fn yuv(self, form: i32, range: YuvRange, at: [i32; 3]) -> Self;
}

impl Form for LetterboxImage {
    fn interleaved(self, numbers: i32, at: [i32; 3]) -> Self {
        Self { form: INTERLEAVED, numbers, at, ..self }
    }

    fn yuv(self, form: i32, range: YuvRange, at: [i32; 3]) -> Self {
        let Yuv { black, luma, chroma } = Yuv::new(range);
        Self { form, at, black, luma, chroma, ..self }
    }
}
