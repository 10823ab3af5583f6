//! Comparison of two results: how much slower is the second, and is that significant?

use std::fmt::Write;
use std::path::Path;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::stats::miss_ratio_bound;
use super::stored::{self, StoredError, StoredMachine, StoredSubject};
use super::verdict::Verdict;

/// Bootstrap resamples.
const RESAMPLES: usize = 2000;

/// Two-sided confidence of the intervals.
const CONFIDENCE: f64 = 0.99;

/// The quantiles that are compared, of the latency from the scheduled instant.
const COMPARED: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Why two results cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    Stored(#[from] StoredError),
    #[error("only {0} frames have a latency in both results; a comparison takes 20: measure more frames")]
    TooFewFrames(usize),
}

/// The fields of a result that are compared.
#[derive(Debug, Deserialize)]
struct StoredResult {
    layer: String,
    subject: StoredSubject,
    machine: StoredMachine,
    frames: StoredColumns,
}

#[derive(Debug, Deserialize)]
struct StoredColumns {
    latency_us: Vec<Option<f64>>,
}

/// A latency quantile of the second result divided by that of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    pub of: &'static str,
    pub first_ms: f64,
    pub second_ms: f64,
    pub ratio: f64,
    /// Confidence interval of the ratio, at 99 %.
    pub low: f64,
    pub high: f64,
}

/// The comparison of two results.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub verdict: Verdict,
    pub frames: usize,
    /// Allowed slowdown, as a fraction: 0.05 is 5 %.
    pub allowed: f64,
    pub ratios: Vec<Ratio>,
    /// Frames without a result, in the first and in the second.
    pub lost: [usize; 2],
    /// Differences between the two set-ups, and other limits of the comparison.
    pub cautions: Vec<String>,
}

/// Compares the results in two files, at 99 % confidence:
///
/// - a regression (`Missed`) if a quantile is slower by more than `allowed` (a fraction), or if the
///   second result loses a larger fraction of its frames;
/// - no regression (`Met`) if the median is not slower by more than `allowed` (the intervals of the
///   tails are too wide to show this);
/// - `NotProvable` otherwise.
///
/// A tail quantile is judged only if at least ten frames lie beyond it.
///
/// # Errors
/// When a file cannot be used, or they have too few frames in common.
pub fn compare(first: &Path, second: &Path, allowed: f64) -> Result<Comparison, CompareError> {
    let (a, b): (StoredResult, StoredResult) = (stored::read(first)?, stored::read(second)?);
    let mut cautions = vec![];
    for (alike, what) in [
        (a.layer == b.layer, "layer"),
        (a.subject == b.subject, "model, input, device, threads, tracking or priority"),
        (a.machine == b.machine, "machine, kernel or power mode"),
    ] {
        if !alike {
            cautions.push(format!("the results differ in {what}"));
        }
    }
    let both = a.frames.latency_us.iter().zip(&b.frames.latency_us);
    let pairs: Vec<_> = both.filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let lost = [&a, &b].map(|m| m.frames.latency_us.iter().filter(|latency| latency.is_none()).count());
    let without = a.frames.latency_us.len().max(b.frames.latency_us.len()) - pairs.len();
    if without > 0 {
        cautions.push(format!(
            "{without} frames without a result in one of the two are excluded from the ratios: {} in the first, {} in the second",
            lost[0], lost[1]
        ));
    }
    if pairs.len() < 20 {
        return Err(CompareError::TooFewFrames(pairs.len()));
    }
    let ratios = ratios(&pairs);
    let loses_more = {
        let [(lost_a, of_a), (lost_b, of_b)] =
            [(lost[0], a.frames.latency_us.len()), (lost[1], b.frames.latency_us.len())];
        // The lower bound of the loss ratio is one minus the upper bound of the success ratio.
        1.0 - miss_ratio_bound(of_b - lost_b, of_b, CONFIDENCE) > miss_ratio_bound(lost_a, of_a, CONFIDENCE)
    };
    if loses_more {
        cautions.push("the second result loses a larger fraction of its frames".into());
    }
    let mut comparison =
        Comparison { verdict: Verdict::NotProvable, frames: pairs.len(), allowed, ratios, lost, cautions };
    if loses_more || comparison.regressed().is_some() {
        comparison.verdict = Verdict::Missed;
    } else if comparison.ratios[0].high <= 1.0 + allowed {
        comparison.verdict = Verdict::Met;
    }
    Ok(comparison)
}

/// Whether there are enough frames to judge a quantile: with few frames in the tail, a bootstrap
/// interval is too narrow. The median is always judged.
fn is_judged(q: f64, frames: usize) -> bool {
    q <= 0.5 || frames as f64 * (1.0 - q) >= 10.0 - 1e-6
}

/// The ratios with percentile-bootstrap intervals over pairs: each resample draws frames with both
/// of their latencies (Efron & Tibshirani 1993, chapters 13 and 16). Frames are drawn in moving
/// blocks (Künsch 1989), since successive latencies are correlated.
pub(crate) fn ratios(pairs: &[(f64, f64)]) -> Vec<Ratio> {
    let n = pairs.len();
    let block = (n as f64).cbrt().round() as usize;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut first, mut second) = (Vec::with_capacity(n), Vec::with_capacity(n));
    let mut resampled = vec![Vec::with_capacity(RESAMPLES); COMPARED.len()];
    for _ in 0..RESAMPLES {
        first.clear();
        second.clear();
        while first.len() < n {
            let start = random.random_range(0..=n - block);
            let (a, b): (Vec<f64>, Vec<f64>) = pairs[start..start + block].iter().copied().unzip();
            first.extend(a);
            second.extend(b);
        }
        for (ratios, (_, q)) in resampled.iter_mut().zip(COMPARED) {
            ratios.push(quantile(&mut second, q) / quantile(&mut first, q));
        }
    }
    let (mut first, mut second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let tail = (1.0 - CONFIDENCE) / 2.0;
    COMPARED
        .iter()
        .zip(&mut resampled)
        .map(|(&(of, q), resampled)| {
            let (a, b) = (quantile(&mut first, q), quantile(&mut second, q));
            let (low, high) = (quantile(resampled, tail), quantile(resampled, 1.0 - tail));
            Ratio { of, first_ms: a / 1e3, second_ms: b / 1e3, ratio: b / a, low, high }
        })
        .collect()
}

/// By nearest rank; reorders the values.
fn quantile(values: &mut [f64], q: f64) -> f64 {
    let rank = ((q * values.len() as f64).ceil() as usize).clamp(1, values.len()) - 1;
    *values.select_nth_unstable_by(rank, f64::total_cmp).1
}

impl Comparison {
    /// The first quantile that is slower than allowed.
    fn regressed(&self) -> Option<&Ratio> {
        let judged = self.ratios.iter().zip(COMPARED).filter(|(_, (_, q))| is_judged(*q, self.frames));
        judged.map(|(ratio, _)| ratio).find(|ratio| ratio.low > 1.0 + self.allowed)
    }

    /// Human-readable; ends with a line break.
    pub fn text(&self) -> String {
        let mut out = format!("{:6}{:>11}{:>11}{:>8}   99 % interval\n", "", "first ms", "second ms", "ratio");
        for r in &self.ratios {
            let _ = writeln!(
                out,
                "{:6}{:11.3}{:11.3}{:8.3}   {:.3} to {:.3}",
                r.of, r.first_ms, r.second_ms, r.ratio, r.low, r.high
            );
        }
        for caution in &self.cautions {
            let _ = writeln!(out, "caution   {caution}");
        }
        let allowed = self.allowed * 100.0;
        let verdict = match self.verdict {
            Verdict::Met => format!("no regression: the p50 is slower by at most {allowed} %"),
            Verdict::Missed => match self.regressed() {
                Some(ratio) => format!("REGRESSION: the {} is slower by more than {allowed} %", ratio.of),
                None => "REGRESSION: a larger fraction of the frames has no result".into(),
            },
            Verdict::NotProvable => {
                format!("not provable: the interval of the p50 contains {:.3}; measure more frames", 1.0 + self.allowed)
            }
        };
        let _ = writeln!(out, "verdict   {verdict} ({} paired frames)", self.frames);
        out
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report::SCHEMA_VERSION;

    /// Two results, the second slower by a factor.
    fn compared(frames: usize, factor: f64, allowed: f64) -> Result<Comparison, CompareError> {
        compared_when(frames, allowed, |_, latency| Some(latency * factor))
    }

    /// Two results, of which `change` makes the second: from a frame's number and latency.
    fn compared_when(
        frames: usize,
        allowed: f64,
        change: impl Fn(usize, f64) -> Option<f64>,
    ) -> Result<Comparison, CompareError> {
        let folder = tempfile::tempdir().unwrap();
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let first: Vec<f64> = (0..frames).map(|_| 10_000.0 + random.random_range(-300.0..300.0)).collect();
        let mut again = |(i, l): (usize, &f64)| change(i, l + random.random_range(-300.0..300.0));
        let second: Vec<_> = first.iter().enumerate().map(&mut again).collect();
        let first = first.into_iter().map(Some).collect();
        let paths = [("a", first), ("b", second)].map(|(name, latency_us)| {
            let path = folder.path().join(name);
            let subject = serde_json::json!({"weights_sha256": "x", "input_width": 1, "input_height": 1, "threads": 1});
            let value = serde_json::json!({
                "schema_version": SCHEMA_VERSION, "layer": "pipeline", "subject": subject,
                "machine": {"cpu_model": "c", "kernel": "k"}, "frames": {"latency_us": latency_us},
            });
            fs::write(&path, value.to_string()).unwrap();
            path
        });
        compare(&paths[0], &paths[1], allowed)
    }

    #[test]
    fn a_slower_tail_is_a_regression_with_an_equal_median() {
        let comparison = compared_when(1000, 0.05, |i, l| Some(if i % 20 == 0 { 3.0 * l } else { l })).unwrap();
        assert_eq!(comparison.verdict, Verdict::Missed);
        assert!(comparison.ratios[0].high < 1.05 && comparison.text().contains("the p99 is slower"), "{comparison:?}");
    }

    #[test]
    fn losing_more_frames_is_a_regression_at_any_speed() {
        let comparison = compared_when(1000, 0.05, |i, l| (i % 5 != 0).then_some(0.9 * l)).unwrap();
        assert_eq!((comparison.verdict, comparison.lost), (Verdict::Missed, [0, 200]));
        assert!(comparison.text().contains("has no result"), "{}", comparison.text());
    }

    #[test]
    fn a_few_more_lost_frames_may_be_chance() {
        let comparison = compared_when(1000, 0.05, |i, l| (i % 250 != 0).then_some(l)).unwrap();
        assert_eq!(comparison.verdict, Verdict::Met);
    }

    #[test]
    fn ten_percent_slower_is_a_regression_if_five_are_allowed() {
        let comparison = compared(1000, 1.1, 0.05).unwrap();
        assert_eq!(comparison.verdict, Verdict::Missed);
        let median = &comparison.ratios[0];
        assert!(median.low < 1.1 && 1.1 < median.high && median.high - median.low < 0.01, "{median:?}");
        assert!(comparison.text().contains("REGRESSION"));
    }

    #[test]
    fn equal_results_pass_and_too_few_frames_prove_nothing() {
        assert_eq!(compared(1000, 1.0, 0.05).unwrap().verdict, Verdict::Met);
        assert_eq!(compared(25, 1.05, 0.05).unwrap().verdict, Verdict::NotProvable);
        assert!(matches!(compared(10, 1.0, 0.05), Err(CompareError::TooFewFrames(10))));
    }

    #[test]
    fn invalid_files_and_other_versions_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for (text, expected) in
            [("{", "x.json"), ("{\"schema_version\": 1}", "schema version 1"), ("{}", "missing field")]
        {
            fs::write(&path, text).unwrap();
            let error = compare(&path, &path, 0.05).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("x.json"), "{error}");
        }
    }
}
