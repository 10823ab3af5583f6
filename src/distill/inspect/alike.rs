//! Images that look the same: fingerprints that survive rescaling, recompression and changes of brightness.

use image::imageops::{self, FilterType};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

/// Columns and rows of the brightness steps that [`fingerprint`] keeps: 256 bits.
const GRID: u32 = 16;

/// 256 bits that stay nearly the same under rescaling, recompression and changes of brightness.
pub type Fingerprint = [u64; 4];

/// Two images that look the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// Data set and file name of each.
    pub images: [(String, String); 2],
    /// Bits of the fingerprints that differ, of 256.
    pub distance: u32,
}

/// An image by data set and file name, and its fingerprint.
pub type Print = ((String, String), Fingerprint);

/// The pairs of which at most `limit` bits differ, the most alike first.
pub fn pairs(prints: &[Print], limit: u32) -> Vec<Alike> {
    let of = |i: usize| {
        let (name, print) = &prints[i];
        let others = prints[i + 1..].iter().map(move |(other, p)| (other, distance(print, p)));
        let found = others.filter(|(_, distance)| *distance <= limit);
        found.map(|(other, distance)| Alike { images: [name.clone(), other.clone()], distance }).collect::<Vec<_>>()
    };
    let mut alike: Vec<Alike> = (0..prints.len()).into_par_iter().flat_map_iter(of).collect();
    alike.sort_by(|a, b| (a.distance, &a.images).cmp(&(b.distance, &b.images)));
    alike
}

/// For each cell of a 16×16 grid, whether the one to its right is brighter ("difference hash").
pub fn fingerprint(image: &RgbImage) -> Fingerprint {
    let grey = imageops::grayscale(image);
    let grid = imageops::resize(&grey, GRID + 1, GRID, FilterType::Triangle);
    let mut bits = [0; 4];
    for y in 0..GRID {
        for x in 0..GRID {
            let at = (y * GRID + x) as usize;
            bits[at / 64] |= u64::from(grid.get_pixel(x + 1, y).0 > grid.get_pixel(x, y).0) << (at % 64);
        }
    }
    bits
}

/// Bits that differ.
pub fn distance(a: &Fingerprint, b: &Fingerprint) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}
