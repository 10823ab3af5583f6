//! Calibration: from the histogram of a tensor's values to its quantization range.
//!
//! All four methods are checked against `tests/reference/calibration.py`.

use clap::ValueEnum;
use peregrine_engine::quantization::TensorScale;
use serde::{Deserialize, Serialize};

/// Bins of a [`Histogram`].
pub const BINS: usize = 2048;

/// Histogram of a tensor's values: [`BINS`] equal bins from `low` to `high`, the minimum and
/// maximum.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    pub low: f32,
    pub high: f32,
    pub counts: Vec<u64>,
}

impl Histogram {
    /// An empty histogram; the range is widened to contain zero.
    pub fn new(low: f32, high: f32) -> Self {
        Self { low: low.min(0.0), high: high.max(0.0), counts: vec![0; BINS] }
    }

    /// Adds values; those outside the range count in the outermost bins.
    pub fn add(&mut self, values: &[f32]) {
        let bins = self.counts.len();
        let per_value = bins as f32 / (self.high - self.low).max(f32::MIN_POSITIVE);
        for &value in values {
            let bin = ((value - self.low) * per_value) as usize;
            self.counts[bin.min(bins - 1)] += 1;
        }
    }

    /// Centre of a bin.
    fn centre(&self, bin: usize) -> f64 {
        self.edge(bin) + self.width() / 2.0
    }

    /// Lower edge of a bin.
    fn edge(&self, bin: usize) -> f64 {
        f64::from(self.low) + bin as f64 * self.width()
    }

    fn width(&self) -> f64 {
        (f64::from(self.high) - f64::from(self.low)) / self.counts.len() as f64
    }
}

/// A method to choose a tensor's quantization range.
pub trait Calibrator {
    /// The range outside which values saturate; it contains zero.
    fn range(&self, histogram: &Histogram) -> (f32, f32);
}

/// The full range.
pub struct MinMax;

/// A percentile of the values: clipped at the upper end, or equally at both if values can be
/// negative.
pub struct Percentile {
    /// Fraction of the values that do not saturate: 0…1.
    pub kept: f64,
}

/// The range with the least mean squared quantization error, both ends scaled by the same factor.
pub struct Mse;

/// The range whose quantized distribution has the least Kullback–Leibler divergence from the
/// original, both ends scaled by the same factor (Migacz 2017, "8-bit Inference with TensorRT";
/// there one-sided, over magnitudes).
pub struct Kl;

impl Calibrator for MinMax {
    fn range(&self, histogram: &Histogram) -> (f32, f32) {
        (histogram.low, histogram.high)
    }
}

impl Calibrator for Percentile {
    fn range(&self, h: &Histogram) -> (f32, f32) {
        let total: u64 = h.counts.iter().sum();
        let signed = h.low < 0.0;
        let cut = total as f64 * (1.0 - self.kept) / if signed { 2.0 } else { 1.0 };
        // The outermost bins whose sum stays within the cut.
        let spare = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut sum = 0u64;
            counts
                .take_while(|&&c| {
                    sum += c;
                    sum as f64 <= cut
                })
                .count()
        };
        let upper = h.edge(h.counts.len() - spare(&mut h.counts.iter().rev())) as f32;
        let lower = if signed { h.edge(spare(&mut h.counts.iter())) as f32 } else { h.low };
        (lower.min(0.0), upper.max(0.0))
    }
}

impl Calibrator for Mse {
    fn range(&self, h: &Histogram) -> (f32, f32) {
        let error = |&(low, high): &(f32, f32)| {
            let scale = TensorScale::spanning(low, high);
            let squared = |(bin, &count): (usize, &u64)| {
                let centre = h.centre(bin);
                let back = f64::from(scale.dequantize(scale.quantize(centre as f32)));
                count as f64 * (centre - back).powi(2)
            };
            h.counts.iter().enumerate().filter(|(_, &c)| c > 0).map(squared).sum::<f64>()
        };
        let candidates = (20..=100).rev().map(|percent| shrunk(h, percent as f32 / 100.0));
        least(candidates, error)
    }
}

impl Calibrator for Kl {
    fn range(&self, h: &Histogram) -> (f32, f32) {
        let bins = h.counts.len();
        let zero_bin =
            ((0.0 - f64::from(h.low)) / h.width().max(f64::MIN_POSITIVE)).floor().min(bins as f64 - 1.0) as usize;
        let mut counts: Vec<f64> = h.counts.iter().map(|&c| c as f64).collect();
        // The many exact zeros after an activation would dominate, although zero is always
        // represented exactly.
        counts[zero_bin] = if zero_bin + 1 < bins { counts[zero_bin + 1] } else { counts[bins - 2] };
        let candidates = (13..=100).rev().filter_map(|percent| {
            let first = (zero_bin * (100 - percent)) / 100;
            let past = bins - (bins - 1 - zero_bin) * (100 - percent) / 100;
            (past - first >= 256).then_some((first, past))
        });
        let (first, past) = least(candidates, |&(first, past)| divergence(&counts, first, past));
        ((h.edge(first) as f32).min(0.0), (h.edge(past) as f32).max(0.0))
    }
}

/// Both ends moved towards zero.
fn shrunk(h: &Histogram, factor: f32) -> (f32, f32) {
    (h.low * factor, h.high * factor)
}

/// The candidate with the least cost, the first of equals.
fn least<T>(candidates: impl Iterator<Item = T>, cost: impl Fn(&T) -> f64) -> T {
    let mut costed = candidates.map(|c| (cost(&c), c));
    let first = costed.next().expect("there is a candidate");
    costed.fold(first, |best, next| if next.0 < best.0 { next } else { best }).1
}

/// KL(P ‖ Q): P is `counts[first..past]` with the counts outside added to its outermost bins; Q are
/// the same bins without them, merged into 256 levels, each spread evenly over its non-empty bins.
fn divergence(counts: &[f64], first: usize, past: usize) -> f64 {
    let inside = &counts[first..past];
    let bins = inside.len();
    let mut p = inside.to_vec();
    p[0] += counts[..first].iter().sum::<f64>();
    p[bins - 1] += counts[past..].iter().sum::<f64>();
    let mut q = vec![0.0; bins];
    for level in 0..256 {
        let range = level * bins / 256..(level + 1) * bins / 256;
        let filled = inside[range.clone()].iter().filter(|&&c| c > 0.0).count().max(1);
        let share = inside[range.clone()].iter().sum::<f64>() / filled as f64;
        for bin in range.filter(|&b| inside[b] > 0.0) {
            q[bin] = share;
        }
    }
    let (p_sum, q_sum) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
    if p_sum == 0.0 || q_sum == 0.0 {
        return f64::INFINITY;
    }
    let term = |(&p, &q): (&f64, &f64)| {
        let (p, q) = (p / p_sum, (q / q_sum).max(1e-12));
        if p > 0.0 {
            p * (p / q).ln()
        } else {
            0.0
        }
    };
    p.iter().zip(&q).map(term).sum()
}

/// Calibration methods by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CalibrationMethod {
    /// The full range.
    MinMax,
    /// The 99.99th percentile.
    Percentile,
    /// Least mean squared error.
    Mse,
    /// Least Kullback-Leibler divergence.
    Kl,
}

impl CalibrationMethod {
    pub fn calibrator(self) -> Box<dyn Calibrator> {
        match self {
            CalibrationMethod::MinMax => Box::new(MinMax),
            CalibrationMethod::Percentile => Box::new(Percentile { kept: 0.9999 }),
            CalibrationMethod::Mse => Box::new(Mse),
            CalibrationMethod::Kl => Box::new(Kl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Case {
        name: String,
        low: f32,
        high: f32,
        counts: Vec<u64>,
        min_max: (f32, f32),
        percentile: (f32, f32),
        mse: (f32, f32),
        kl: (f32, f32),
    }

    #[test]
    fn every_method_chooses_the_range_that_numpy_finds() {
        let text = include_str!("../../../tests/reference/calibration.json");
        let cases: Vec<Case> = serde_json::from_str(text).unwrap();
        assert!(cases.len() >= 4);
        for case in cases {
            let h = Histogram { low: case.low, high: case.high, counts: case.counts };
            let expected = [case.min_max, case.percentile, case.mse, case.kl];
            for (method, expected) in CalibrationMethod::value_variants().iter().zip(expected) {
                let found = method.calibrator().range(&h);
                let near = |a: f32, b: f32| (a - b).abs() <= 1e-5 * (case.high - case.low);
                assert!(
                    near(found.0, expected.0) && near(found.1, expected.1),
                    "{}, {method:?}: {found:?}, not {expected:?}",
                    case.name
                );
            }
        }
    }

    #[test]
    fn a_constant_tensor_has_a_usable_range() {
        let mut h = Histogram::new(0.0, 0.0);
        h.add(&[0.0; 10]);
        for method in CalibrationMethod::value_variants() {
            let (low, high) = method.calibrator().range(&h);
            assert!(TensorScale::spanning(low, high).scale > 0.0, "{method:?}");
        }
    }

    #[test]
    fn values_are_counted_in_their_bins() {
        let mut h = Histogram::new(-1.0, 3.0);
        h.add(&[-1.0, 3.0, 1.0, 5.0]);
        assert_eq!((h.counts[0], h.counts[BINS / 2], h.counts[BINS - 1]), (1, 1, 2));
    }
}
