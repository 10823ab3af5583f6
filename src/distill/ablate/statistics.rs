//! Means over a few seeds with confidence intervals, and paired differences between rows.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, StudentsT};

/// A mean and its 95 % confidence interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub mean: f64,
    /// Half the interval's width, by Student's t; `None` for a single value.
    pub half_width: Option<f64>,
    pub n: usize,
}

/// Significance of a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Better,
    Worse,
    /// The interval contains zero, or there is none yet.
    Open,
}

impl Summary {
    /// Of values assumed to be normally distributed; `None` if there are none.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        if n == 0 {
            return None;
        }
        let mean = values.iter().sum::<f64>() / n as f64;
        let half_width = (n > 1).then(|| {
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1) as f64;
            t(n - 1) * (variance / n as f64).sqrt()
        });
        Some(Self { mean, half_width, n })
    }

    /// Of the differences `a − b` by common seed; `None` without a common seed.
    pub fn of_differences(a: &[(u64, f64)], b: &[(u64, f64)]) -> Option<Self> {
        let partner = |seed: u64| b.iter().find(|(s, _)| *s == seed).map(|(_, v)| v);
        let differences: Vec<f64> = a.iter().filter_map(|(seed, v)| Some(v - partner(*seed)?)).collect();
        Self::of(&differences)
    }

    /// Its significance as a difference.
    pub fn finding(&self) -> Finding {
        match self.half_width {
            Some(w) if self.mean - w > 0.0 => Finding::Better,
            Some(w) if self.mean + w < 0.0 => Finding::Worse,
            _ => Finding::Open,
        }
    }

    /// Whether its interval is entirely above `other`'s.
    pub fn is_above(&self, other: &Self) -> bool {
        match (self.half_width, other.half_width) {
            (Some(a), Some(b)) => self.mean - a > other.mean + b,
            _ => false,
        }
    }
}

/// The 97.5 % quantile of Student's t.
fn t(freedom: usize) -> f64 {
    let distribution = StudentsT::new(0.0, 1.0, freedom as f64).expect("at least one degree of freedom");
    distribution.inverse_cdf(0.975)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_equals_one_worked_out_by_hand() {
        // Mean 4, standard deviation 2, t(2) = 4.30265: 4.30265 · 2 / √3.
        let summary = Summary::of(&[2.0, 4.0, 6.0]).unwrap();
        assert_eq!(summary.mean, 4.0);
        assert!((summary.half_width.unwrap() - 4.968_28).abs() < 1e-5);
        assert_eq!(Summary::of(&[1.0]).unwrap().half_width, None);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_quantiles_agree_with_closed_forms() {
        // ν = 1 is Cauchy's distribution; ν = 2 has t = a·√(2 / (1 − a²)) with a = 0.95.
        assert!((t(1) - (std::f64::consts::PI * 0.475).tan()).abs() < 1e-8);
        assert!((t(2) - 0.95 * (2.0f64 / (1.0 - 0.95f64.powi(2))).sqrt()).abs() < 1e-8);
        // Abramowitz & Stegun, table 26.10.
        for (freedom, quantile) in [(5, 2.571), (30, 2.042), (120, 1.980)] {
            assert!((t(freedom) - quantile).abs() < 5e-4, "{freedom}: {}", t(freedom));
        }
        assert!((t(100_000) - 1.959_964).abs() < 1e-4);
    }

    #[test]
    fn differences_are_paired_by_seed() {
        let (a, b) = ([(1, 5.0), (2, 7.0), (9, 0.0)], [(2, 6.0), (1, 4.0)]);
        let difference = Summary::of_differences(&a, &b).unwrap();
        assert_eq!((difference.mean, difference.half_width, difference.n), (1.0, Some(0.0), 2));
        assert_eq!(difference.finding(), Finding::Better);
    }
}
