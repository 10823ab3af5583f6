//! Colours of every encoding against OpenCV's, which `reference/encodings_opencv.py` made once.

use std::num::NonZeroU16;

use peregrine_core::encoding::{Levels, YuvRange};
use peregrine_core::{Encoding, ImageView};
use peregrine_vision::preprocess::rgb::to_rgb8;
use peregrine_vision::preprocess::{Letterbox, Normalisation};
use serde_json::Value;

use crate::preprocess::noise;

const PIXELS: (usize, usize) = (10, 8);
const TEXTURE: (usize, usize) = (48, 12);
/// Of the texture within a network's input of 32x32.
const SCALED: (usize, usize) = (32, 8);

/// Bytes within a narrow range, so that no colour is saturated.
fn texture(len: usize) -> Vec<u8> {
    (0..len).map(|i| (90 + (i * 7 + i / 96 * 11) % 76) as u8).collect()
}

fn bytes(case: &Value, key: &str) -> Vec<u8> {
    let hex = case[key].as_str().unwrap();
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
}

/// The encoding of a case, whose values of 16 bits are white at another value where they are big-endian.
fn encoding(case: &Value) -> Encoding {
    let variant = case["variant"].as_str().unwrap();
    let levels = Levels {
        yuv: if variant == "full" { YuvRange::Full } else { YuvRange::Limited },
        white: if variant == "big" { NonZeroU16::new(40_000).unwrap() } else { NonZeroU16::MAX },
    };
    Encoding::from_ros(case["encoding"].as_str().unwrap()).unwrap().with(variant == "big", levels)
}

/// The same rows, each followed by a gap, as drivers and V4L2 leave it.
fn with_gaps(image: &ImageView, gap: usize) -> (u32, Vec<u8>) {
    let planes = image.encoding().planes(image.size());
    let mut padded = Vec::new();
    for row in image.rows() {
        padded.extend_from_slice(row);
        padded.resize(padded.len() + gap * row.len() / planes[0].row_bytes, 0xee);
    }
    ((planes[0].row_bytes + gap) as u32, padded)
}

fn agree(found: impl IntoIterator<Item = f32>, expected: &[u8], of: &str) {
    let found: Vec<f32> = found.into_iter().collect();
    assert_eq!(found.len(), expected.len(), "{of}");
    for (i, (found, &expected)) in found.iter().zip(expected).enumerate() {
        // Of the network's input, which is not rounded, the nearest level.
        assert!((found.round() - f32::from(expected)).abs() <= 1.0, "{of}, number {i}: {found}, not {expected}");
    }
}

#[test]
fn every_encoding_agrees_with_opencv_to_one_grey_level() {
    let reference: Value =
        serde_json::from_str(include_str!("../../../tests/reference/encodings_opencv.json")).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    for case in cases {
        let (encoding, of) = (encoding(case), format!("{} {}", case["encoding"], case["variant"]));
        let (pixels, scaled) = (bytes(case, "pixels"), bytes(case, "scaled"));
        let (pixel_data, texture_data) = (noise(8 * PIXELS.0 * PIXELS.1, 7), texture(8 * TEXTURE.0 * TEXTURE.1));
        let view = |(width, height): (usize, usize), data| {
            let step = encoding.row_bytes(width) as u32;
            ImageView::with_encoding(encoding, width as u32, height as u32, step, data).unwrap()
        };
        for gap in [0, 24] {
            let (step, data) = with_gaps(&view(PIXELS, &pixel_data), gap);
            let image = ImageView::with_encoding(encoding, PIXELS.0 as u32, PIXELS.1 as u32, step, &data).unwrap();
            let mut rgb = Vec::new();
            to_rgb8(&image, &mut rgb);
            agree(rgb.into_iter().map(f32::from), &pixels, &of);

            let (step, data) = with_gaps(&view(TEXTURE, &texture_data), gap);
            let image = ImageView::with_encoding(encoding, TEXTURE.0 as u32, TEXTURE.1 as u32, step, &data).unwrap();
            agree(scaled_to_input(&image), &scaled, &of);
        }
    }
    let all = |encoding: &Encoding| cases.iter().any(|case| case["encoding"] == encoding.ros_name());
    assert!(Encoding::ALL.iter().all(all), "an encoding is not compared");
}

/// The pixels of the scaled image in a network's input, in steps of 0…255, as rgb by turns.
fn scaled_to_input(image: &ImageView) -> Vec<f32> {
    const SIDE: usize = 32;
    let letterbox = Letterbox::new(image.size(), (SIDE, SIDE));
    assert_eq!(letterbox.content(), SCALED);
    let mut input = vec![0.0; 3 * SIDE * SIDE];
    letterbox.apply(image, &Normalisation { mean: [0.0; 3], std: [1.0; 3] }, &mut input);
    let (left, top) = letterbox.pad();
    let place = |i: usize| i % 3 * SIDE * SIDE + (top + i / 3 / SCALED.0) * SIDE + left + i / 3 % SCALED.0;
    (0..3 * SCALED.0 * SCALED.1).map(|i| input[place(i)]).collect()
}
