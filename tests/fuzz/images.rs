//! Images: raw messages, compressed ones, files of data sets, masks.

use std::cell::RefCell;
use std::io::Cursor;
use std::num::NonZeroU16;

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};
use peregrine_core::encoding::{Levels, YuvRange};
use peregrine_core::{Encoding, ImageView};
use peregrine_distill::data::{load_image, mask};
use peregrine_vision::preprocess::levels::LevelWatch;
use peregrine_vision::preprocess::{compressed, Decompressor, Letterbox, Normalisation};

use crate::scratch::Scratch;

/// Larger pictures are not decoded: most of the time would go into their pixels.
const SIDE: usize = 128;

/// Side of the network's input.
const INPUT: usize = 32;

/// Bits of the encoding's byte beyond its number: the message is big-endian, of full range, of 12 bits.
const BIG_ENDIAN: u8 = 1 << 5;
const FULL_RANGE: u8 = 1 << 6;
const TWELVE_BITS: u8 = 1 << 7;

/// `[encoding, width, height, step…]` and pixels, as a `sensor_msgs/Image`.
pub fn message(data: &[u8]) {
    let Some((&[encoding, width, height, gap, high, ..], pixels)) = data.split_first_chunk::<5>() else {
        return;
    };
    let names: Vec<&str> = Encoding::ALL.iter().map(|encoding| encoding.ros_name()).collect();
    let text = String::from_utf8_lossy(&pixels[..pixels.len().min(12)]).into_owned();
    let name = names.get(usize::from(encoding % BIG_ENDIAN)).copied().unwrap_or(&text);
    let levels = Levels {
        yuv: if encoding & FULL_RANGE != 0 { YuvRange::Full } else { YuvRange::Limited },
        white: NonZeroU16::new(if encoding & TWELVE_BITS != 0 { 4095 } else { u16::MAX }).expect("not zero"),
    };
    let known = Encoding::from_ros(name).map(|known| known.with(encoding & BIG_ENDIAN != 0, levels));
    let wide = |low: u8, bit: u8| u32::from(low) | if high >> bit & 1 == 1 { 0x8000_0000 >> (high >> 3) } else { 0 };
    let (width, height) = (wide(width, 0), wide(height, 1));
    let row = known.map_or(0, |encoding| encoding.row_bytes(width as usize & 0xffff)) as u32;
    let step = if high & 4 == 0 { row.wrapping_add(u32::from(gap)) } else { wide(gap, 2) };
    let Some(known) = known else { return };
    let Ok(image) = ImageView::with_encoding(known, width, height, step, pixels) else { return };
    LevelWatch::default().look(&image);
    let normalisation = Normalisation { mean: [127.0; 3], std: [128.0; 3] };
    let mut input = vec![0.0; 3 * INPUT * INPUT];
    Letterbox::new(image.size(), (INPUT, INPUT)).apply(&image, &normalisation, &mut input);
    assert!(input.iter().all(|value| value.abs() <= 1.01), "a pixel out of range");
}

/// A small one of each encoding, and one of each with values of another kind.
pub fn message_seeds() -> Vec<Vec<u8>> {
    let of = |(i, encoding): (usize, Encoding), bits: u8| {
        let (width, height, gap) = (16, 6, 4);
        let mut seed = vec![i as u8 | bits, width, height, gap, 0];
        let step = encoding.row_bytes(usize::from(width)) + usize::from(gap);
        seed.extend((0..3 * step * usize::from(height)).map(|i| i as u8));
        seed
    };
    let numbered = || Encoding::ALL.into_iter().enumerate();
    let others = BIG_ENDIAN | FULL_RANGE | TWELVE_BITS;
    numbered().map(|encoding| of(encoding, 0)).chain(numbered().map(|encoding| of(encoding, others))).collect()
}

/// A `sensor_msgs/CompressedImage`: JPEG, also as MJPEG cameras send it, and PNG.
pub fn compressed(data: &[u8]) {
    thread_local!(static DECODER: RefCell<Decompressor> = RefCell::default());
    if compressed::check(data).is_ok() && side(data) <= SIDE {
        DECODER.with_borrow_mut(|decoder| drop(decoder.decode(data).map(|image| image.size())));
    }
}

/// The longer side that a file's header gives; 0 if it gives none.
fn side(data: &[u8]) -> usize {
    let reader = image::ImageReader::new(Cursor::new(data)).with_guessed_format();
    let size = reader.ok().and_then(|reader| reader.into_dimensions().ok());
    size.map_or(0, |(width, height)| width.max(height) as usize)
}

fn picture(side: u32) -> RgbImage {
    RgbImage::from_fn(side, side, |x, y| image::Rgb([(8 * x) as u8, (8 * y) as u8, (x * y) as u8]))
}

fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("it is written to memory");
    bytes.into_inner()
}

/// The same JPEG without its Huffman tables.
fn without_tables(jpeg: &[u8]) -> Vec<u8> {
    let mut kept = jpeg[..2].to_vec();
    let mut rest = &jpeg[2..];
    while let [0xff, marker, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low])) + 2;
        if marker == 0xda {
            break;
        }
        if marker != 0xc4 {
            kept.extend(&rest[..length]);
        }
        rest = &rest[length..];
    }
    [kept, rest.to_vec()].concat()
}

/// Colours and grey, with and without tables.
pub fn compressed_seeds() -> Vec<Vec<u8>> {
    let (colours, grey) = (picture(24), DynamicImage::from(picture(9)).to_luma8());
    let mut seeds = vec![];
    for image in [DynamicImage::from(colours), DynamicImage::from(grey)] {
        let jpeg = encoded(&image, ImageFormat::Jpeg);
        seeds.extend([without_tables(&jpeg), jpeg, encoded(&image, ImageFormat::Png)]);
    }
    seeds.push(encoded(&DynamicImage::from(picture(5)).to_rgba16().into(), ImageFormat::Png));
    seeds
}

/// An image file of a data set.
pub fn file(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    if side(data) <= SIDE {
        FOLDER.with(|folder| drop(load_image(&folder.write("image", data))));
    }
}

/// One of each format, and one turned by its EXIF tag.
pub fn file_seeds() -> Vec<Vec<u8>> {
    let image = DynamicImage::from(picture(9));
    let formats = [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp, ImageFormat::Tiff, ImageFormat::WebP];
    let mut seeds: Vec<_> = formats.into_iter().map(|format| encoded(&image, format)).collect();
    let exif = b"\xff\xe1\x00\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    seeds.push([&seeds[0][..2], exif, &seeds[0][2..]].concat());
    seeds
}

/// A mask of a data set: numbers, palettes and colours.
pub fn mask(data: &[u8]) {
    thread_local!(static FOLDER: Scratch = Scratch::new(&[]));
    if side(data) <= SIDE {
        FOLDER.with(|folder| {
            let path = folder.write("mask.png", data);
            drop((mask::load_indices(&path), mask::load_colours(&path, &[[0, 0, 0], [8, 8, 1]])));
        });
    }
}

/// In numbers and in colours.
pub fn mask_seeds() -> Vec<Vec<u8>> {
    let numbers = GrayImage::from_fn(9, 7, |x, _| image::Luma([x as u8]));
    [DynamicImage::from(numbers), DynamicImage::from(picture(8))].map(|mask| encoded(&mask, ImageFormat::Png)).into()
}
