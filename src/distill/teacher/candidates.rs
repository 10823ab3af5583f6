//! What all families of detectors share: scores of the student's classes, and non-maximum
//! suppression.

use peregrine_core::BoundingBox;
use peregrine_vision::decode::head::logit;

use super::SoftTarget;

/// Candidates whose best probability is below this are dropped.
pub(super) const MIN_SCORE: f32 = 0.05;
/// Candidates of the same class with a larger IoU are one object.
const NMS_IOU: f32 = 0.6;
/// Most objects in an image.
const MAX_OBJECTS: usize = 100;

/// An output tensor: shape and values.
pub type OutputTensor<'a> = (Vec<usize>, &'a [f32]);

/// A box with the probabilities of the student's classes; `None` if it is smaller than a pixel.
pub(super) fn soft_target(bbox: BoundingBox, probabilities: &[f32]) -> Option<SoftTarget> {
    let logits = probabilities.iter().map(|&p| logit(p.clamp(1e-6, 1.0 - 1e-6))).collect();
    (bbox.width() > 1.0 && bbox.height() > 1.0).then_some(SoftTarget { bbox, logits })
}

/// For each of the student's classes, the best score in its group of the teacher's classes.
pub(super) fn best_of_groups<'a>(
    score: &'a impl Fn(usize) -> f32,
    groups: &'a [Vec<usize>],
) -> impl Iterator<Item = f32> + 'a {
    groups.iter().map(move |group| group.iter().map(|&c| score(c)).fold(0.0, f32::max))
}

/// Class-wise non-maximum suppression by the best class.
pub(super) fn suppress(mut found: Vec<SoftTarget>) -> Vec<SoftTarget> {
    found.sort_by(|a, b| b.best().1.total_cmp(&a.best().1));
    let mut kept: Vec<SoftTarget> = Vec::new();
    for candidate in found {
        if kept.len() == MAX_OBJECTS {
            break;
        }
        let class = candidate.best().0;
        if !kept.iter().any(|k| k.best().0 == class && k.bbox.iou(&candidate.bbox) > NMS_IOU) {
            kept.push(candidate);
        }
    }
    kept
}
