//! The box terms of the detection loss: generalized IoU, and distribution focal loss (DFL).

use super::assign::Cell;
use super::targets::{DetectionTargets, Positive};
use crate::tensor::{Result, Tensor};

/// Distances to left, top, right and bottom in strides, `[anchors, 4]`: the expectation of each
/// side's distribution over its bins (`distribution`: `[anchors · 4, bins]`).
pub(super) fn expected_distances(distribution: &Tensor) -> Result<Tensor> {
    let bins = distribution.dim(1)?;
    let support = Tensor::vector((0..bins).map(|bin| bin as f32))?.reshape(&[1, bins])?;
    distribution.softmax()?.broadcast_mul(&support)?.sum(1)?.rows_of(4)
}

/// IoU and the loss 1 − GIoU (Rezatofighi et al. 2019, algorithm 1) of each positive anchor, `[slots]`.
///
/// Both boxes surround the anchor's centre unless the object is tiny, so the overlap is written in
/// distances from it; where the boxes do not intersect, a side's overlap is clamped at zero.
pub(super) fn generalized_iou(distances: &Tensor, targets: &DetectionTargets) -> Result<(Tensor, Tensor)> {
    let target = Tensor::from_vec(targets.of_slots([1.0; 4], target_distances).concat(), &[targets.slots(), 4])?;
    let extent = |d: &Tensor| -> Result<(Tensor, Tensor)> {
        let side = |i| d.narrow(1, i, 1)?.squeeze(1);
        Ok(((side(0)? + side(2)?)?.relu()?, (side(1)? + side(3)?)?.relu()?))
    };
    let area = |d: &Tensor| extent(d).and_then(|(w, h)| w * h);
    let overlap = area(&distances.minimum(&target)?)?;
    let hull = (area(&distances.maximum(&target)?)? + 1e-6)?;
    let union = (((area(distances)? + area(&target)?)? - &overlap)? + 1e-6)?;
    let iou = (overlap / &union)?;
    let gap = ((&hull - &union)? / &hull)?;
    let loss = ((1.0 - &iou)? + gap)?;
    Ok((iou, loss))
}

/// Distribution focal loss (Li et al. 2020, eq. 6): cross-entropy against the two bins on either
/// side of each target distance, `[slots · 4]`.
pub(super) fn distribution_focal(distribution: &Tensor, targets: &DetectionTargets, bins: usize) -> Result<Tensor> {
    let mut target = vec![0.0f32; targets.slots() * 4 * bins];
    let wanted = targets.positives.iter().flat_map(target_distances);
    for (row, distance) in target.chunks_mut(bins).zip(wanted) {
        let distance = distance.clamp(0.0, bins as f32 - 1.0 - 1e-3);
        let below = distance.floor();
        row[below as usize] = 1.0 - (distance - below);
        row[below as usize + 1] = distance - below;
    }
    let target = Tensor::from_vec(target, &[targets.slots() * 4, bins])?;
    (distribution.log_softmax()? * target)?.sum(1)?.neg()
}

/// From the anchor's centre to left, top, right, bottom, in strides.
fn target_distances(p: &Positive) -> [f32; 4] {
    let Cell { x, y, stride } = p.cell;
    [(x - p.bbox.x_min), (y - p.bbox.y_min), (p.bbox.x_max - x), (p.bbox.y_max - y)].map(|d| d / stride)
}
