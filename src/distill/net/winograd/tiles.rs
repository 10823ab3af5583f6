//! Which tiles are computed together.

use std::ops::Range;

use peregrine_engine::Shape;

use super::super::Geometry;
use super::sides::{PRODUCTS, TILE};

/// Tiles below which a product's rows are too short: of smaller maps several images are convolved together.
pub const TILES: usize = 64;

/// Values of a band's products: as many as stay in the processor's caches.
const BAND: usize = 1 << 20;

/// The tiles of a map.
pub struct Tiles {
    pub rows: usize,
    /// Tiles of a row, with the one that holds nothing.
    pub pitch: usize,
}

impl Tiles {
    pub fn of(output: Shape) -> Self {
        Self { rows: output.height.div_ceil(TILE), pitch: output.width.div_ceil(TILE) + 1 }
    }

    pub fn in_image(&self) -> usize {
        self.rows * self.pitch
    }
}

/// Rows of tiles of one image.
pub struct Part {
    pub image: usize,
    pub rows: Range<usize>,
}

/// The rows of tiles of all images, in bands whose products stay in the cache.
pub fn bands(g: &Geometry, images: usize) -> Vec<Vec<Part>> {
    let tiles = Tiles::of(g.output);
    let room = BAND / (PRODUCTS * (g.input.channels + g.output.channels));
    let most = (room / tiles.pitch).clamp(1, tiles.rows);
    // Of equal heights, so that none is a rest of a row.
    let height = tiles.rows.div_ceil(tiles.rows.div_ceil(most));
    let mut bands: Vec<Vec<Part>> = Vec::new();
    for image in 0..images {
        for first in (0..tiles.rows).step_by(height) {
            let part = Part { image, rows: first..(first + height).min(tiles.rows) };
            let fits = |band: &Vec<Part>| columns(band, &tiles) + part.rows.len() * tiles.pitch <= room.max(TILES);
            match bands.last_mut().filter(|band| fits(band)) {
                Some(band) => band.push(part),
                None => bands.push(vec![part]),
            }
        }
    }
    bands
}

/// Tiles of a band, those that hold nothing included: the columns of its products.
pub fn columns(band: &[Part], tiles: &Tiles) -> usize {
    band.iter().map(|part| part.rows.len() * tiles.pitch).sum()
}
