//! Whether a figure drifts over a run: by how much, and how sure that is.

use serde::Serialize;

/// Groups that a run is cut into, of which the medians are looked at.
const GROUPS: usize = 40;

/// Values of which all pairs are looked at: half a million slopes.
const MOST: usize = 1000;

/// The change of a figure from the beginning to the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trend {
    /// The median of the slopes between all pairs of points, times the length of the run (Sen 1968): no few outliers
    /// turn it.
    pub change: f64,
    /// One-sided probability that points without a trend would rise so steadily (Mann 1945, Kendall 1975; normal
    /// approximation with continuity correction).
    pub p_value: f64,
}

impl Trend {
    /// Whether it rises by more than `allowed`, and not by chance: at a p-value of 0.01.
    pub fn exceeds(&self, allowed: f64) -> bool {
        self.change > allowed && self.p_value < 0.01
    }
}

/// The trend of values that are equally far apart; none of fewer than eight.
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
    Some(Trend { change: median * (n - 1) as f64, p_value: upper_tail(z) })
}

/// As [`of`]; of values so many that their pairs are too many, as [`of_many`].
pub fn of_any(values: &[f64]) -> Option<Trend> {
    match values.len() {
        0..=MOST => of(values),
        _ => of_many(values),
    }
}

/// The trend of a long list of values, by the medians of up to `GROUPS` equal parts of it, in units of the values.
pub fn of_many(values: &[f64]) -> Option<Trend> {
    let groups = GROUPS.min(values.len() / 5);
    let median = |group: usize| {
        let part = &values[group * values.len() / groups..(group + 1) * values.len() / groups];
        let mut part = part.to_vec();
        part.sort_unstable_by(f64::total_cmp);
        part[part.len() / 2]
    };
    of(&(0..groups).map(median).collect::<Vec<_>>())
}

/// Of Kendall's S, with ties.
fn variance(values: &[f64]) -> f64 {
    let term = |n: f64| n * (n - 1.0) * (2.0 * n + 5.0);
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let ties: f64 = sorted.chunk_by(|a, b| a == b).map(|tied| term(tied.len() as f64)).sum();
    (term(values.len() as f64) - ties) / 18.0
}

/// Probability that a standard normal variable is above `z`: by Abramowitz & Stegun 1964, 7.1.26, good to 1.5e-7.
fn upper_tail(z: f64) -> f64 {
    let x = z.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * x);
    let series = [1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592];
    let erfc = series.into_iter().fold(0.0, |sum, a| (sum + a) * t) * (-x * x).exp();
    if z >= 0.0 {
        0.5 * erfc
    } else {
        1.0 - 0.5 * erfc
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_straight_rise_is_found_in_full_and_is_no_chance() {
        let trend = of_many(&(0..1000).map(|i| 5.0 + i as f64 / 1000.0).collect::<Vec<_>>()).unwrap();
        assert!((trend.change - 0.975).abs() < 0.01 && trend.exceeds(0.9) && !trend.exceeds(1.0), "{trend:?}");
    }

    #[test]
    fn a_few_outliers_and_a_fall_are_no_rise() {
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
    fn constant_and_short_lists_have_none() {
        assert_eq!(
            of(&[3.0; 20]),
            Some(Trend { change: 0.0, p_value: 0.5 }).map(|t| Trend { p_value: upper_tail(0.0), ..t })
        );
        assert_eq!(of(&[1.0; 7]), None);
        assert_eq!(of_many(&[]), None);
    }

    #[test]
    fn a_run_of_a_day_has_its_trend_without_a_slope_for_each_pair() {
        let memory: Vec<f64> = (0..86_400).map(|s| 27.0 + f64::from(s) * 1e-4).collect();
        let trend = of_any(&memory).unwrap();
        assert!((trend.change / 8.64 - 1.0).abs() < 0.05 && trend.p_value < 1e-6, "{trend:?}");
    }
}
