//! A picture of a video in an encoding that the network's input is made from.

use peregrine_core::encoding::YuvRange;
use peregrine_core::{Encoding, ImageError, ImageView};
use peregrine_video::Picture;

/// A picture as yuyv, of limited range: each row of chroma stands for two of luma.
pub struct Yuyv {
    width: u32,
    height: u32,
    data: Vec<u8>,
}

impl Yuyv {
    pub fn of(picture: &Picture) -> Self {
        let (width, height) = (picture.width(), picture.height());
        let (luma, chroma) = picture.data().split_at(width as usize * height as usize);
        let (u, v) = chroma.split_at(chroma.len() / 2);
        let (to_luma, to_chroma) = (limited(picture, |value| 16.0 + value * 219.0 / 255.0), limited(picture, centred));
        let half = width as usize / 2;
        let mut data = Vec::with_capacity(2 * luma.len());
        for (y, row) in luma.chunks_exact(width as usize).enumerate() {
            let of = y / 2 * half..(y / 2 + 1) * half;
            for ((pair, &u), &v) in row.chunks_exact(2).zip(&u[of.clone()]).zip(&v[of]) {
                let [first, second] = [pair[0], pair[1]].map(|value| to_luma[usize::from(value)]);
                data.extend([first, to_chroma[usize::from(u)], second, to_chroma[usize::from(v)]]);
            }
        }
        Self { width, height, data }
    }

    /// Its pixels.
    pub fn view(&self) -> Result<ImageView<'_>, ImageError> {
        let encoding = Encoding::Yuyv(YuvRange::Limited);
        ImageView::with_encoding(encoding, self.width, self.height, 2 * self.width, &self.data)
    }
}

/// Chroma of full range in the limited one: ITU-R BT.601.
fn centred(value: f32) -> f32 {
    128.0 + (value - 128.0) * 224.0 / 255.0
}

/// What each value of a picture is in limited range, `by` that of a full one.
fn limited(picture: &Picture, by: impl Fn(f32) -> f32) -> [u8; 256] {
    let full = picture.is_full_range();
    std::array::from_fn(|value| if full { by(value as f32).round() as u8 } else { value as u8 })
}
