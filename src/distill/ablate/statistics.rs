//! Means of a few seeds with their uncertainty, and differences between rows seed by seed.

use serde::Serialize;

/// Quantiles of Student's t at 97.5 %, for 1 to 30 degrees of freedom.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// A mean and its 95 % interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    pub mean: f64,
    /// Half the width of the interval by Student's t; `None` for a single value.
    pub half_width: Option<f64>,
    pub n: usize,
}

/// What the interval of a difference says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    Better,
    Worse,
    /// Zero lies in the interval, or there is none yet.
    Open,
}

impl Summary {
    /// Of values that are taken for normally distributed; `None` of none.
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

    /// Of the differences `a − b` of the seeds that both have; `None` where they share none.
    pub fn of_differences(a: &[(u64, f64)], b: &[(u64, f64)]) -> Option<Self> {
        let partner = |seed: u64| b.iter().find(|(s, _)| *s == seed).map(|(_, v)| v);
        let differences: Vec<f64> = a.iter().filter_map(|(seed, v)| Some(v - partner(*seed)?)).collect();
        Self::of(&differences)
    }

    /// What it says as a difference.
    pub fn finding(&self) -> Finding {
        match self.half_width {
            Some(w) if self.mean - w > 0.0 => Finding::Better,
            Some(w) if self.mean + w < 0.0 => Finding::Worse,
            _ => Finding::Open,
        }
    }

    /// Whether its interval lies wholly above `other`'s.
    pub fn is_above(&self, other: &Self) -> bool {
        match (self.half_width, other.half_width) {
            (Some(a), Some(b)) => self.mean - a > other.mean + b,
            _ => false,
        }
    }
}

/// The 97.5 % quantile of Student's t; beyond the table by its expansion in 1/ν (Abramowitz & Stegun 26.7.5).
fn t(freedom: usize) -> f64 {
    const Z: f64 = 1.959_964;
    T.get(freedom - 1).copied().unwrap_or_else(|| {
        let v = freedom as f64;
        Z + (Z.powi(3) + Z) / (4.0 * v) + (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / (96.0 * v * v)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_equals_one_worked_out_by_hand() {
        // Mean 4, deviation 2, t(2) = 4.303: 4.303 · 2 / √3.
        let summary = Summary::of(&[2.0, 4.0, 6.0]).unwrap();
        assert_eq!(summary.mean, 4.0);
        assert!((summary.half_width.unwrap() - 4.968_67).abs() < 1e-3);
        assert_eq!(Summary::of(&[1.0]).unwrap().half_width, None);
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn the_quantiles_agree_with_closed_forms_and_with_their_expansion() {
        // ν = 1 is Cauchy's distribution; ν = 2 has t = a·√(2 / (1 − a²)) with a = 0.95.
        assert!((t(1) - (std::f64::consts::PI * 0.475).tan()).abs() < 1e-3);
        assert!((t(2) - 0.95 * (2.0f64 / (1.0 - 0.95f64.powi(2))).sqrt()).abs() < 1e-3);
        assert!((t(31) - 2.0395).abs() < 1e-3);
        assert!(t(30) > t(31) && t(1000) > 1.959);
    }

    #[test]
    fn differences_are_taken_seed_by_seed() {
        let (a, b) = ([(1, 5.0), (2, 7.0), (9, 0.0)], [(2, 6.0), (1, 4.0)]);
        let difference = Summary::of_differences(&a, &b).unwrap();
        assert_eq!((difference.mean, difference.half_width, difference.n), (1.0, Some(0.0), 2));
        assert_eq!(difference.finding(), Finding::Better);
    }
}
