//! Cross-entropy of the scene head, group by group.

use super::segmentation;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

/// The sum over the groups of the mean cross-entropy of `[images, classes]` logits; images labelled
/// [`VOID`](crate::data::VOID) in a group do not count there. The mean is over the images of all
/// `ranks`, the sum over those of this one.
///
/// `smoothing`: the share of each target that is divided equally among all classes of its group
/// (Szegedy et al. 2016, section 7).
pub fn cross_entropy<'a>(
    groups: impl Iterator<Item = (&'a Tensor, &'a [u8])>,
    smoothing: f32,
    ranks: &Ranks,
) -> Result<Tensor> {
    let mut total = Tensor::scalar(0.0);
    for (logits, labels) in groups {
        let equal = vec![1.0; logits.dim(1)?];
        total = (total + segmentation::cross_entropy(logits, labels, &equal, smoothing, ranks)?)?;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::data::VOID;

    const LIGHT: [f32; 4] = [0.5, -0.5, 2.0, 1.0];
    const WEATHER: [f32; 6] = [0.1, 0.2, 0.3, -1.0, 0.0, 1.0];

    #[test]
    fn each_group_counts_by_the_mean_over_its_labelled_images() {
        let light = Tensor::from_slice(&LIGHT, &[2, 2]).unwrap();
        let weather = Tensor::from_slice(&WEATHER, &[2, 3]).unwrap();
        let groups = [(&light, &[0u8, 1][..]), (&weather, &[VOID, 2][..])];
        let loss = cross_entropy(groups.into_iter(), 0.0, &Ranks::alone()).unwrap().value().unwrap();
        let of = |row: &[f32], class: usize| row.iter().map(|v| v.exp()).sum::<f32>().ln() - row[class];
        let expected = 0.5 * (of(&LIGHT[..2], 0) + of(&LIGHT[2..], 1)) + of(&WEATHER[3..], 2);
        assert!((loss - expected).abs() < 1e-6, "{loss}, not {expected}");
    }

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        check::gradient(&LIGHT, (2, 2), |z| cross_entropy([(z, &[1u8, VOID][..])].into_iter(), 0.1, &Ranks::alone()));
    }
}
