//! Near-duplicate detection by perceptual hashes.

use image::imageops::{self, FilterType};
use image::RgbImage;
use rayon::prelude::*;
use serde::Serialize;

/// Columns and rows of the gradients in a [`fingerprint`]: 256 bits.
const GRID: u32 = 16;

/// A perceptual hash of 256 bits, robust to rescaling, recompression and changes of brightness.
pub type Fingerprint = [u64; 4];

/// A pair of near-duplicates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// Data set and file name of each.
    pub images: [(String, String); 2],
    /// Hamming distance of the fingerprints, of 256 bits.
    pub distance: u32,
}

/// An image by data set and file name, and its fingerprint.
pub type Print = ((String, String), Fingerprint);

/// The pairs with a Hamming distance of at most `limit`, the most similar first.
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

/// Difference hash: for each cell of a 16×16 grid, whether its right neighbour is brighter.
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

/// Hamming distance.
pub fn distance(a: &Fingerprint, b: &Fingerprint) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}
