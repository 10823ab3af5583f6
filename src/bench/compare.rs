//! Two results beside each other: how much slower is the second, and is that beyond chance?

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::report::SCHEMA_VERSION;
use super::stats::miss_ratio_bound;
use super::verdict::Verdict;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 2000;

/// Confidence of the interval, two-sided.
const CONFIDENCE: f64 = 0.99;

/// What is compared: a quantile of the latency from the schedule.
const COMPARED: [(&str, f64); 3] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99)];

/// Why two results cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}; give a result that latency_bench --json wrote")]
    Form { path: PathBuf, why: String },
    #[error("{path}: schema version {found}; this program reads version {SCHEMA_VERSION}: measure it again")]
    Version { path: PathBuf, found: u64 },
    #[error("only {0} frames have a latency in both results; it takes 20")]
    Few(usize),
}

/// What of a result is compared.
#[derive(Debug, Deserialize)]
struct Measured {
    layer: String,
    subject: Subject,
    machine: Machine,
    frames: Columns,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Subject {
    weights_sha256: String,
    input_width: usize,
    input_height: usize,
    threads: usize,
    // Results of earlier programs do not have these.
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    pin_threads: bool,
    #[serde(default)]
    tracking: bool,
    #[serde(default)]
    realtime_priority: Option<i32>,
}

#[derive(Debug, Deserialize, PartialEq)]
struct Machine {
    cpu_model: Option<String>,
    kernel: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Columns {
    latency_us: Vec<Option<f64>>,
}

/// A quantile of the second result over that of the first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ratio {
    pub of: &'static str,
    pub first_ms: f64,
    pub second_ms: f64,
    pub ratio: f64,
    /// Bounds of the ratio at 99 % confidence.
    pub low: f64,
    pub high: f64,
}

/// How two results compare.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    pub verdict: Verdict,
    pub frames: usize,
    /// Allowed growth, as a share of one.
    pub allowed: f64,
    pub ratios: Vec<Ratio>,
    /// Frames without a result, in the first and the second.
    pub lost: [usize; 2],
    /// In what the two results were not alike.
    pub cautions: Vec<String>,
}

/// Compares the results in two files. It is a regression where a quantile is slower by more than `allowed` (a share of
/// one) with confidence, or a larger share of the frames is without a result, with confidence. It is none where the median
/// is not, with confidence (a tail's interval is too wide to show it); between the two it is not provable. A tail is judged
/// where ten frames or more lie in it.
///
/// # Errors
/// When a file cannot be used, or they have too few frames in common.
pub fn compare(first: &Path, second: &Path, allowed: f64) -> Result<Comparison, CompareError> {
    let (a, b) = (read(first)?, read(second)?);
    let mut cautions = vec![];
    for (alike, what) in [
        (a.layer == b.layer, "layer"),
        (a.subject == b.subject, "model, input, device, threads, tracking or priority"),
        (a.machine == b.machine, "machine"),
    ] {
        if !alike {
            cautions.push(format!("the two results differ in {what}"));
        }
    }
    let both = a.frames.latency_us.iter().zip(&b.frames.latency_us);
    let pairs: Vec<_> = both.filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let lost = [&a, &b].map(|m| m.frames.latency_us.iter().filter(|latency| latency.is_none()).count());
    let without = a.frames.latency_us.len().max(b.frames.latency_us.len()) - pairs.len();
    if without > 0 {
        cautions.push(format!(
            "{without} frames without a result in one of them are left out of the ratios: {} in the first, {} in the second",
            lost[0], lost[1]
        ));
    }
    if pairs.len() < 20 {
        return Err(CompareError::Few(pairs.len()));
    }
    let ratios = ratios(&pairs);
    let loses_more = {
        let [(lost_a, of_a), (lost_b, of_b)] =
            [(lost[0], a.frames.latency_us.len()), (lost[1], b.frames.latency_us.len())];
        // The lower bound on the second's share is what is left by the upper bound on that of frames with a result.
        1.0 - miss_ratio_bound(of_b - lost_b, of_b, CONFIDENCE) > miss_ratio_bound(lost_a, of_a, CONFIDENCE)
    };
    if loses_more {
        cautions.push("the second loses more of its frames".into());
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

/// Whether so many frames tell a quantile well enough to judge by: of a tail that few lie in, a bootstrap makes the interval
/// too narrow. The median always counts.
fn is_known(q: f64, frames: usize) -> bool {
    q <= 0.5 || frames as f64 * (1.0 - q) >= 10.0 - 1e-6
}

fn read(path: &Path) -> Result<Measured, CompareError> {
    let text = fs::read_to_string(path).map_err(|source| CompareError::Io { path: path.into(), source })?;
    let form = |e: serde_json::Error| CompareError::Form { path: path.into(), why: e.to_string() };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(form)?;
    match value["schema_version"].as_u64() {
        Some(found) if found != u64::from(SCHEMA_VERSION) => Err(CompareError::Version { path: path.into(), found }),
        _ => serde_json::from_value(value).map_err(form),
    }
}

/// The ratios with their intervals by the percentile bootstrap over pairs: each resample draws frames, and takes both
/// results of a frame that it draws (Efron & Tibshirani 1993, chapters 13 and 16). Frames are drawn in runs of
/// consecutive ones, since neighbours resemble each other (moving blocks: Künsch 1989).
fn ratios(pairs: &[(f64, f64)]) -> Vec<Ratio> {
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
    /// The first quantile that is slower by more than is allowed.
    fn regressed(&self) -> Option<&Ratio> {
        let judged = self.ratios.iter().zip(COMPARED).filter(|(_, (_, q))| is_known(*q, self.frames));
        judged.map(|(ratio, _)| ratio).find(|ratio| ratio.low > 1.0 + self.allowed)
    }

    /// For people; ends with a line break.
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
                None => "REGRESSION: a larger share of the frames is without a result".into(),
            },
            Verdict::NotProvable => {
                format!("not provable: the interval of the p50 holds {:.3}; measure more frames", 1.0 + self.allowed)
            }
        };
        let _ = writeln!(out, "verdict   {verdict} ({} frames in pairs)", self.frames);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn a_tail_that_grew_is_a_regression_under_an_unchanged_median() {
        let comparison = compared_when(1000, 0.05, |i, l| Some(if i % 20 == 0 { 3.0 * l } else { l })).unwrap();
        assert_eq!(comparison.verdict, Verdict::Missed);
        assert!(comparison.ratios[0].high < 1.05 && comparison.text().contains("the p99 is slower"), "{comparison:?}");
    }

    #[test]
    fn frames_that_are_lost_are_a_regression_however_fast_the_others_are() {
        let comparison = compared_when(1000, 0.05, |i, l| (i % 5 != 0).then_some(0.9 * l)).unwrap();
        assert_eq!((comparison.verdict, comparison.lost), (Verdict::Missed, [0, 200]));
        assert!(comparison.text().contains("without a result"), "{}", comparison.text());
    }

    #[test]
    fn a_few_more_lost_frames_may_be_chance() {
        let comparison = compared_when(1000, 0.05, |i, l| (i % 250 != 0).then_some(l)).unwrap();
        assert_eq!(comparison.verdict, Verdict::Met);
    }

    #[test]
    fn a_tenth_slower_is_a_regression_where_a_twentieth_is_allowed() {
        let comparison = compared(1000, 1.1, 0.05).unwrap();
        assert_eq!(comparison.verdict, Verdict::Missed);
        let median = &comparison.ratios[0];
        assert!(median.low < 1.1 && 1.1 < median.high && median.high - median.low < 0.01, "{median:?}");
        assert!(comparison.text().contains("REGRESSION"));
    }

    #[test]
    fn equals_are_no_regression_and_too_few_frames_cannot_tell() {
        assert_eq!(compared(1000, 1.0, 0.05).unwrap().verdict, Verdict::Met);
        assert_eq!(compared(25, 1.05, 0.05).unwrap().verdict, Verdict::NotProvable);
        assert!(matches!(compared(10, 1.0, 0.05), Err(CompareError::Few(10))));
    }

    #[test]
    fn what_is_no_result_or_of_another_version_is_named() {
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
