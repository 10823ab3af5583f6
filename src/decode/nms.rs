//! Class-wise greedy non-maximum suppression.

use super::Detection;

/// Keeps, by falling score, each detection that overlaps no kept one of its class by more than `iou`; at most `limit`.
///
/// In place and without allocation. Ties go by class and position, so that the result does not depend on the order of
/// the input.
pub fn non_max_suppression(detections: &mut Vec<Detection>, iou: f32, limit: usize) {
    detections.sort_unstable_by(|a, b| {
        b.score
            .total_cmp(&a.score)
            .then(a.class.cmp(&b.class))
            .then(a.bbox.x_min.total_cmp(&b.bbox.x_min))
            .then(a.bbox.y_min.total_cmp(&b.bbox.y_min))
            .then(a.bbox.x_max.total_cmp(&b.bbox.x_max))
            .then(a.bbox.y_max.total_cmp(&b.bbox.y_max))
    });
    let mut kept = 0;
    for i in 0..detections.len() {
        if kept == limit {
            break;
        }
        let candidate = detections[i];
        let rival = |k: &Detection| k.class == candidate.class && k.bbox.iou(&candidate.bbox) > iou;
        if !detections[..kept].iter().any(rival) {
            detections[kept] = candidate;
            kept += 1;
        }
    }
    detections.truncate(kept);
}
