//! Latency percentiles, runs of misses, and confidence bounds on the miss ratio.

use hdrhistogram::Histogram;
use statrs::distribution::{Binomial, DiscreteCDF};
use statrs::function::beta::beta_reg;

/// The percentiles that are reported, with their quantiles.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Smallest duration distinguished from zero, nanoseconds.
const UNIT_NS: u64 = 1_000;

/// Significant digits of a duration: 1 µs is resolved up to 0.2 s.
const DIGITS: u8 = 5;

/// Distribution of durations, in nanoseconds. Frames without a result rank above all others: if
/// they were left out, a machine would look faster the more frames it loses.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    largest: u64,
    without_result: u64,
}

impl Distribution {
    /// From one duration per frame, `None` for a frame without a result.
    pub fn new(durations: impl Iterator<Item = Option<u64>>) -> Self {
        // It resizes itself to the values recorded.
        let mut histogram =
            Histogram::new_with_bounds(UNIT_NS, 2 * UNIT_NS, DIGITS).expect("constant bounds are sound");
        histogram.auto(true);
        let mut distribution = Self { histogram, largest: 0, without_result: 0 };
        for duration in durations {
            match duration {
                Some(ns) => {
                    // An hour and more are the same.
                    let _ = distribution.histogram.record(ns.min(3_600_000_000_000));
                    distribution.largest = distribution.largest.max(ns);
                }
                None => distribution.without_result += 1,
            }
        }
        distribution
    }

    /// The `quantile` (0 to 1) of all frames by nearest rank, in nanoseconds. `None` if it falls
    /// among the frames without a result.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let with_result = self.histogram.len();
        let total = with_result + self.without_result;
        let rank = ((quantile * total as f64).ceil() as u64).max(1);
        // Half a rank less, so that rounding does not reach the next one.
        let fraction = (rank as f64 - 0.5) / with_result as f64;
        (rank <= with_result).then(|| self.histogram.value_at_quantile(fraction).min(self.largest))
    }

    /// The exact maximum. `None` if a frame had no result, or there are no frames.
    pub fn max(&self) -> Option<u64> {
        (self.without_result == 0 && !self.histogram.is_empty()).then_some(self.largest)
    }

    /// Upper bounds in nanoseconds and counts of the buckets that are not empty. Unlike
    /// percentiles, counts of several runs can be added.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.histogram.iter_recorded().map(|b| (b.value_iterated_to(), b.count_at_value())).collect()
    }

    /// Adds the counts of another distribution.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("it resizes itself");
        self.largest = self.largest.max(other.largest);
        self.without_result += other.without_result;
    }

    /// The histogram of the frames that had a result.
    pub fn histogram(&self) -> &Histogram<u64> {
        &self.histogram
    }

    /// Frames that had no result.
    pub fn without_result(&self) -> u64 {
        self.without_result
    }
}

/// Length of the longest run of `true`.
pub fn longest_run(flags: impl Iterator<Item = bool>) -> usize {
    let (mut longest, mut current) = (0, 0);
    for flag in flags {
        current = if flag { current + 1 } else { 0 };
        longest = longest.max(current);
    }
    longest
}

/// One-sided upper confidence bound on the long-run miss ratio, given `misses` in `frames` (Clopper
/// & Pearson 1934): the ratio at which at most `misses` would occur with probability 1 −
/// `confidence`.
///
/// Found by bisection of the binomial distribution: the quantile of the beta distribution, which is
/// the same in theory, is off by 0.02 % for a million frames in statrs 0.19.
///
/// It assumes that misses are independent; see [`bursts`](super::bursts) for what is done about
/// that.
pub fn miss_ratio_bound(misses: usize, frames: usize, confidence: f64) -> f64 {
    if misses >= frames {
        return 1.0;
    }
    let (mut low, mut high) = (misses as f64 / frames as f64, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if binomial_cdf(misses, frames, middle) > 1.0 - confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// [`miss_ratio_bound`] for effective numbers, which need not be whole: by the continuation of the
/// binomial distribution, the incomplete beta function.
pub fn miss_ratio_bound_of(misses: f64, frames: f64, confidence: f64) -> f64 {
    if misses >= frames {
        return 1.0;
    }
    let (mut low, mut high) = (misses / frames, 1.0);
    for _ in 0..100 {
        let middle = 0.5 * (low + high);
        if beta_reg(misses + 1.0, frames - misses, middle) < confidence {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The least number of frames for which `misses` misses prove a miss ratio of at most `ratio` at
/// `confidence`.
pub fn frames_needed(misses: usize, ratio: f64, confidence: f64) -> usize {
    let enough = |frames: usize| binomial_cdf(misses, frames, ratio) <= 1.0 - confidence;
    let mut high = misses + 1;
    while !enough(high) {
        high *= 2;
    }
    let mut low = misses;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if enough(middle) {
            high = middle;
        } else {
            low = middle;
        }
    }
    high
}

/// Probability of at most `k` successes in `n` trials of probability `p`.
fn binomial_cdf(k: usize, n: usize, p: f64) -> f64 {
    Binomial::new(p, n as u64).expect("p is a probability").cdf(k as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_agree_with_scipy() {
        // scipy 1.17.1: scipy.stats.beta.ppf(confidence, misses + 1, frames - misses)
        for (misses, frames, confidence, expected) in [
            (0, 100, 0.99, 0.045_007_413_978_564_045),
            (1, 100, 0.99, 0.064_542_732_048_581_63),
            (0, 4603, 0.99, 0.000_999_971_167_358_389_8),
            (0, 4602, 0.99, 0.001_000_188_349_218_627_3),
            (3, 1000, 0.95, 0.007_735_244_718_479_458),
            (50, 100, 0.99, 0.619_282_533_093_047_5),
            (99, 100, 0.9, 0.998_946_949_690_454_4),
            (17, 4800, 0.99, 0.006_098_338_669_477_908),
            (1000, 100_000, 0.999, 0.011_010_659_622_525_24),
        ] {
            let bound = miss_ratio_bound(misses, frames, confidence);
            assert!((bound / expected - 1.0).abs() < 1e-9, "{misses} of {frames}: {bound}, not {expected}");
            let continued = miss_ratio_bound_of(misses as f64, frames as f64, confidence);
            assert!((continued / expected - 1.0).abs() < 1e-3, "{misses} of {frames}: {continued}, not {expected}");
        }
        assert_eq!(miss_ratio_bound(5, 5, 0.99), 1.0);
    }

    #[test]
    fn quantiles_and_bounds_agree_with_numpy_and_scipy() {
        // tests/reference/bench_stats.py made the numbers.
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/reference/bench_stats.json")).unwrap();
        let us = |value: &serde_json::Value| value.as_u64().unwrap();
        let samples = reference["samples_us"].as_array().unwrap().iter().map(|s| Some(us(s) * 1_000));
        let distribution = Distribution::new(samples);
        for (quantile, expected) in reference["quantiles_us"].as_object().unwrap() {
            let found = distribution.quantile(quantile.parse().unwrap()).unwrap();
            // The upper end of its bucket of a microsecond.
            assert_eq!(found / 1_000, us(expected), "{quantile}");
        }
        assert_eq!(distribution.max(), Some(us(&reference["max_us"]) * 1_000));
        for case in reference["bounds"].as_array().unwrap() {
            let (misses, frames) = (us(&case["misses"]) as usize, us(&case["frames"]) as usize);
            let bound = miss_ratio_bound(misses, frames, case["confidence"].as_f64().unwrap());
            assert!((bound / case["bound"].as_f64().unwrap() - 1.0).abs() < 1e-9, "{case}: {bound}");
        }
    }

    #[test]
    fn frames_needed_agree_with_scipy() {
        for (misses, ratio, expected) in
            [(0, 0.001, 4603), (0, 0.01, 459), (0, 0.05, 90), (1, 0.01, 662), (1, 0.05, 130), (5, 0.001, 13_105)]
        {
            assert_eq!(frames_needed(misses, ratio, 0.99), expected);
        }
    }

    #[test]
    fn quantiles_of_one_to_a_thousand_milliseconds() {
        let all = Distribution::new((1..=1000).map(|ms| Some(ms * 1_000_000)));
        for (quantile, expected_ms) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = all.quantile(quantile).unwrap() as f64 / 1e6;
            assert!((found / expected_ms as f64 - 1.0).abs() < 1e-3, "{quantile}: {found}");
        }
        assert_eq!(all.max(), Some(1_000_000_000));
    }

    #[test]
    fn a_microsecond_is_resolved_at_a_hundred_milliseconds() {
        let two = Distribution::new([Some(100_000_000), Some(100_001_500)].into_iter());
        assert!(two.quantile(0.5).unwrap().abs_diff(100_000_000) <= 1_000);
        assert_eq!(two.buckets().len(), 2);
    }

    #[test]
    fn merging_adds_distributions() {
        let durations = |from: u64, to: u64| (from..to).map(|i| (i % 7 != 0).then_some(i * i * 1_000));
        let mut merged = Distribution::new(durations(1, 300));
        merged.merge(&Distribution::new(durations(300, 500)));
        let all = Distribution::new(durations(1, 500));
        assert_eq!((merged.buckets(), merged.without_result()), (all.buckets(), all.without_result()));
        assert_eq!(merged.quantile(0.8), all.quantile(0.8));
    }

    #[test]
    fn frames_without_a_result_are_slower_than_all_others() {
        let one_lost = (1..=99).map(|ms| Some(ms * 1_000_000)).chain([None]);
        let distribution = Distribution::new(one_lost);
        assert!(distribution.quantile(0.99).is_some());
        assert_eq!(distribution.quantile(0.999), None);
        assert_eq!(distribution.max(), None);
        let all_lost = Distribution::new([None, None].into_iter());
        assert_eq!(all_lost.quantile(0.5), None);
    }

    #[test]
    fn an_empty_distribution_has_no_quantiles() {
        let none = Distribution::new(std::iter::empty());
        assert_eq!((none.quantile(0.5), none.max()), (None, None));
    }

    #[test]
    fn the_longest_run_is_found_at_both_ends() {
        assert_eq!(longest_run([true, true, false, true].into_iter()), 2);
        assert_eq!(longest_run([false, true, true, true].into_iter()), 3);
        assert_eq!(longest_run(std::iter::empty()), 0);
    }

    proptest! {
        #[test]
        fn the_bound_is_above_the_ratio_and_falls_with_more_frames(
            misses in 0usize..50,
            frames in 50usize..5000,
            confidence in 0.5f64..0.999,
        ) {
            let bound = miss_ratio_bound(misses, frames, confidence);
            prop_assert!(bound > misses as f64 / frames as f64 && bound <= 1.0);
            prop_assert!(miss_ratio_bound(misses, frames + 1, confidence) < bound);
            prop_assert!(miss_ratio_bound(misses + 1, frames, confidence) > bound);
        }

        #[test]
        fn frames_needed_are_the_fewest_that_suffice(misses in 0usize..20, ratio in 0.001f64..0.5) {
            let frames = frames_needed(misses, ratio, 0.99);
            prop_assert!(miss_ratio_bound(misses, frames, 0.99) <= ratio + 1e-12);
            prop_assert!(miss_ratio_bound(misses, frames - 1, 0.99) > ratio);
        }
    }
}
