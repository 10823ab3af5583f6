//! Trend tests: does a figure drift over a run, by how much, and is that significant?
//!
//! Theil–Sen slope with the Mann–Kendall test.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

/// Blocks that a long list is divided into; their medians are tested.
const BLOCKS: usize = 40;

/// Most values of which all pairs are compared: half a million slopes.
const MAX_PAIRED: usize = 1000;

/// The change of a figure over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// Median of the slopes between all pairs of points, times the length of the run (Sen 1968):
    /// robust to outliers.
    pub change: f64,
    /// One-sided p-value of a rising trend (Mann 1945, Kendall 1975; normal approximation with
    /// continuity correction).
    pub p_value: f64,
}

impl Trend {
    /// Whether it rises by more than `allowed`, significantly: with a p-value below 0.01.
    pub fn exceeds(&self, allowed: f64) -> bool {
        self.change > allowed && self.p_value < 0.01
    }
}

/// The trend of equidistant values. `None` if there are fewer than eight.
pub fn of(values: &[f64]) -> Option<Trend> {
    let n = values.len();
    if n < 8 {
        return None;
    }
    let mut slopes = Vec::with_capacity(n * (n - 1) / 2);
    let mut s = 0i64;
    for i in 0..n {
        for j in i + 1..n {
            let rise = values[j] - values[i];
            slopes.push(rise / (j - i) as f64);
            s += if rise > 0.0 { 1 } else { -i64::from(rise < 0.0) };
        }
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let middle = slopes.len() / 2;
    let median = if slopes.len() % 2 == 1 { slopes[middle] } else { 0.5 * (slopes[middle - 1] + slopes[middle]) };
    let deviation = variance(values).sqrt();
    let z = if s == 0 || deviation == 0.0 { 0.0 } else { (s - s.signum()) as f64 / deviation };
    Some(Trend { change: median * (n - 1) as f64, p_value: Normal::standard().sf(z) })
}

/// [`of`] for short lists, [`of_many`] for long ones.
pub fn of_any_length(values: &[f64]) -> Option<Trend> {
    match values.len() {
        0..=MAX_PAIRED => of(values),
        _ => of_many(values),
    }
}

/// The trend of a long list, from the medians of up to `BLOCKS` equal blocks; in units of the
/// values.
pub fn of_many(values: &[f64]) -> Option<Trend> {
    let groups = BLOCKS.min(values.len() / 5);
    let median = |group: usize| {
        let part = &values[group * values.len() / groups..(group + 1) * values.len() / groups];
        let mut part = part.to_vec();
        part.sort_unstable_by(f64::total_cmp);
        part[part.len() / 2]
    };
    of(&(0..groups).map(median).collect::<Vec<_>>())
}

/// Variance of Kendall's S, corrected for ties.
fn variance(values: &[f64]) -> f64 {
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(values.len() as f64) - ties) / 18.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_rise_is_found_and_significant() {
        let trend = of_many(&(0..1000).map(|i| 5.0 + i as f64 / 1000.0).collect::<Vec<_>>()).unwrap();
        assert!((trend.change - 0.975).abs() < 0.01 && trend.exceeds(0.9) && !trend.exceeds(1.0), "{trend:?}");
    }

    #[test]
    fn outliers_and_a_fall_are_not_a_rise() {
        let outliers: Vec<_> = (0..1000).map(|i| if i > 950 && i % 5 == 0 { 90.0 } else { (i % 3) as f64 }).collect();
        assert!(!of_many(&outliers).unwrap().exceeds(0.1));
        assert!(!of_many(&(0..1000).map(|i| -f64::from(i)).collect::<Vec<_>>()).unwrap().exceeds(0.0));
    }

    #[test]
    fn trends_agree_with_scipy() {
        // tests/reference/bench_stats.py made the numbers.
        let reference: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/reference/bench_stats.json")).unwrap();
        for case in reference["trends"].as_array().unwrap() {
            let values: Vec<_> = case["values"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
            let trend = of(&values).unwrap();
            let expected = |field: &str| case[field].as_f64().unwrap();
            assert!((trend.change - expected("change")).abs() < 1e-9, "{trend:?}");
            assert!((trend.p_value - expected("p_value")).abs() < 1e-6, "{trend:?}");
        }
    }

    #[test]
    fn constant_lists_have_no_change_and_short_ones_no_trend() {
        assert_eq!(of(&[3.0; 20]), Some(Trend { change: 0.0, p_value: 0.5 }));
        assert_eq!(of(&[1.0; 7]), None);
        assert_eq!(of_many(&[]), None);
    }

    #[test]
    fn a_run_of_a_day_has_a_trend_too() {
        let memory: Vec<f64> = (0..86_400).map(|s| 27.0 + f64::from(s) * 1e-4).collect();
        let trend = of_any_length(&memory).unwrap();
        assert!((trend.change / 8.64 - 1.0).abs() < 0.05 && trend.p_value < 1e-6, "{trend:?}");
    }
}
