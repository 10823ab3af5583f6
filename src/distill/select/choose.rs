//! The choice: which frames teach most together.
//!
//! Greedily, the frame with the largest product of *value* (how much the detectors disagree about
//! it) and *distance* (how far its features lie from those of the frames chosen before): k-centre
//! greedy (Sener and Savarese 2018, "Active Learning for Convolutional Neural Networks: A Core-Set
//! Approach", algorithm 1), weighted by value. Near-copies of a chosen frame are left out.

use rand::seq::SliceRandom;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::inspect::{distance as bits, Fingerprint};

/// A frame to choose from.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// How much the student and the teachers disagree, and the teachers among themselves.
    pub disagreements: [f32; 2],
    pub features: Vec<f32>,
    pub fingerprint: Fingerprint,
}

/// A frame that was chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chosen {
    /// Index among the candidates.
    pub index: usize,
    /// Of its disagreement: the fraction of the candidates that have no more, 0…1.
    pub value: f32,
    /// To the nearest frame chosen before it, in standard deviations of the features; `None` for
    /// the first.
    pub distance: Option<f32>,
}

/// The choice, and what was passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// In the order of choice, the most valuable first.
    pub chosen: Vec<Chosen>,
    /// Near-copies, and the chosen frame that each resembles.
    pub copies: Vec<(usize, usize)>,
}

/// Chooses up to `budget` of `candidates`. Two frames are near-copies if at most `alike` of their
/// fingerprints' 256 bits differ. The `seed` decides between equals.
pub fn choose(candidates: &[Candidate], budget: usize, alike: u32, seed: u64) -> Choice {
    let values = values(candidates, seed);
    let features = standardised(candidates);
    // Frames that are neither chosen nor near-copies, each with its distance to the chosen.
    let mut open: Vec<(usize, f32)> = (0..candidates.len()).map(|i| (i, f32::INFINITY)).collect();
    let mut choice = Choice { chosen: Vec::new(), copies: Vec::new() };
    while choice.chosen.len() < budget {
        // Before the first choice, all are equally far.
        let gain = |&(i, distance): &(usize, f32)| if distance.is_finite() { distance * values[i] } else { values[i] };
        let best = open.iter().copied().max_by(|a, b| gain(a).total_cmp(&gain(b)).then(b.0.cmp(&a.0)));
        let Some((index, distance)) = best else { break };
        let distance = distance.is_finite().then_some(distance);
        choice.chosen.push(Chosen { index, value: values[index], distance });
        open.retain(|&(i, _)| i != index);
        open.retain(|&(i, _)| {
            let copy = bits(&candidates[i].fingerprint, &candidates[index].fingerprint) <= alike;
            if copy {
                choice.copies.push((i, index));
            }
            !copy
        });
        open.iter_mut().for_each(|(i, nearest)| *nearest = nearest.min(distance_of(&features[*i], &features[index])));
    }
    choice
}

/// `budget` of `count` frames at random, in order.
pub fn at_random(count: usize, budget: usize, seed: u64) -> Vec<usize> {
    let mut all: Vec<usize> = (0..count).collect();
    all.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    all.truncate(budget);
    all.sort_unstable();
    all
}

/// The value of each candidate: the rank of the sum of its disagreements, each relative to its mean,
/// so that neither outliers nor the number of teachers decide.
fn values(candidates: &[Candidate], seed: u64) -> Vec<f32> {
    let count = candidates.len();
    let mean = |of: usize| candidates.iter().map(|c| f64::from(c.disagreements[of])).sum::<f64>() / count as f64;
    let means = [mean(0), mean(1)];
    let relative = |c: &Candidate, of: usize| {
        if means[of] > 0.0 {
            f64::from(c.disagreements[of]) / means[of]
        } else {
            0.0
        }
    };
    let mut ranked: Vec<(usize, f64)> =
        candidates.iter().enumerate().map(|(i, c)| (i, relative(c, 0) + relative(c, 1))).collect();
    ranked.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
    ranked.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut values = vec![0.0; count];
    for (rank, (i, _)) in ranked.into_iter().enumerate() {
        values[i] = (rank + 1) as f32 / count as f32;
    }
    values
}

/// The features with mean 0 and standard deviation 1 over the candidates, each feature apart.
fn standardised(candidates: &[Candidate]) -> Vec<Vec<f32>> {
    let (count, size) = (candidates.len() as f32, candidates.first().map_or(0, |c| c.features.len()));
    let mut features: Vec<Vec<f32>> = candidates.iter().map(|c| c.features.clone()).collect();
    for at in 0..size {
        let mean = features.iter().map(|f| f[at]).sum::<f32>() / count;
        let variance = features.iter().map(|f| (f[at] - mean).powi(2)).sum::<f32>() / count;
        let std = variance.sqrt().max(1e-6);
        features.iter_mut().for_each(|f| f[at] = (f[at] - mean) / std);
    }
    features
}

/// Root mean square of the differences.
fn distance_of(a: &[f32], b: &[f32]) -> f32 {
    let sum: f32 = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum();
    (sum / a.len().max(1) as f32).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(value: f32, feature: f32, print: u64) -> Candidate {
        Candidate { disagreements: [value, 0.0], features: vec![feature], fingerprint: [print, 0, 0, 0] }
    }

    #[test]
    fn the_most_valuable_comes_first_and_then_what_is_far_from_it() {
        let all = [
            candidate(3.0, 0.0, 0),
            candidate(2.9, 0.1, u64::MAX),
            candidate(2.0, 5.0, 0xffff_ffff),
            candidate(0.1, 2.0, 0xff00_ff00_ff00_ff00),
        ];
        let choice = choose(&all, 2, 4, 1);
        assert_eq!(choice.chosen.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(choice.chosen[0].distance, None);
        assert!(choice.copies.is_empty());
    }

    #[test]
    fn near_copies_of_a_chosen_frame_are_left_out_even_within_the_budget() {
        let all = [candidate(3.0, 0.0, 0), candidate(2.0, 4.0, 0b111), candidate(1.0, 1.0, u64::MAX)];
        let choice = choose(&all, 3, 4, 1);
        assert_eq!(choice.chosen.iter().map(|c| c.index).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(choice.copies, [(1, 0)]);
    }

    proptest! {
        #[test]
        fn a_choice_has_no_frame_twice_nor_two_near_copies_and_repeats(
            raw in proptest::collection::vec((0f32..9.0, -5f32..5.0, any::<u64>()), 1..40),
            budget in 1usize..50,
            alike in 0u32..30,
            seed in any::<u64>(),
        ) {
            let all: Vec<Candidate> = raw.iter().map(|&(v, f, p)| candidate(v, f, p)).collect();
            let choice = choose(&all, budget, alike, seed);
            prop_assert_eq!(&choice, &choose(&all, budget, alike, seed));
            prop_assert!(choice.chosen.len() <= budget);
            prop_assert!(choice.chosen.len() == budget || choice.chosen.len() + choice.copies.len() == all.len());
            for (i, a) in choice.chosen.iter().enumerate() {
                for b in &choice.chosen[i + 1..] {
                    prop_assert!(a.index != b.index);
                    prop_assert!(bits(&all[a.index].fingerprint, &all[b.index].fingerprint) > alike);
                }
            }
            let random = at_random(all.len(), budget, seed);
            prop_assert_eq!(random.len(), budget.min(all.len()));
            prop_assert!(random.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
