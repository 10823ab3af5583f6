//! Several teachers' opinions of one image, brought together.

use peregrine_core::BoundingBox;

use super::{SoftBox, UNKNOWN};

/// Boxes of one class that overlap at least so much are one object.
const SAME_OBJECT_IOU: f32 = 0.6;

/// Fuses what each teacher saw: where they agree on an object's place and class, its box is their boxes' mean weighted by
/// score, its logits are their logits' mean. The share of the teachers that saw an object multiplies its odds, so that
/// one that a single teacher of two saw counts half. For each class mean and share are taken over the teachers that know
/// it; `known` says so for each teacher and class.
pub fn fuse(teachers: &[Vec<SoftBox>], known: &[Vec<bool>]) -> Vec<SoftBox> {
    let mut all: Vec<(usize, &SoftBox)> =
        teachers.iter().enumerate().flat_map(|(i, boxes)| boxes.iter().map(move |b| (i, b))).collect();
    all.sort_by(|a, b| b.1.best().1.total_cmp(&a.1.best().1));
    let mut clusters: Vec<Vec<(usize, &SoftBox)>> = Vec::new();
    for (teacher, candidate) in all {
        let joins = |cluster: &&mut Vec<(usize, &SoftBox)>| {
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
    let mut fused: Vec<SoftBox> = clusters.iter().map(|cluster| merge(cluster, known)).collect();
    fused.sort_by(|a, b| b.best().1.total_cmp(&a.best().1));
    fused
}

fn merge(cluster: &[(usize, &SoftBox)], known: &[Vec<bool>]) -> SoftBox {
    let logit = |class: usize| {
        let knowing = known.iter().filter(|teacher| teacher[class]).count();
        let said: Vec<f32> = cluster.iter().filter(|(t, _)| known[*t][class]).map(|(_, b)| b.logits[class]).collect();
        if said.is_empty() {
            return UNKNOWN;
        }
        let seen = said.len() as f32;
        said.iter().sum::<f32>() / seen + (seen / knowing as f32).ln()
    };
    let total: f32 = cluster.iter().map(|(_, b)| b.score()).sum();
    let side =
        |of: &dyn Fn(&BoundingBox) -> f32| cluster.iter().map(|(_, b)| b.score() * of(&b.bbox)).sum::<f32>() / total;
    SoftBox {
        bbox: BoundingBox::new(side(&|b| b.x_min), side(&|b| b.y_min), side(&|b| b.x_max), side(&|b| b.y_max)),
        logits: (0..cluster[0].1.logits.len()).map(logit).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_averaged_and_a_lone_opinion_counts_half() {
        let at = |x: f32, logit: f32| SoftBox { bbox: BoundingBox::new(x, 0.0, x + 10.0, 10.0), logits: vec![logit] };
        let fused = fuse(&[vec![at(0.0, 1.0), at(50.0, 2.0)], vec![at(1.0, 1.0)]], &[vec![true], vec![true]]);
        assert_eq!(fused.len(), 2);
        assert!((fused[0].logits[0] - (2.0 - 2.0f32.ln())).abs() < 1e-6);
        assert_eq!(fused[0].bbox.x_min, 50.0);
        assert!((fused[1].logits[0] - 1.0).abs() < 1e-6);
        assert!((fused[1].bbox.x_min - 0.5).abs() < 1e-6);
    }

    #[test]
    fn a_teacher_that_does_not_know_a_class_is_not_asked_about_it() {
        let at = |logits: [f32; 3]| SoftBox { bbox: BoundingBox::new(0.0, 0.0, 9.0, 9.0), logits: logits.into() };
        let known = [vec![true, true, false], vec![true, false, false]];
        let both = fuse(&[vec![at([1.0, -2.0, UNKNOWN])], vec![at([2.0, UNKNOWN, UNKNOWN])]], &known);
        assert_eq!(both[0].logits, [1.5, -2.0, UNKNOWN]);
        // Of the second class only the first teacher could have seen an object: that it alone did costs nothing.
        let one = fuse(&[vec![at([-3.0, 2.0, UNKNOWN])], vec![]], &known);
        assert_eq!(one[0].logits, [-3.0 - 2.0f32.ln(), 2.0, UNKNOWN]);
    }
}
