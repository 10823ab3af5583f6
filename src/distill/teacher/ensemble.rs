//! The fusion of several teachers' detections in one image.

use peregrine_core::BoundingBox;

use super::{SoftTarget, UNKNOWN};

/// Boxes of one class with at least this IoU are one object.
pub const SAME_OBJECT_IOU: f32 = 0.6;

/// Fuses the teachers' detections. If they agree on an object's place and class, its box is the
/// mean of their boxes weighted by score, and its logits are the mean of their logits. The fraction
/// of the teachers that detected an object multiplies its odds, so that a detection by one of two
/// teachers counts half. For each class, mean and fraction are over the teachers that know it, as
/// `known` says for each teacher and class.
pub fn fuse(teachers: &[Vec<SoftTarget>], known: &[Vec<bool>]) -> Vec<SoftTarget> {
    let mut all: Vec<(usize, &SoftTarget)> =
        teachers.iter().enumerate().flat_map(|(i, boxes)| boxes.iter().map(move |b| (i, b))).collect();
    all.sort_by(|a, b| b.1.best().1.total_cmp(&a.1.best().1));
    let mut clusters: Vec<Vec<(usize, &SoftTarget)>> = Vec::new();
    for (teacher, candidate) in all {
        let joins = |cluster: &&mut Vec<(usize, &SoftTarget)>| {
            let (_, first) = cluster[0];
            cluster.iter().all(|(t, _)| *t != teacher)
                && first.best().0 == candidate.best().0
                && first.bbox.iou(&candidate.bbox) >= SAME_OBJECT_IOU
        };
        match clusters.iter_mut().find(joins) {
            Some(cluster) => cluster.push((teacher, candidate)),
            None => clusters.push(vec![(teacher, candidate)]),
        }
    }
    let mut fused: Vec<SoftTarget> = clusters.iter().map(|cluster| merge(cluster, known)).collect();
    fused.sort_by(|a, b| b.best().1.total_cmp(&a.best().1));
    fused
}

fn merge(cluster: &[(usize, &SoftTarget)], known: &[Vec<bool>]) -> SoftTarget {
    let logit = |class: usize| {
        let knowing = known.iter().filter(|teacher| teacher[class]).count();
        let given: Vec<f32> = cluster.iter().filter(|(t, _)| known[*t][class]).map(|(_, b)| b.logits[class]).collect();
        if given.is_empty() {
            return UNKNOWN;
        }
        let count = given.len() as f32;
        given.iter().sum::<f32>() / count + (count / knowing as f32).ln()
    };
    let total: f32 = cluster.iter().map(|(_, b)| b.score()).sum();
    let side =
        |of: &dyn Fn(&BoundingBox) -> f32| cluster.iter().map(|(_, b)| b.score() * of(&b.bbox)).sum::<f32>() / total;
    SoftTarget {
        bbox: BoundingBox::new(side(&|b| b.x_min), side(&|b| b.y_min), side(&|b| b.x_max), side(&|b| b.y_max)),
        logits: (0..cluster[0].1.logits.len()).map(logit).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_averaged_and_a_lone_detection_counts_half() {
        let at =
            |x: f32, logit: f32| SoftTarget { bbox: BoundingBox::new(x, 0.0, x + 10.0, 10.0), logits: vec![logit] };
        let fused = fuse(&[vec![at(0.0, 1.0), at(50.0, 2.0)], vec![at(1.0, 1.0)]], &[vec![true], vec![true]]);
        assert_eq!(fused.len(), 2);
        assert!((fused[0].logits[0] - (2.0 - 2.0f32.ln())).abs() < 1e-6);
        assert_eq!(fused[0].bbox.x_min, 50.0);
        assert!((fused[1].logits[0] - 1.0).abs() < 1e-6);
        assert!((fused[1].bbox.x_min - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_class_is_fused_over_the_teachers_that_know_it() {
        let at = |logits: [f32; 3]| SoftTarget { bbox: BoundingBox::new(0.0, 0.0, 9.0, 9.0), logits: logits.into() };
        let known = [vec![true, true, false], vec![true, false, false]];
        let both = fuse(&[vec![at([1.0, -2.0, UNKNOWN])], vec![at([2.0, UNKNOWN, UNKNOWN])]], &known);
        assert_eq!(both[0].logits, [1.5, -2.0, UNKNOWN]);
        // Only the first teacher knows the second class: that it alone detected the object costs
        // nothing.
        let one = fuse(&[vec![at([-3.0, 2.0, UNKNOWN])], vec![]], &known);
        assert_eq!(one[0].logits, [-3.0 - 2.0f32.ln(), 2.0, UNKNOWN]);
    }
}
