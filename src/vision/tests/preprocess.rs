//! Letterbox and decompression against slow, obvious references.

use std::io::Cursor;
use std::num::NonZeroU16;

use image::{DynamicImage, ImageFormat};
use peregrine_core::encoding::{Levels, Mosaic, YuvRange};
use peregrine_core::{BoundingBox, Encoding, ImageView};
use peregrine_vision::preprocess::{compressed, CompressedError, Decompressor, Letterbox, Normalisation};
use proptest::prelude::*;

const NORMALISATION: Normalisation = Normalisation { mean: [127.0, 100.0, 90.0], std: [128.0, 50.0, 70.0] };

/// Bytes without pattern, from a small linear congruential generator.
pub fn noise(len: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The nearest size that an encoding permits: whole blocks of shared chroma, and mosaics with all neighbours.
fn permitted(encoding: Encoding, (width, height): (usize, usize)) -> (usize, usize) {
    match encoding {
        Encoding::Nv12(_) | Encoding::Nv21(_) | Encoding::I420(_) => {
            (width.next_multiple_of(2), height.next_multiple_of(2))
        }
        Encoding::Bayer8(_) | Encoding::Bayer16(..) => (width.max(3), height.max(3)),
        _ => (width, height),
    }
}

/// Every encoding, and those with values other than the default ones.
fn variants() -> Vec<Encoding> {
    let levels = Levels { yuv: YuvRange::Full, white: NonZeroU16::new(4095).unwrap() };
    let others = Encoding::ALL.map(|encoding| encoding.with(true, levels));
    let others = others.into_iter().filter(|other| !Encoding::ALL.contains(other));
    Encoding::ALL.into_iter().chain(others).collect()
}

/// Number `i` of a row of a plane, in steps of 0…255.
fn number(image: &ImageView, plane: usize, y: usize, i: usize) -> f64 {
    let row = image.plane_row(plane, y);
    let Some(channel) = image.encoding().channel16() else { return row[i].into() };
    let bytes = [row[2 * i], row[2 * i + 1]];
    let value = if channel.big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    255.0 * f64::from(value.min(channel.white.get())) / f64::from(channel.white.get())
}

/// The colour of a pixel in its encoding's own space: RGB or YUV.
fn sample(image: &ImageView, x: usize, y: usize) -> [f64; 3] {
    let first = |places: [usize; 3]| places.map(|i| number(image, 0, y, i));
    let with_chroma = |u, v| [number(image, 0, y, x), u, v];
    let (half_x, half_y) = (x / 2, y / 2);
    match image.encoding() {
        Encoding::Rgb8 | Encoding::Rgb16(_) => first([3 * x, 3 * x + 1, 3 * x + 2]),
        Encoding::Bgr8 | Encoding::Bgr16(_) => first([3 * x + 2, 3 * x + 1, 3 * x]),
        Encoding::Rgba8 | Encoding::Rgba16(_) => first([4 * x, 4 * x + 1, 4 * x + 2]),
        Encoding::Bgra8 | Encoding::Bgra16(_) => first([4 * x + 2, 4 * x + 1, 4 * x]),
        Encoding::Mono8 | Encoding::Mono16(_) => first([x; 3]),
        Encoding::Uyvy(_) => first([2 * x + 1, x / 2 * 4, x / 2 * 4 + 2]),
        Encoding::Yuyv(_) => first([2 * x, x / 2 * 4 + 1, x / 2 * 4 + 3]),
        Encoding::Nv12(_) => {
            with_chroma(number(image, 1, half_y, 2 * half_x), number(image, 1, half_y, 2 * half_x + 1))
        }
        Encoding::Nv21(_) => {
            with_chroma(number(image, 1, half_y, 2 * half_x + 1), number(image, 1, half_y, 2 * half_x))
        }
        Encoding::Nv24(_) => with_chroma(number(image, 1, y, 2 * x), number(image, 1, y, 2 * x + 1)),
        Encoding::I420(_) => with_chroma(number(image, 1, half_y, half_x), number(image, 2, half_y, half_x)),
        Encoding::Bayer8(mosaic) | Encoding::Bayer16(mosaic, _) => demosaiced(image, mosaic, x, y),
    }
}

/// The mean of each colour's values among the pixel's nearest: itself, those beside it, or those at its corners.
fn demosaiced(image: &ImageView, mosaic: Mosaic, x: usize, y: usize) -> [f64; 3] {
    let pattern = match mosaic {
        Mosaic::Rggb => ["RG", "GB"],
        Mosaic::Bggr => ["BG", "GR"],
        Mosaic::Gbrg => ["GB", "RG"],
        Mosaic::Grbg => ["GR", "BG"],
    };
    let (x, y) = (x.clamp(1, image.width() - 2), y.clamp(1, image.height() - 2));
    let around = (0..9).map(|i| (x + i % 3 - 1, y + i / 3 - 1));
    let around: Vec<_> = around.map(|(i, j)| (i.abs_diff(x) + j.abs_diff(y), i, j)).collect();
    ['R', 'G', 'B'].map(|colour| {
        let of_colour = around.iter().filter(|(_, i, j)| pattern[j % 2].chars().nth(i % 2) == Some(colour));
        let of_colour: Vec<_> = of_colour.collect();
        let nearest = of_colour.iter().map(|near| near.0).min().unwrap();
        let values: Vec<_> =
            of_colour.iter().filter(|near| near.0 == nearest).map(|(_, i, j)| number(image, 0, *j, *i)).collect();
        values.iter().sum::<f64>() / values.len() as f64
    })
}

fn range(encoding: Encoding) -> Option<YuvRange> {
    match encoding {
        Encoding::Uyvy(range) | Encoding::Yuyv(range) | Encoding::Nv12(range) => Some(range),
        Encoding::Nv21(range) | Encoding::Nv24(range) | Encoding::I420(range) => Some(range),
        _ => None,
    }
}

fn to_rgb(encoding: Encoding, [a, b, c]: [f64; 3]) -> [f64; 3] {
    let Some(range) = range(encoding) else { return [a, b, c] };
    // ITU-R BT.601 from its luma coefficients.
    let (kr, kb) = (0.299, 0.114);
    let (black, luma, chroma) = if range == YuvRange::Full { (0.0, 255.0, 255.0) } else { (16.0, 219.0, 224.0) };
    let (y, u, v) = ((a - black).max(0.0) / luma, (b - 128.0) / chroma, (c - 128.0) / chroma);
    let (red, blue) = (y + 2.0 * (1.0 - kr) * v, y + 2.0 * (1.0 - kb) * u);
    let green = (y - kr * red - kb * blue) / (1.0 - kr - kb);
    [red, green, blue].map(|v| (v * 255.0).clamp(0.0, 255.0))
}

/// Positions and weights of the samples for one output position, as the documentation of `Letterbox` describes them.
fn samples(position: usize, source: usize, output: usize) -> Vec<(usize, f64)> {
    let step = source as f64 / output as f64;
    if step <= 2.0 {
        let at = ((position as f64 + 0.5) * step - 0.5).clamp(0.0, (source - 1) as f64);
        let low = at.floor() as usize;
        return vec![(low, 1.0 - at.fract()), ((low + 1).min(source - 1), at.fract())];
    }
    let n = ((step / 2.0).ceil() as usize).min(4);
    (0..n).map(|i| ((2 * (position * n + i) + 1) * source / (2 * n * output), 1.0 / n as f64)).collect()
}

/// The largest difference between the letterbox and the reference, in steps of 0…255; padding must be exactly zero.
fn worst_difference(image: &ImageView, input: (usize, usize)) -> f64 {
    let letterbox = Letterbox::new(image.size(), input);
    let mut output = vec![f32::NAN; 3 * input.0 * input.1];
    letterbox.apply(image, &NORMALISATION, &mut output);
    let ((left, top), (width, height)) = (letterbox.pad(), letterbox.content());
    let mut worst: f64 = 0.0;
    for y in 0..input.1 {
        for x in 0..input.0 {
            let at = |c: usize| output[(c * input.1 + y) * input.0 + x] as f64;
            if !(left..left + width).contains(&x) || !(top..top + height).contains(&y) {
                assert!((0..3).all(|c| at(c) == 0.0), "padding at {x}, {y}");
                continue;
            }
            let mut sum = [0.0; 3];
            for (sy, wy) in samples(y - top, image.height(), height) {
                for (sx, wx) in samples(x - left, image.width(), width) {
                    let colour = sample(image, sx, sy);
                    (0..3).for_each(|c| sum[c] += wx * wy * colour[c]);
                }
            }
            let expected = to_rgb(image.encoding(), sum);
            for (c, expected) in expected.into_iter().enumerate() {
                let found = at(c) * NORMALISATION.std[c] as f64 + NORMALISATION.mean[c] as f64;
                worst = worst.max((found - expected).abs());
            }
        }
    }
    worst
}

#[test]
fn every_encoding_agrees_with_the_reference() {
    // Enlarged, kept, shrunk by less and by more than two, odd sizes, and a tall, a flat and a wide image.
    let sizes = [(33, 21), (64, 32), (101, 75), (127, 63), (397, 223), (3, 131), (1, 1), (701, 5), (4001, 40)];
    for encoding in variants() {
        for (i, (width, height)) in sizes.into_iter().enumerate() {
            let (width, height) = permitted(encoding, (width, height));
            let step = (encoding.row_bytes(width) + 2 * i + 1).next_multiple_of(2);
            let data = noise(3 * step * height, 7 + i as u32);
            let image = ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &data).unwrap();
            // Rows weigh in 256ths (half of one times 255 makes 0.5); YUV to RGB magnifies by 2.02 at most.
            let tolerance = if range(encoding).is_some() { 1.2 } else { 0.54 };
            let worst = worst_difference(&image, (64, 96));
            assert!(worst < tolerance, "{encoding:?} {width}x{height}: {worst}");
        }
    }
}

#[test]
fn an_image_of_one_colour_keeps_it_to_the_borders() {
    let data = vec![200; 97 * 61 * 3];
    let image = ImageView::new("rgb8", 97, 61, 97 * 3, &data).unwrap();
    assert!(worst_difference(&image, (64, 32)) < 1e-3);
}

#[test]
fn the_mean_colour_is_indistinguishable_from_padding() {
    let data = vec![127; 50 * 20];
    let image = ImageView::new("mono8", 50, 20, 50, &data).unwrap();
    let mut output = vec![1.0; 3 * 64 * 64];
    let normalisation = Normalisation { mean: [127.0; 3], std: [128.0; 3] };
    Letterbox::new(image.size(), (64, 64)).apply(&image, &normalisation, &mut output);
    assert!(output.iter().all(|v| v.abs() < 1e-5));
}

#[test]
fn content_fits_keeps_the_aspect_and_is_centred() {
    let letterbox = Letterbox::new((1920, 1080), (320, 256));
    assert_eq!((letterbox.content(), letterbox.pad()), ((320, 180), (0, 36)));
    let letterbox = Letterbox::new((480, 640), (320, 256));
    assert_eq!((letterbox.content(), letterbox.pad()), ((192, 256), (64, 0)));
}

#[test]
fn boxes_are_clipped_to_the_image() {
    let letterbox = Letterbox::new((1920, 1080), (320, 256));
    let all = letterbox.to_source(BoundingBox::new(-50.0, -50.0, 400.0, 400.0));
    assert_eq!(all, BoundingBox::new(0.0, 0.0, 1920.0, 1080.0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_box_survives_the_way_to_the_input_and_back(
        (width, height) in (1usize..=16_384, 1usize..=16_384),
        (columns, rows) in (1usize..=20, 1usize..=20),
        corners in prop::array::uniform4(0f32..=1.0),
    ) {
        let letterbox = Letterbox::new((width, height), (32 * columns, 32 * rows));
        let (w, h) = (width as f32, height as f32);
        let original = BoundingBox::new(corners[0] * w, corners[1] * h, corners[2] * w, corners[3] * h);
        let back = letterbox.to_source(letterbox.to_input(original));
        let (sx, sy) = letterbox.scale();
        prop_assert!((back.x_min - original.x_min).abs() <= 1e-3 * (1.0f32).max(1.0 / sx));
        prop_assert!((back.x_max - original.x_max).abs() <= 1e-3 * (1.0f32).max(1.0 / sx));
        prop_assert!((back.y_min - original.y_min).abs() <= 1e-3 * (1.0f32).max(1.0 / sy));
        prop_assert!((back.y_max - original.y_max).abs() <= 1e-3 * (1.0f32).max(1.0 / sy));
    }

    #[test]
    fn whatever_passes_the_check_can_be_letterboxed(
        encoding in prop::sample::select(variants()),
        (width, height, step) in (0u32..600, 0u32..300, 0u32..2500),
        len in 0usize..200_000,
    ) {
        let data = noise(len, 3);
        if let Ok(image) = ImageView::with_encoding(encoding, width, height, step, &data) {
            let mut output = vec![0.0; 3 * 64 * 32];
            Letterbox::new(image.size(), (64, 32)).apply(&image, &NORMALISATION, &mut output);
            prop_assert!(output.iter().all(|v| v.is_finite()));
        }
    }

    #[test]
    fn any_header_is_checked_without_a_panic(
        encoding in "[a-z0-9_]{0,12}|rgb8|uyvy",
        (width, height, step) in (any::<u32>(), any::<u32>(), any::<u32>()),
        len in 0usize..64,
    ) {
        let _ = ImageView::new(&encoding, width, height, step, &vec![0; len]);
    }

    #[test]
    fn a_damaged_file_is_an_error_or_an_image_but_never_a_panic(
        format in prop::sample::select(vec![ImageFormat::Jpeg, ImageFormat::Png]),
        damage in prop::collection::vec((0usize..4000, any::<u8>()), 1..6),
    ) {
        let mut bytes = encode(&picture(48, 40), format);
        for (at, value) in damage {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        let _ = Decompressor::new().decode(&bytes);
    }
}

#[test]
fn the_extremes_of_size_can_be_letterboxed() {
    for (width, height) in [(16_384, 1), (1, 16_384), (16_384, 16), (2, 16_383)] {
        for encoding in variants() {
            let (width, height) = permitted(encoding, (width, height));
            let step = encoding.row_bytes(width);
            let data = noise(3 * step * height, 1);
            let image = ImageView::with_encoding(encoding, width as u32, height as u32, step as u32, &data).unwrap();
            let mut output = vec![0.0; 3 * 32 * 32];
            Letterbox::new(image.size(), (32, 32)).apply(&image, &NORMALISATION, &mut output);
        }
    }
}

/// A smooth colour picture, which JPEG keeps well.
fn picture(width: u32, height: u32) -> DynamicImage {
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 4) as u8, (y * 4) as u8, (x + y) as u8])).into()
}

fn encode(picture: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

fn pixels(view: &ImageView) -> Vec<u8> {
    (0..view.height()).flat_map(|y| view.row(y).to_vec()).collect()
}

#[test]
fn a_png_comes_out_as_it_went_in() {
    let mut decompressor = Decompressor::new();
    let rgb = picture(48, 40);
    for (picture, encoding) in [
        (rgb.clone(), Encoding::Rgb8),
        (rgb.to_rgba8().into(), Encoding::Rgba8),
        (rgb.to_luma8().into(), Encoding::Mono8),
    ] {
        let bytes = encode(&picture, ImageFormat::Png);
        let view = decompressor.decode(&bytes).unwrap();
        assert_eq!((view.encoding(), view.size()), (encoding, (48, 40)));
        assert_eq!(pixels(&view), picture.as_bytes());
    }
}

#[test]
fn sixteen_bit_png_becomes_rgb8() {
    let picture = picture(20, 10);
    let bytes = encode(&picture.to_rgb16().into(), ImageFormat::Png);
    let mut decompressor = Decompressor::new();
    let view = decompressor.decode(&bytes).unwrap();
    assert_eq!(view.encoding(), Encoding::Rgb8);
    assert_eq!(pixels(&view), picture.as_bytes());
}

#[test]
fn sixteen_bit_grey_is_refused_on_arrival() {
    let grey = picture(20, 10).to_luma16();
    let with_alpha = picture(20, 10).to_luma_alpha16();
    for picture in [DynamicImage::from(grey), with_alpha.into()] {
        let bytes = encode(&picture, ImageFormat::Png);
        assert!(matches!(compressed::check(&bytes), Err(CompressedError::Grey16)));
        assert!(matches!(Decompressor::new().decode(&bytes), Err(CompressedError::Grey16)));
    }
}

#[test]
fn a_jpeg_comes_out_nearly_as_it_went_in() {
    let mut decompressor = Decompressor::new();
    let picture = picture(61, 47);
    let bytes = encode(&picture, ImageFormat::Jpeg);
    let view = decompressor.decode(&bytes).unwrap();
    assert_eq!((view.encoding(), view.size()), (Encoding::Rgb8, (61, 47)));
    let difference = |(a, b): (&u8, &u8)| a.abs_diff(*b) as u64;
    let total: u64 = pixels(&view).iter().zip(picture.as_bytes()).map(difference).sum();
    assert!(total / (61 * 47 * 3) < 8, "mean difference {}", total / (61 * 47 * 3));
}

#[test]
fn a_grey_jpeg_is_mono8() {
    let mut decompressor = Decompressor::new();
    let bytes = encode(&picture(61, 47).to_luma8().into(), ImageFormat::Jpeg);
    let view = decompressor.decode(&bytes).unwrap();
    assert_eq!((view.encoding(), view.size()), (Encoding::Mono8, (61, 47)));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let mut decompressor = Decompressor::new();
    for format in [ImageFormat::Jpeg, ImageFormat::Png] {
        let mut bytes = encode(&picture(48, 40), format);
        for len in 0..bytes.len() {
            assert!(decompressor.decode(&bytes[..len]).is_err(), "{format:?} cut at {len} of {}", bytes.len());
        }
        bytes.extend([0; 100]);
        assert!(decompressor.decode(&bytes).is_ok(), "padding is no damage, and the decompressor stays usable");
    }
}

#[test]
fn a_header_that_claims_an_absurd_size_is_refused_before_decoding() {
    let mut png = encode(&picture(48, 40), ImageFormat::Png);
    png[16..20].copy_from_slice(&60_000u32.to_be_bytes());
    png[20..24].copy_from_slice(&60_000u32.to_be_bytes());
    let mut jpeg = encode(&picture(48, 40), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|m| m == [0xff, 0xc0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    let mut nearly = encode(&picture(48, 40), ImageFormat::Jpeg);
    nearly[frame + 5..frame + 9].copy_from_slice(&[0x3f; 4]);
    for bytes in [png, jpeg, nearly] {
        let error = Decompressor::new().decode(&bytes).unwrap_err();
        assert!(matches!(error, CompressedError::TooLarge { .. }), "{error}");
    }
}

#[test]
fn other_data_is_refused_as_such() {
    for data in [&b""[..], b"GIF89a", b"\xff\xd8", &[0; 100]] {
        assert_eq!(Decompressor::new().decode(data).unwrap_err().reason(), "format");
    }
}
