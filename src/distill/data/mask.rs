//! Masks: the class of each pixel.
//!
//! What counts is the number that is stored for a pixel, whatever the PNG's bit depth, and whether
//! or not a palette shows it in colour. A mask that is stored as colours needs the table of
//! `[segmentation] colours`.

use std::collections::HashMap;
use std::io::Cursor;
use std::path::Path;

use image::{DynamicImage, GrayImage, Luma};

use super::config::DatasetConfig;
use super::{read, DataError};

/// Larger files are refused before they are read: in bytes.
const LARGEST: u64 = 256 << 20;
/// Masks of more pixels are refused: as many as 16384×16384.
const MOST_PIXELS: u64 = 1 << 28;

/// Endings of the masks that are read. JPEG changes values, so it is none of them.
pub const MASKS: [&str; 4] = ["png", "bmp", "tif", "tiff"];

/// Decodes a mask of indices: the stored number of each pixel, unchanged.
///
/// # Errors
/// [`DataError::Image`] when the file is missing, damaged, or holds colours instead of indices.
pub fn load_indices(path: &Path) -> Result<GrayImage, DataError> {
    let why = |why: String| DataError::Image { path: path.to_owned(), why };
    let bytes = read::read_file(path, LARGEST).map_err(|e| why(e.to_string()))?;
    if bytes.starts_with(b"\x89PNG") {
        return png_indices(&bytes).map_err(why);
    }
    match read::decode(path)? {
        DynamicImage::ImageLuma8(mask) => Ok(mask),
        other => Err(why(not_indices(&format!("{:?}", other.color())))),
    }
}

/// Decodes a mask of colours: of each pixel the index of its colour among `colours`.
///
/// # Errors
/// [`DataError::Image`] when the file is missing or damaged, or holds a colour that is not listed.
pub fn load_colours(path: &Path, colours: &[[u8; 3]]) -> Result<GrayImage, DataError> {
    let indices: HashMap<[u8; 3], u8> = colours.iter().copied().zip(0..=u8::MAX).collect();
    let image = read::load_image(path)?;
    let mut mask = GrayImage::new(image.width(), image.height());
    for ((x, y, pixel), index) in image.enumerate_pixels().zip(mask.pixels_mut()) {
        let Some(&found) = indices.get(&pixel.0) else {
            let [r, g, b] = pixel.0;
            let why = format!(
                "the colour [{r}, {g}, {b}] at ({x}, {y}) is not listed under [segmentation] colours; add it there, with \
                 its class"
            );
            return Err(DataError::Image { path: path.to_owned(), why });
        };
        *index = Luma([found]);
    }
    Ok(mask)
}

impl DatasetConfig {
    /// Decodes a mask of this data set: the byte of each pixel, checked against its classes.
    ///
    /// # Errors
    /// When the file is no valid mask, or holds a byte or colour that the configuration does not
    /// list.
    pub fn load_mask(&self, path: &Path) -> Result<GrayImage, DataError> {
        let masks = self.segmentation.as_ref();
        if let Some(colours) = masks.and_then(|masks| masks.colours.as_ref()) {
            return load_colours(path, colours);
        }
        let (listed, void) = masks.map_or((0, None), |masks| (masks.classes.len(), masks.void));
        let mask = load_indices(path)?;
        match mask.iter().find(|byte| usize::from(**byte) >= listed && void != Some(**byte)) {
            None => Ok(mask),
            Some(byte) => {
                let why = format!("holds class {byte}, but dataset.toml lists {listed} segmentation classes");
                Err(DataError::Image { path: path.to_owned(), why })
            }
        }
    }
}

fn not_indices(found: &str) -> String {
    format!(
        "a mask must hold class indices (greyscale or with a palette), but this is {found}; save it as such, or list its \
         colours under [segmentation] colours in dataset.toml, in the order of classes"
    )
}

fn png_indices(bytes: &[u8]) -> Result<GrayImage, String> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(bytes), png::Limits { bytes: 1 << 30 });
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(|e| e.to_string())?;
    let (width, height) = (reader.info().width, reader.info().height);
    let (colour, depth) = reader.output_color_type();
    if !matches!(colour, png::ColorType::Grayscale | png::ColorType::Indexed) {
        return Err(not_indices(&format!("{colour:?}, {} bits a channel", depth as u8)));
    }
    if u64::from(width) * u64::from(height) > MOST_PIXELS {
        return Err(format!("it has {width}×{height} pixels, more than a mask may have"));
    }
    let size = reader.output_buffer_size().ok_or("it is too large")?;
    let mut rows = vec![0; size];
    let line = reader.next_frame(&mut rows).map_err(|e| e.to_string())?.line_size;
    let mut mask = GrayImage::new(width, height);
    for (row, pixels) in rows.chunks(line).zip(mask.chunks_mut(width as usize)) {
        unpack(row, depth as usize, pixels)?;
    }
    Ok(mask)
}

/// The numbers of one row: several to a byte, the first in the highest bits (PNG specification,
/// 7.2).
fn unpack(row: &[u8], bits: usize, pixels: &mut [u8]) -> Result<(), String> {
    if bits == 16 {
        for (pixel, pair) in pixels.iter_mut().zip(row.chunks_exact(2)) {
            let value = u16::from_be_bytes([pair[0], pair[1]]);
            *pixel = u8::try_from(value).map_err(|_| {
                format!("it holds the number {value}; classes are 0 to 255 (are these instances instead of classes?)")
            })?;
        }
        return Ok(());
    }
    let (per_byte, largest) = (8 / bits, u8::MAX >> (8 - bits));
    for (x, pixel) in pixels.iter_mut().enumerate() {
        *pixel = row[x / per_byte] >> (8 - bits - x % per_byte * bits) & largest;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::{BitDepth, ColorType};

    /// A 5×2 PNG of these rows.
    fn png(colour: ColorType, depth: BitDepth, rows: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 5, 2);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        if colour == ColorType::Indexed {
            encoder.set_palette((0..=255).flat_map(|i| [i, 255 - i, 77]).collect::<Vec<u8>>());
        }
        encoder.write_header().unwrap().write_image_data(rows).unwrap();
        bytes
    }

    #[test]
    fn the_stored_number_counts_at_every_bit_depth() {
        for colour in [ColorType::Grayscale, ColorType::Indexed] {
            for (depth, rows, expected) in [
                (BitDepth::One, &[0b0110_1000, 0b1000_1000][..], [0, 1, 1, 0, 1, 1, 0, 0, 0, 1]),
                (BitDepth::Two, &[0b0001_1011, 0b1100_0000, 0, 0b0100_0000], [0, 1, 2, 3, 3, 0, 0, 0, 0, 1]),
                (BitDepth::Four, &[0x01, 0x2f, 0xa0, 0, 0, 0x70], [0, 1, 2, 15, 10, 0, 0, 0, 0, 7]),
                (BitDepth::Eight, &[0, 1, 2, 255, 4, 5, 6, 7, 8, 9], [0, 1, 2, 255, 4, 5, 6, 7, 8, 9]),
            ] {
                let mask = png_indices(&png(colour, depth, rows)).unwrap();
                assert_eq!(mask.as_raw()[..], expected, "{colour:?} {depth:?}");
            }
        }
    }

    #[test]
    fn sixteen_bits_are_read_up_to_255() {
        let rows = |last: [u8; 2]| [vec![0; 18], last.to_vec()].concat();
        let read = |last| png_indices(&png(ColorType::Grayscale, BitDepth::Sixteen, &rows(last)));
        assert_eq!(read([0, 255]).unwrap().as_raw()[9], 255);
        assert!(read([1, 0]).unwrap_err().contains("256"));
    }

    #[test]
    fn colours_are_not_taken_for_indices() {
        let why = png_indices(&png(ColorType::Rgb, BitDepth::Eight, &[0; 30])).unwrap_err();
        assert!(why.contains("greyscale") && why.contains("colours"), "{why}");
    }
}
