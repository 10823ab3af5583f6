//! Percentiles, runs of misses, and what a number of frames can prove.

use hdrhistogram::Histogram;

/// The percentiles that are reported, as shares of one.
pub const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// Least duration that is told from zero, nanoseconds.
const UNIT_NS: u64 = 1_000;

/// Significant digits of a duration: 1 µs is resolved up to 0.2 s.
const DIGITS: u8 = 5;

/// Durations of many frames, in nanoseconds. Frames without a result count as slower than all others: leaving them
/// out would make a machine look the better the more frames it loses.
#[derive(Debug, Clone)]
pub struct Distribution {
    histogram: Histogram<u64>,
    largest: u64,
    without_result: u64,
}

impl Distribution {
    /// From one duration a frame, or `None` where it had no result.
    pub fn new(durations: impl Iterator<Item = Option<u64>>) -> Self {
        // Grows with what is recorded.
        let mut histogram =
            Histogram::new_with_bounds(UNIT_NS, 2 * UNIT_NS, DIGITS).expect("constant bounds are sound");
        histogram.auto(true);
        let mut distribution = Self { histogram, largest: 0, without_result: 0 };
        for duration in durations {
            match duration {
                Some(ns) => {
                    // Beyond an hour there is nothing to tell apart.
                    let _ = distribution.histogram.record(ns.min(3_600_000_000_000));
                    distribution.largest = distribution.largest.max(ns);
                }
                None => distribution.without_result += 1,
            }
        }
        distribution
    }

    /// The least duration that a share `quantile` of all frames did not exceed, by nearest rank, in nanoseconds;
    /// `None` where that falls among the frames without a result.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let with_result = self.histogram.len();
        let total = with_result + self.without_result;
        let rank = ((quantile * total as f64).ceil() as u64).max(1);
        // Half a rank less, so that no rounding reaches the next.
        let share = (rank as f64 - 0.5) / with_result as f64;
        (rank <= with_result).then(|| self.histogram.value_at_quantile(share).min(self.largest))
    }

    /// The largest duration, exactly; `None` where a frame had no result, or there was none.
    pub fn max(&self) -> Option<u64> {
        (self.without_result == 0 && !self.histogram.is_empty()).then_some(self.largest)
    }

    /// Upper ends in nanoseconds and counts of the buckets that hold anything: unlike percentiles, these may be added
    /// up over several runs.
    pub fn buckets(&self) -> Vec<(u64, u64)> {
        self.histogram.iter_recorded().map(|b| (b.value_iterated_to(), b.count_at_value())).collect()
    }

    /// Adds what another has counted, as if it had all been counted here.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("it grows as it must");
        self.largest = self.largest.max(other.largest);
        self.without_result += other.without_result;
    }

    /// The durations as they were counted, without those frames that had none.
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

/// One-sided upper confidence bound on the long-run share of misses, after `misses` in `frames` (Clopper & Pearson
/// 1934): the largest rate at which so few misses would still come up with probability 1 − `confidence`.
///
/// It takes misses for independent of each other. Where they come in bursts it is too bold, which is why the longest
/// run of misses is judged as well.
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

/// The least number of frames with which `misses` misses show a miss ratio of at most `ratio` at `confidence`.
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

/// Probability of at most `k` successes in `n` trials of probability `p`, 0 < p < 1: the sum of its terms, each from
/// the one before in logarithms, so that none overflows.
fn binomial_cdf(k: usize, n: usize, p: f64) -> f64 {
    if k >= n {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let odds = p.ln() - (-p).ln_1p();
    let mut term = n as f64 * (-p).ln_1p();
    let mut sum = term.exp();
    for i in 0..k {
        term += ((n - i) as f64 / (i + 1) as f64).ln() + odds;
        sum += term.exp();
    }
    sum.min(1.0)
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
        }
        assert_eq!(miss_ratio_bound(5, 5, 0.99), 1.0);
    }

    #[test]
    fn quantiles_and_bounds_of_the_same_samples_agree_with_numpy_and_scipy() {
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
    fn merged_distributions_are_the_distribution_of_all() {
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
    fn no_frames_have_no_quantiles() {
        let none = Distribution::new(std::iter::empty());
        assert_eq!((none.quantile(0.5), none.max()), (None, None));
    }

    #[test]
    fn the_longest_run_is_found_at_the_ends_too() {
        assert_eq!(longest_run([true, true, false, true].into_iter()), 2);
        assert_eq!(longest_run([false, true, true, true].into_iter()), 3);
        assert_eq!(longest_run(std::iter::empty()), 0);
    }

    proptest! {
        #[test]
        fn a_bound_lies_above_the_observed_ratio_and_falls_with_more_frames(
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
        fn frames_needed_are_enough_and_no_more_than_that(misses in 0usize..20, ratio in 0.001f64..0.5) {
            let frames = frames_needed(misses, ratio, 0.99);
            prop_assert!(miss_ratio_bound(misses, frames, 0.99) <= ratio + 1e-12);
            prop_assert!(miss_ratio_bound(misses, frames - 1, 0.99) > ratio);
        }
    }
}
