//! The box terms of the detection loss: generalized IoU, and distribution focal loss (DFL).

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::{log_softmax, softmax};

use super::assign::Cell;
use super::targets::Positive;

/// Distances to left, top, right and bottom in strides, `[positives, 4]`: the expectation of each
/// side's distribution over its bins.
pub(super) fn expected_distances(distribution: &Tensor, positives: usize) -> Result<Tensor> {
    let bins = distribution.dim(1)?;
    let support = Tensor::arange(0.0f32, bins as f32, &Device::Cpu)?.reshape((1, bins))?;
    softmax(distribution, 1)?.broadcast_mul(&support)?.sum(1)?.reshape((positives, 4))
}

/// IoU (as plain values) and the loss 1 − GIoU (Rezatofighi et al. 2019, algorithm 1) of each
/// positive anchor, `[positives]`.
///
/// Both boxes surround the anchor's centre unless the object is tiny, so the overlap is written in
/// distances from it; where the boxes do not intersect, a side's overlap is clamped at zero.
pub(super) fn generalized_iou(distances: &Tensor, positives: &[Positive]) -> Result<(Vec<f32>, Tensor)> {
    let target: Vec<f32> = positives.iter().flat_map(target_distances).collect();
    let target = Tensor::from_vec(target, (positives.len(), 4), &Device::Cpu)?;
    let extent = |d: &Tensor| -> Result<(Tensor, Tensor)> {
        let side = |i| d.narrow(1, i, 1)?.squeeze(1);
        Ok(((side(0)? + side(2)?)?.relu()?, (side(1)? + side(3)?)?.relu()?))
    };
    let area = |d: &Tensor| extent(d).and_then(|(w, h)| w * h);
    let overlap = area(&distances.minimum(&target)?)?;
    let hull = (area(&distances.maximum(&target)?)? + 1e-6)?;
    let union = (((area(distances)? + area(&target)?)? - &overlap)? + 1e-6)?;
    let iou = (overlap / &union)?;
    let plain = iou.to_vec1::<f32>()?;
    let gap = ((&hull - &union)? / &hull)?;
    Ok((plain, ((1.0 - iou)? + gap)?))
}

/// Distribution focal loss (Li et al. 2020, eq. 6): cross-entropy against the two bins on either
/// side of each target distance, `[positives · 4]`.
pub(super) fn distribution_focal(distribution: &Tensor, positives: &[Positive], bins: usize) -> Result<Tensor> {
    let mut target = vec![0.0f32; positives.len() * 4 * bins];
    let wanted = positives.iter().flat_map(target_distances);
    for (row, distance) in target.chunks_mut(bins).zip(wanted) {
        let distance = distance.clamp(0.0, bins as f32 - 1.0 - 1e-3);
        let below = distance.floor();
        row[below as usize] = 1.0 - (distance - below);
        row[below as usize + 1] = distance - below;
    }
    let target = Tensor::from_vec(target, (positives.len() * 4, bins), &Device::Cpu)?;
    (log_softmax(distribution, 1)? * target)?.sum(1)?.neg()
}

/// From the anchor's centre to left, top, right, bottom, in strides.
fn target_distances(p: &Positive) -> [f32; 4] {
    let Cell { x, y, stride } = p.cell;
    [(x - p.bbox.x_min), (y - p.bbox.y_min), (p.bbox.x_max - x), (p.bbox.y_max - y)].map(|d| d / stride)
}
