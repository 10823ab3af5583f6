//! Whether misses come in bursts, and what a run of frames is then worth.
//!
//! The bound on the miss ratio by Clopper and Pearson takes frames as independent. A stall delays
//! several frames, and a busy minute a thousand: then there are fewer independent events than
//! frames, and the bound would claim more than was seen.
//!
//! The frames are divided into blocks, in order of time, and the misses in each are counted. For
//! independent frames the variance of the counts is that of a binomial distribution; their index of
//! dispersion (Fisher 1925: variance over expected variance) is 1, and bursts raise it to the mean
//! burst length seen from a miss, once blocks are longer than bursts. Blocks of 2, 4, 8… frames are
//! tried, each with the χ² test of dispersion (Hoel 1943) at Bonferroni's level. Where one fails,
//! `frames / dispersion` is the effective number of frames (Kish 1965, "design effect").
//!
//! A run with few misses says little about how they cluster, so the slowest frames are tested as
//! well: the assumption is that misses come as the slowest frames do.

use serde::Serialize;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::record::{BenchRun, FrameRecord};

/// Blocks into which a run is divided at least.
const MIN_BLOCKS: usize = 30;

/// Level of each test. High, since a burst that is overlooked costs more than one that is none.
const LEVEL: f64 = 0.2;

/// Confidence of the dispersion's upper bound, which is what counts.
const DISPERSION_CONFIDENCE: f64 = 0.95;

/// Of the frames, one in so many counts as slow.
const SLOWEST: [usize; 2] = [100, 300];

/// Slow frames at least, if they are no more than this fraction of all.
const MIN_SLOW: usize = 20;
const MAX_SLOW_FRACTION: f64 = 0.05;

/// What was found to cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Clustering {
    Misses,
    SlowestFrames,
}

/// Bursts that were found: the misses, or the slowest frames, are not independent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bursts {
    pub of: Clustering,
    /// Frames in a block.
    pub block: usize,
    /// Upper bound of the index of dispersion over blocks of that length; above 1.
    pub dispersion: f64,
    /// Of the χ² test, before Bonferroni's correction.
    pub p_value: f64,
}

impl Bursts {
    /// How many independent frames (or misses) `count` of them are worth.
    pub fn effective(&self, count: usize) -> f64 {
        count as f64 / self.dispersion
    }

    /// What clusters, and what that makes of `frames`.
    pub fn sentence(&self, frames: usize) -> String {
        let what = match self.of {
            Clustering::Misses => "misses",
            Clustering::SlowestFrames => "the slowest frames",
        };
        let (block, effective) = (self.block, self.effective(frames));
        format!("{what} come in bursts (seen over {block} frames), so that {frames} frames count as {effective:.0}")
    }
}

/// Said of a run of `frames` in which no bursts were found: what the bound then assumes.
pub fn without_bursts(frames: usize) -> String {
    if frames as f64 * MAX_SLOW_FRACTION < MIN_SLOW as f64 {
        format!("frames are taken as independent: {frames} are too few to show bursts")
    } else {
        "frames are taken as independent: neither misses nor the slowest frames come in bursts".into()
    }
}

/// The strongest clustering of a run's misses and slowest frames, all cameras together by time.
/// `None` if independence is not rejected, or the run too short for a test.
pub fn bursts(run: &BenchRun) -> Option<Bursts> {
    let mut records: Vec<&FrameRecord> = run.records.iter().collect();
    records.sort_by_key(|r| (r.scheduled, r.camera));
    let missed: Vec<bool> = records.iter().map(|r| r.missed()).collect();
    // Frames that were never processed are the slowest.
    let latencies: Vec<u64> = records.iter().map(|r| r.until_done().unwrap_or(u64::MAX)).collect();
    bursts_of(&missed, &latencies)
}

/// The same, of frames in order of time, with latencies in any unit.
pub fn bursts_of(missed: &[bool], latencies: &[u64]) -> Option<Bursts> {
    let by_misses = dispersion(missed).map(|found| Bursts { of: Clustering::Misses, ..found });
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let by_latency = SLOWEST.into_iter().filter_map(|one_in| {
        let slow = (sorted.len() / one_in).max(MIN_SLOW);
        let least = *sorted.get(sorted.len().checked_sub(slow)?)?;
        let flags: Vec<bool> = latencies.iter().map(|&latency| latency >= least).collect();
        // Many frames may be equal to the last.
        let few = flags.iter().filter(|&&f| f).count() as f64 <= MAX_SLOW_FRACTION * flags.len() as f64;
        dispersion(&flags).filter(|_| few)
    });
    by_latency.chain(by_misses).max_by(|a, b| a.dispersion.total_cmp(&b.dispersion))
}

/// The upper bound of the dispersion of counts among groups, each with its count and its size, if
/// they differ by more than chance.
pub fn excess_dispersion(groups: impl Iterator<Item = (f64, f64)> + Clone) -> Option<f64> {
    let (counts, sizes) = groups.clone().fold((0.0, 0.0), |sum, (count, size)| (sum.0 + count, sum.1 + size));
    let ratio = counts / sizes;
    let expected = |size: f64| size * ratio;
    let deviation = |(count, size): (f64, f64)| (count - expected(size)).powi(2) / (expected(size) * (1.0 - ratio));
    let statistic: f64 = groups.clone().map(deviation).sum();
    let chi_squared = ChiSquared::new(groups.count() as f64 - 1.0).ok().filter(|_| ratio > 0.0 && ratio < 1.0)?;
    let dispersion = statistic / chi_squared.inverse_cdf(1.0 - DISPERSION_CONFIDENCE);
    (chi_squared.sf(statistic) < LEVEL).then_some(dispersion)
}

/// The largest index of dispersion that rejects independence.
fn dispersion(flags: &[bool]) -> Option<Bursts> {
    let ratio = flags.iter().filter(|&&f| f).count() as f64 / flags.len().max(1) as f64;
    if ratio == 0.0 || ratio == 1.0 {
        return None;
    }
    let lengths: Vec<usize> = (1..).map(|i| 1 << i).take_while(|block| flags.len() / block >= MIN_BLOCKS).collect();
    let found = lengths.iter().filter_map(|&block| {
        let blocks = flags.chunks_exact(block).map(|b| b.iter().filter(|&&f| f).count() as f64);
        let counts: Vec<f64> = blocks.collect();
        let mean = counts.iter().sum::<f64>() / counts.len() as f64;
        let squares: f64 = counts.iter().map(|c| (c - mean).powi(2)).sum();
        let statistic = squares / (mean * (1.0 - ratio));
        let chi_squared = ChiSquared::new((counts.len() - 1) as f64).ok().filter(|_| mean > 0.0)?;
        let p_value = chi_squared.sf(statistic);
        // The statistic of a process with dispersion d is distributed as d · χ².
        let dispersion = statistic / chi_squared.inverse_cdf(1.0 - DISPERSION_CONFIDENCE);
        let rejected = p_value < LEVEL / lengths.len() as f64;
        rejected.then_some(Bursts { of: Clustering::SlowestFrames, block, dispersion, p_value })
    });
    found.max_by(|a, b| a.dispersion.total_cmp(&b.dispersion))
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::stats::miss_ratio_bound_of;

    const FRAMES: usize = 5000;

    /// A machine that is busy now and then: for a geometric number of frames, by an exponential
    /// amount. Latencies in µs.
    struct BusyMachine {
        /// Busy times per frame.
        rate: f64,
        /// Their mean length in frames.
        length: f64,
    }

    impl BusyMachine {
        fn latencies(&self, frames: usize, rng: &mut ChaCha8Rng) -> Vec<u64> {
            let exponential = |rng: &mut ChaCha8Rng| -(1.0 - rng.random::<f64>()).ln();
            let mut delays: Vec<f64> =
                (0..frames).map(|_| 10.0 + (0..4).map(|_| 0.3 * exponential(rng)).sum::<f64>()).collect();
            for start in 0..frames {
                if rng.random::<f64>() >= self.rate {
                    continue;
                }
                let (amount, mut at) = (5.0 * exponential(rng), start);
                while at < frames {
                    delays[at] += amount;
                    at += 1;
                    if rng.random::<f64>() < 1.0 / self.length {
                        break;
                    }
                }
            }
            delays.into_iter().map(|ms| (1000.0 * ms) as u64).collect()
        }

        /// The deadline that is missed in the long run by `ratio` of the frames.
        fn deadline(&self, ratio: f64, rng: &mut ChaCha8Rng) -> u64 {
            let mut long = self.latencies(2_000_000, rng);
            let at = long.len() - (ratio * long.len() as f64) as usize;
            *long.select_nth_unstable(at).1
        }
    }

    /// The fractions of runs in which the bound is not below the true ratio: with effective frames,
    /// and with all.
    fn coverage(machine: &BusyMachine, ratio: f64, runs: usize, seed: u64) -> (f64, f64) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let deadline = machine.deadline(ratio, &mut rng);
        let (mut covered, mut plain) = (0, 0);
        for _ in 0..runs {
            let latencies = machine.latencies(FRAMES, &mut rng);
            let missed: Vec<bool> = latencies.iter().map(|&l| l > deadline).collect();
            let misses = missed.iter().filter(|&&m| m).count();
            let bursts = bursts_of(&missed, &latencies);
            let worth = |count: usize| bursts.map_or(count as f64, |b| b.effective(count));
            covered += usize::from(miss_ratio_bound_of(worth(misses), worth(FRAMES), 0.99) >= ratio);
            plain += usize::from(miss_ratio_bound_of(misses as f64, FRAMES as f64, 0.99) >= ratio);
        }
        (covered as f64 / runs as f64, plain as f64 / runs as f64)
    }

    #[test]
    fn the_bound_covers_bursty_misses_in_99_of_100_runs() {
        // 10,000 runs over all.
        for (i, (length, ratio)) in [(1.0, 0.001), (3.0, 0.001), (10.0, 0.005), (30.0, 0.001)].into_iter().enumerate() {
            let machine = BusyMachine { rate: 0.003, length };
            let (covered, plain) = coverage(&machine, ratio, 2500, i as u64);
            println!(
                "bursts of {length} frames, {ratio} missed: covered {covered:.4}, taken as independent {plain:.4}"
            );
            assert!(length == 1.0 || plain < 0.95, "bursts of {length} do no harm: {plain}");
            assert!(covered >= 0.99, "bursts of {length}: {covered}");
        }
    }

    #[test]
    fn independent_frames_keep_their_number_nearly_always() {
        let (machine, mut rng) = (BusyMachine { rate: 0.0, length: 1.0 }, ChaCha8Rng::seed_from_u64(5));
        let found =
            (0..200).filter(|_| bursts_of(&[false; FRAMES], &machine.latencies(FRAMES, &mut rng)).is_some()).count();
        // Two tests at the level of 0.2, of counts that are small and whole.
        assert!(found < 80, "{found} of 200");
    }

    #[test]
    fn bursts_of_misses_count_as_often_as_they_are_long() {
        // Five bursts of ten misses, far apart, among equal latencies.
        let mut missed = vec![false; 6400];
        [130, 1500, 2900, 4001, 6000].iter().for_each(|&at| missed[at..at + 10].fill(true));
        let found = bursts_of(&missed, &[7000; 6400]).unwrap();
        assert_eq!(found.of, Clustering::Misses);
        assert!((8.0..16.0).contains(&found.dispersion), "{found:?}");
        assert!(found.p_value < 1e-9);
    }

    #[test]
    fn a_run_that_is_too_short_or_without_difference_is_not_tested() {
        assert_eq!(bursts_of(&[false; 100], &[5; 100]), None);
        assert_eq!(bursts_of(&[true; 5000], &[5; 5000]), None);
        assert_eq!(bursts_of(&[], &[]), None);
    }
}
