//! The frames that stand best for all others: each choice is the one that brings the frames of the
//! pool nearest, in sum, to those chosen (facility location; greedily, the result is at least 1 − 1/e
//! of the best: Nemhauser, Wolsey and Fisher 1978, "An analysis of approximations for maximizing
//! submodular set functions").

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use rand::seq::index::sample;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::features::distance;
use super::{Chosen, Rule};

/// Frames that stand for the pool when gains are computed: a larger pool is sampled, so that time
/// and memory grow with the number of its frames and not with its square.
const SAMPLE: usize = 2048;

/// The rule, and how far the sampled frames are from those chosen.
pub struct Coverage {
    features: Vec<Vec<f32>>,
    values: Vec<f32>,
    /// Indices of the sampled frames, with their distance to the nearest chosen one.
    sampled: Vec<(usize, f32)>,
    /// An upper bound of each frame's gain, the largest first: a gain only falls as more frames are
    /// chosen, so most need not be computed again (Minoux 1978, "Accelerated greedy algorithms").
    bounds: BinaryHeap<Bound>,
    chosen: Vec<usize>,
}

impl Coverage {
    /// For frames with standardised `features`; the `seed` draws the sample of a large pool.
    pub fn new(features: Vec<Vec<f32>>, values: Vec<f32>, seed: u64) -> Self {
        let count = features.len();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sampled = if count <= SAMPLE { (0..count).collect() } else { sample(&mut rng, count, SAMPLE).into_vec() };
        // No two frames are farther from each other than twice the farthest is from the mean, 0.
        let origin = vec![0.0; features.first().map_or(0, Vec::len)];
        let far = 2.0 * features.iter().map(|f| distance(f, &origin)).fold(0.0, f32::max);
        let mut coverage = Self {
            features,
            values,
            sampled: sampled.into_iter().map(|i| (i, far)).collect(),
            bounds: BinaryHeap::new(),
            chosen: Vec::new(),
        };
        let gains: Vec<f32> = (0..count).into_par_iter().map(|index| coverage.gain(index)).collect();
        coverage.bounds = gains.into_iter().enumerate().map(|(index, gain)| Bound { gain, index }).collect();
        coverage
    }

    /// By how much the choice of a frame shortens the sampled frames' distances.
    fn gain(&self, index: usize) -> f32 {
        let shorter = |&(i, nearest): &(usize, f32)| nearest - distance(&self.features[i], &self.features[index]);
        self.sampled.iter().map(|s| shorter(s).max(0.0)).sum()
    }

    fn take(&mut self, index: usize) -> Chosen {
        let frame = &self.features[index];
        let before = self.chosen.iter().map(|&i| distance(&self.features[i], frame)).min_by(f32::total_cmp);
        let mut nearer = 0;
        for (i, nearest) in &mut self.sampled {
            let to = distance(&self.features[*i], frame);
            if to < *nearest {
                *nearest = to;
                nearer += 1;
            }
        }
        self.chosen.push(index);
        let of_all = nearer * self.features.len() / self.sampled.len();
        Chosen { index, value: self.values[index], distance: before, nearer: Some(of_all) }
    }
}

impl Rule for Coverage {
    fn best(&mut self, open: &[bool]) -> Option<Chosen> {
        while let Some(top) = self.bounds.pop() {
            if !open[top.index] {
                continue;
            }
            let now = Bound { gain: self.gain(top.index), ..top };
            if self.bounds.peek().is_none_or(|next| now >= *next) {
                return Some(self.take(now.index));
            }
            self.bounds.push(now);
        }
        None
    }
}

/// Of equal gains, the first frame's is the largest.
#[derive(Debug, Clone, Copy)]
struct Bound {
    gain: f32,
    index: usize,
}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> Ordering {
        self.gain.total_cmp(&other.gain).then(other.index.cmp(&self.index))
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Bound {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Bound {}
