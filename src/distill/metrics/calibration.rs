//! Expected calibration error: how far a network's confidence is from how often it is right (Guo et
//! al. 2017, section 2).

use serde::Serialize;

/// Bins of equal width over the confidences 0 to 1.
pub const BINS: usize = 15;

/// One bin: the confidences in ((i − 1) / [`BINS`], i / [`BINS`]].
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Bin {
    pub count: u64,
    /// The number of them that were right.
    pub right: u64,
    /// Sum of the confidences.
    pub confidence: f64,
}

/// Confidences, and whether each prediction was right.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Calibration {
    pub bins: [Bin; BINS],
}

impl Calibration {
    /// Counts one prediction of `confidence`, 0 to 1.
    pub fn add(&mut self, confidence: f32, right: bool) {
        let confidence = f64::from(confidence);
        let index = ((confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1;
        let bin = &mut self.bins[index];
        bin.count += 1;
        bin.right += u64::from(right);
        bin.confidence += confidence;
    }

    /// Σ |bin| / n · |share right − mean confidence| over the bins; `None` without predictions.
    pub fn error(&self) -> Option<f64> {
        let total: u64 = self.bins.iter().map(|b| b.count).sum();
        let gaps: f64 = self.bins.iter().map(|b| (b.right as f64 - b.confidence).abs()).sum();
        (total > 0).then(|| gaps / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        predictions: Vec<(f32, bool)>,
        expected: f64,
    }

    #[test]
    fn it_equals_numpy_on_random_cases() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/ece.json")).unwrap();
        for case in &cases {
            let mut calibration = Calibration::default();
            case.predictions.iter().for_each(|&(confidence, right)| calibration.add(confidence, right));
            let found = calibration.error().unwrap();
            assert!((found - case.expected).abs() < 1e-6, "{found} instead of {}", case.expected);
        }
    }

    #[test]
    fn without_predictions_there_is_no_error() {
        assert_eq!(Calibration::default().error(), None);
    }
}
