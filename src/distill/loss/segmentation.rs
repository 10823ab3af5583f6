//! Cross-entropy of each pixel, with larger weights for rare classes, without unlabelled pixels.

use crate::data::VOID;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

/// Weighted mean cross-entropy of `[pixels, classes]` logits; pixels labelled [`VOID`] do not
/// count. The mean is over the pixels of all `ranks`, the sum over those of this one.
///
/// `smoothing`: the share of each target that is divided equally among all classes. Zero, with a
/// zero gradient, if every pixel is void.
pub fn cross_entropy(
    logits: &Tensor,
    labels: &[u8],
    class_weights: &[f32],
    smoothing: f32,
    ranks: &Ranks,
) -> Result<Tensor> {
    let classes = logits.dim(1)?;
    // One-hot times weight: a sum over it is differentiable in the logits without a gather.
    let mut target = vec![0.0f32; labels.len() * classes];
    let mut total = 0.0f64;
    for (row, &label) in target.chunks_mut(classes).zip(labels) {
        if label != VOID {
            let weight = class_weights[usize::from(label)];
            row.fill(weight * smoothing / classes as f32);
            row[usize::from(label)] += weight * (1.0 - smoothing);
            total += f64::from(weight);
        }
    }
    let total = ranks.total(total);
    let target = Tensor::from_vec(target, &[labels.len(), classes])?;
    (logits.log_softmax()? * target)?.sum_all()? * (-1.0 / total.max(1e-6))
}

/// Weights `1 / ln(1.02 + share of the pixels)` (Paszke et al. 2016, section 5.1), for classes that
/// have so many `pixels`.
pub fn class_weights(pixels: &[u64]) -> Vec<f32> {
    let total = pixels.iter().sum::<u64>().max(1) as f64;
    pixels.iter().map(|&n| (1.0 / (1.02 + n as f64 / total).ln()) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    const LOGITS: [f32; 6] = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4];

    #[test]
    fn it_equals_its_definition_and_ignores_void() {
        let logits = Tensor::from_slice(&LOGITS, &[3, 2]).unwrap();
        let loss = cross_entropy(&logits, &[1, VOID, 0], &[2.0, 3.0], 0.0, &Ranks::alone()).unwrap();
        let loss = loss.value().unwrap();
        let log_p = |row: usize, class: usize| {
            let (a, b) = (f64::from(LOGITS[2 * row]), f64::from(LOGITS[2 * row + 1]));
            [a, b][class] - (a.exp() + b.exp()).ln()
        };
        let expected = -(3.0 * log_p(0, 1) + 2.0 * log_p(2, 0)) / 5.0;
        assert!((f64::from(loss) - expected).abs() < 1e-6);
    }

    #[test]
    fn gradient_agrees_with_finite_differences() {
        check::gradient(&LOGITS, (3, 2), |z| cross_entropy(z, &[1, VOID, 0], &[2.0, 3.0], 0.1, &Ranks::alone()));
    }

    #[test]
    fn smoothing_mixes_the_label_with_all_classes() {
        let logits = Tensor::from_slice(&LOGITS[..2], &[1, 2]).unwrap();
        let loss =
            |label, smoothing| cross_entropy(&logits, &[label], &[1.0; 2], smoothing, &Ranks::alone()).unwrap().value();
        let (first, second) = (loss(0, 0.0).unwrap(), loss(1, 0.0).unwrap());
        assert!((loss(0, 0.2).unwrap() - (0.9 * first + 0.1 * second)).abs() < 1e-6);
    }

    #[test]
    fn rare_classes_weigh_more() {
        let weights = class_weights(&[3, 1, 0]);
        assert!(weights[0] < weights[1] && weights[1] < weights[2]);
        assert!((weights[0] - 1.0 / 1.77f32.ln()).abs() < 1e-5);
    }
}
