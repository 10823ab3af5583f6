//! An image of any encoding as rgb8, at its own size.

use peregrine_core::image::{Encoding, ImageView};

/// Replaces `out` by the pixels of `image` as rgb8, row by row without padding: 3 · width · height
/// bytes. Of YUV, ITU-R BT.601 in limited range.
pub fn to_rgb8(image: &ImageView, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(3 * image.width() * image.height());
    for y in 0..image.height() {
        let row = image.row(y);
        match image.encoding() {
            Encoding::Rgb8 => out.extend_from_slice(row),
            Encoding::Bgr8 => out.extend(row.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0]])),
            Encoding::Rgba8 => out.extend(row.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]])),
            Encoding::Bgra8 => out.extend(row.chunks_exact(4).flat_map(|p| [p[2], p[1], p[0]])),
            Encoding::Mono8 => out.extend(row.iter().flat_map(|&grey| [grey; 3])),
            Encoding::Uyvy => pairs(row, image.width(), |[u, y0, v, y1]| ([y0, y1], u, v), out),
            Encoding::Yuyv => pairs(row, image.width(), |[y0, u, y1, v]| ([y0, y1], u, v), out),
        }
    }
}

/// Appends the first `width` pixels of a row of pixel pairs, whose brightnesses and chroma `parts`
/// tells.
fn pairs(row: &[u8], width: usize, parts: impl Fn([u8; 4]) -> ([u8; 2], u8, u8), out: &mut Vec<u8>) {
    let pixels = row.chunks_exact(4).flat_map(|pair| {
        let (brightness, u, v) = parts([pair[0], pair[1], pair[2], pair[3]]);
        brightness.map(|y| from_yuv(y, u, v))
    });
    out.extend(pixels.take(width).flatten());
}

/// ITU-R BT.601, limited range.
fn from_yuv(y: u8, u: u8, v: u8) -> [u8; 3] {
    let (y, u, v) = ((f32::from(y) - 16.0) * (255.0 / 219.0), f32::from(u) - 128.0, f32::from(v) - 128.0);
    let rgb = [y + 1.596_027 * v, y - 0.812_968 * v - 0.391_762 * u, y + 2.017_232 * u];
    rgb.map(|channel| channel.round().clamp(0.0, 255.0) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Letterbox, Normalisation};

    #[test]
    fn every_encoding_becomes_the_colours_that_the_network_sees() {
        let (width, height) = (33, 32);
        for encoding in Encoding::ALL {
            let step = encoding.row_bytes(width) + 5;
            let data: Vec<u8> = (0..step * height).map(|i| (i * 7919 % 251) as u8).collect();
            let image = ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &data).unwrap();
            let mut found = Vec::new();
            to_rgb8(&image, &mut found);
            let mut seen = vec![0.0; 3 * width * height];
            let as_it_is = Normalisation { mean: [0.0; 3], std: [1.0; 3] };
            Letterbox::new((width, height), (width, height)).apply(&image, &as_it_is, &mut seen);
            assert_eq!(found.len(), seen.len());
            for (i, &byte) in found.iter().enumerate() {
                let value = seen[i % 3 * width * height + i / 3];
                assert!((f32::from(byte) - value).abs() <= 0.51, "{encoding:?}: {byte} {value}");
            }
        }
    }
}
