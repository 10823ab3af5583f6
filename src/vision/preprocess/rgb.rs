//! An image of any encoding as rgb8, at its own size.

use peregrine_core::{Encoding, ImageView};

use super::resample::colours;

/// Replaces `out` by the pixels of `image` as rgb8, row by row without padding: 3 · width · height
/// bytes. Allocates only for more than ever before.
pub fn to_rgb8(image: &ImageView, out: &mut Vec<u8>) {
    out.clear();
    out.reserve(3 * image.width() * image.height());
    match image.encoding() {
        Encoding::Rgb8 => image.rows().for_each(|row| out.extend_from_slice(row)),
        _ => colours(image, |pixel| out.extend_from_slice(&pixel)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::{Letterbox, Normalisation};

    #[test]
    fn every_encoding_becomes_the_colours_that_the_network_sees() {
        let (width, height) = (34, 32);
        for encoding in Encoding::ALL {
            let step = encoding.row_bytes(width) + 6;
            let data: Vec<u8> = (0..3 * step * height).map(|i| (i * 7919 % 251) as u8).collect();
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
