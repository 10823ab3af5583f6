//! How threads share a convolution that transforms its inputs first ([`winograd`](super::winograd)).

use std::ops::Range;

/// Chunks for each thread, where there are several: one that is late takes fewer. With four, bands are so low that
/// reading the weights more often costs a tenth of the time of a student's mid-sized layers (AVX2).
const CHUNKS_PER_THREAD: usize = 2;

/// Bytes of transformed weights that are read anew for each band at no cost: those that stay in half of a 512 KiB
/// second-level cache.
const CACHED_WEIGHTS: usize = 256 * 1024;

/// A convolution in bands of tile rows, each in parts of its output channels: a chunk is one part of one band.
///
/// A band's inputs are transformed into the thread's scratch. A band of one part is transformed once in all; of a
/// band of several parts each thread that takes some makes the transform once for itself, and keeps it for those that
/// follow ([`keeps_band`](Self::keeps_band)).
#[derive(Debug, Clone, Copy)]
pub struct BandSplit {
    tile_rows: usize,
    groups: usize,
    bands: usize,
    parts: usize,
}

impl BandSplit {
    /// For `threads` threads, of a map of `tile_rows` whose scratch has room for `most` of them, and whose output
    /// channels are in `groups`; its transformed weights have `weight_bytes`.
    pub fn new(threads: usize, (tile_rows, most): (usize, usize), groups: usize, weight_bytes: usize) -> Self {
        let fewest = tile_rows.div_ceil(most);
        let wanted = if threads == 1 { 1 } else { CHUNKS_PER_THREAD * threads };
        let (bands, parts) = if fewest >= wanted {
            (fewest, 1)
        } else if tile_rows >= 2 * wanted && weight_bytes <= CACHED_WEIGHTS {
            // Bands of several rows, so that some being a row longer is no great matter.
            (wanted, 1)
        } else {
            let parts = groups.min(wanted.div_ceil(fewest));
            (wanted.div_ceil(parts).clamp(fewest, tile_rows), parts)
        };
        Self { tile_rows, groups, bands, parts }
    }

    /// How many chunks there are.
    pub fn chunks(&self) -> usize {
        self.bands * self.parts
    }

    /// The most tile rows of a band.
    pub fn band(&self) -> usize {
        self.tile_rows.div_ceil(self.bands)
    }

    /// The tile rows and the groups of output channels of a chunk.
    pub fn part(&self, chunk: usize) -> (Range<usize>, Range<usize>) {
        let (band, part) = (chunk / self.parts, chunk % self.parts);
        let share = |n: usize, i: usize, of: usize| n * i / of..n * (i + 1) / of;
        (share(self.tile_rows, band, self.bands), share(self.groups, part, self.parts))
    }

    /// Whether a thread that ran the chunk `before` has the transformed inputs of `chunk` already.
    pub fn keeps_band(&self, before: Option<usize>, chunk: usize) -> bool {
        before.is_some_and(|before| before / self.parts == chunk / self.parts)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn chunks_are_the_whole_once_in_bands_that_the_scratch_has_room_for(
            threads in 1usize..9, tile_rows in 1usize..40, most in 1usize..40, groups in 1usize..20,
            weight_bytes in 0..2 * CACHED_WEIGHTS,
        ) {
            let most = most.min(tile_rows);
            let split = BandSplit::new(threads, (tile_rows, most), groups, weight_bytes);
            prop_assert!(split.band() <= most);
            let mut times = vec![0; tile_rows * groups];
            for chunk in 0..split.chunks() {
                let (rows, groups_of) = split.part(chunk);
                prop_assert!(!rows.is_empty() && rows.len() <= split.band() && !groups_of.is_empty());
                rows.for_each(|row| groups_of.clone().for_each(|group| times[row * groups + group] += 1));
            }
            prop_assert!(times.iter().all(|&n| n == 1));
        }

        #[test]
        fn a_lone_thread_transforms_each_input_once(
            tile_rows in 1usize..40, most in 1usize..40, groups in 1usize..20, weight_bytes in 0..2 * CACHED_WEIGHTS,
        ) {
            let split = BandSplit::new(1, (tile_rows, most.min(tile_rows)), groups, weight_bytes);
            prop_assert!((0..split.chunks()).all(|chunk| split.part(chunk).1 == (0..groups)));
        }

        #[test]
        fn a_band_is_kept_from_one_of_its_parts_to_another_alone(
            threads in 1usize..9, tile_rows in 1usize..40, most in 1usize..40, groups in 1usize..20,
            before in 0usize..1000, chunk in 0usize..1000,
        ) {
            let split = BandSplit::new(threads, (tile_rows, most.min(tile_rows)), groups, 2 * CACHED_WEIGHTS);
            let (before, chunk) = (before % split.chunks(), chunk % split.chunks());
            prop_assert!(!split.keeps_band(None, chunk));
            prop_assert_eq!(split.keeps_band(Some(before), chunk), split.part(before).0 == split.part(chunk).0);
        }
    }
}
