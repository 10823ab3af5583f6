//! The choice: which frames teach most together.
//!
//! - [`coverage`]: those that stand best for all others. - [`farthest`]: those that the detectors
//!   disagree about, far from each other. - [`features`]: how far two frames are from each other.
//!
//! Near-copies of a chosen frame are left out, whatever the rule.

pub mod coverage;
pub mod farthest;
pub mod features;

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
    /// Candidates that it is nearer to than all frames chosen before it, if the rule asks for that.
    pub nearer: Option<usize>,
}

/// The choice, and what was passed over.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// In the order of choice, the most valuable first.
    pub chosen: Vec<Chosen>,
    /// Near-copies, and the chosen frame that each resembles.
    pub copies: Vec<(usize, usize)>,
}

/// How the next frame is chosen.
pub trait Rule {
    /// Chooses one of the frames that are `open`: neither chosen nor near-copies of those that are.
    fn best(&mut self, open: &[bool]) -> Option<Chosen>;
}

/// Chooses up to `budget` of `candidates` by `rule`. Two frames are near-copies if at most `alike`
/// of their fingerprints' 256 bits differ.
pub fn choose(candidates: &[Candidate], rule: &mut dyn Rule, budget: usize, alike: u32) -> Choice {
    let mut open = vec![true; candidates.len()];
    let mut choice = Choice { chosen: Vec::new(), copies: Vec::new() };
    while choice.chosen.len() < budget {
        let Some(chosen) = rule.best(&open) else { break };
        open[chosen.index] = false;
        choice.chosen.push(chosen);
        let print = &candidates[chosen.index].fingerprint;
        for (i, open) in open.iter_mut().enumerate() {
            if *open && bits(&candidates[i].fingerprint, print) <= alike {
                *open = false;
                choice.copies.push((i, chosen.index));
            }
        }
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
/// so that neither outliers nor the number of teachers decide. The `seed` decides between equals.
pub fn values(candidates: &[Candidate], seed: u64) -> Vec<f32> {
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

#[cfg(test)]
mod tests {
    use super::coverage::Coverage;
    use super::farthest::Farthest;
    use super::*;
    use proptest::prelude::*;

    fn candidate(value: f32, feature: f32, print: u64) -> Candidate {
        Candidate { disagreements: [value, 0.0], features: vec![feature], fingerprint: [print, 0, 0, 0] }
    }

    fn by_disagreement(all: &[Candidate], seed: u64) -> Farthest {
        Farthest::new(features::standardised(all), values(all, seed))
    }

    fn by_coverage(all: &[Candidate], seed: u64) -> Coverage {
        Coverage::new(features::standardised(all), values(all, seed), seed)
    }

    fn indices(choice: &Choice) -> Vec<usize> {
        choice.chosen.iter().map(|c| c.index).collect()
    }

    #[test]
    fn by_disagreement_the_most_valuable_comes_first_and_then_what_is_far_from_it() {
        let all = [
            candidate(3.0, 0.0, 0),
            candidate(2.9, 0.1, u64::MAX),
            candidate(2.0, 5.0, 0xffff_ffff),
            candidate(0.1, 2.0, 0xff00_ff00_ff00_ff00),
        ];
        let choice = choose(&all, &mut by_disagreement(&all, 1), 2, 4);
        assert_eq!(indices(&choice), [0, 2]);
        assert_eq!(choice.chosen[0].distance, None);
        assert!(choice.copies.is_empty());
    }

    #[test]
    fn by_coverage_each_group_gets_one_frame_and_the_first_is_in_the_middle() {
        // Groups of three and five frames, and one frame apart.
        let places = [0.0, 0.1, 0.2, 5.0, 5.1, 5.2, 5.3, 5.4, 9.0];
        let all: Vec<Candidate> = (0u64..).zip(places).map(|(i, x)| candidate(0.0, x, 0xffff << (6 * i))).collect();
        let choice = choose(&all, &mut by_coverage(&all, 1), 3, 4);
        assert_eq!(indices(&choice), [4, 1, 8]);
        assert_eq!(choice.chosen.iter().map(|c| c.nearer).collect::<Vec<_>>(), [Some(9), Some(3), Some(1)]);
    }

    #[test]
    fn near_copies_of_a_chosen_frame_are_left_out_even_within_the_budget() {
        let all = [candidate(3.0, 0.0, 0), candidate(2.0, 4.0, 0b111), candidate(1.0, 1.0, u64::MAX)];
        let choice = choose(&all, &mut by_disagreement(&all, 1), 3, 4);
        assert_eq!(indices(&choice), [0, 2]);
        assert_eq!(choice.copies, [(1, 0)]);
    }

    proptest! {
        #[test]
        fn a_choice_has_no_frame_twice_nor_two_near_copies_and_repeats(
            raw in proptest::collection::vec((0f32..9.0, -5f32..5.0, any::<u64>()), 1..40),
            budget in 1usize..50,
            alike in 0u32..30,
            seed in any::<u64>(),
            coverage in any::<bool>(),
        ) {
            let all: Vec<Candidate> = raw.iter().map(|&(v, f, p)| candidate(v, f, p)).collect();
            let chosen = || if coverage {
                choose(&all, &mut by_coverage(&all, seed), budget, alike)
            } else {
                choose(&all, &mut by_disagreement(&all, seed), budget, alike)
            };
            let choice = chosen();
            prop_assert_eq!(&choice, &chosen());
            prop_assert!(choice.chosen.len() <= budget);
            prop_assert!(choice.chosen.len() == budget || choice.chosen.len() + choice.copies.len() == all.len());
            for (i, a) in choice.chosen.iter().enumerate() {
                for b in &choice.chosen[i + 1..] {
                    prop_assert!(a.index != b.index);
                    prop_assert!(bits(&all[a.index].fingerprint, &all[b.index].fingerprint) > alike);
                }
            }
        }

        #[test]
        fn coverage_takes_the_frame_that_shortens_the_distances_most(
            raw in proptest::collection::vec(-5f32..5.0, 2..30),
        ) {
            let all: Vec<Candidate> = raw.iter().map(|&f| candidate(0.0, f, 0)).collect();
            let features = features::standardised(&all);
            let mut rule = by_coverage(&all, 0);
            let mut open = vec![true; all.len()];
            let mut chosen: Vec<usize> = Vec::new();
            // The sum of distances to the nearest chosen frame, with one more, by its definition.
            let sum = |chosen: &[usize], more: usize| -> f32 {
                let nearest = |f: &Vec<f32>| {
                    let all = chosen.iter().chain([&more]);
                    all.map(|&c| features::distance(f, &features[c])).fold(f32::INFINITY, f32::min)
                };
                features.iter().map(nearest).sum()
            };
            while let Some(next) = rule.best(&open) {
                let best = (0..all.len()).filter(|&i| open[i]).map(|i| sum(&chosen, i)).fold(f32::INFINITY, f32::min);
                prop_assert!((sum(&chosen, next.index) - best).abs() < 1e-3);
                open[next.index] = false;
                chosen.push(next.index);
            }
            prop_assert_eq!(chosen.len(), all.len());
        }

        #[test]
        fn a_random_draw_has_the_budget_in_order(count in 0usize..60, budget in 0usize..80, seed in any::<u64>()) {
            let random = at_random(count, budget, seed);
            prop_assert_eq!(random.len(), budget.min(count));
            prop_assert!(random.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
