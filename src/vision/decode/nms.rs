//! Class-wise greedy non-maximum suppression.

use std::cmp::Ordering;

use peregrine_core::Detection;

/// Keeps, by falling score, each detection that overlaps no kept one of its class by more than `iou`; at most `limit`.
///
/// In place and without allocation. Ties go by class and position, so that the result does not depend on the order of
/// the input.
pub fn non_max_suppression(detections: &mut Vec<Detection>, iou: f32, limit: usize) {
    detections.sort_unstable_by(|a, b| {
        let ties = || {
            let sides = |d: &Detection| [d.bbox.x_min, d.bbox.y_min, d.bbox.x_max, d.bbox.y_max];
            let differing = sides(a).into_iter().zip(sides(b)).map(|(a, b)| a.total_cmp(&b)).find(|o| o.is_ne());
            a.class.cmp(&b.class).then(differing.unwrap_or(Ordering::Equal))
        };
        b.score.total_cmp(&a.score).then_with(ties)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use peregrine_core::BoundingBox;

    /// Repeatedly moves the best remaining detection to the result and deletes its rivals.
    fn brute_force(mut remaining: Vec<Detection>, iou: f32, limit: usize) -> Vec<Detection> {
        let mut kept = Vec::new();
        while !remaining.is_empty() && kept.len() < limit {
            let best = (0..remaining.len()).max_by(|&a, &b| remaining[a].score.total_cmp(&remaining[b].score)).unwrap();
            let best = remaining.swap_remove(best);
            remaining.retain(|d| d.class != best.class || d.bbox.iou(&best.bbox) <= iou);
            kept.push(best);
        }
        kept
    }

    fn detection() -> impl Strategy<Value = Detection> {
        let bbox = (0f32..100.0, 0f32..100.0, 1f32..60.0, 1f32..60.0)
            .prop_map(|(x, y, w, h)| BoundingBox::new(x, y, x + w, y + h));
        (0usize..3, 0f32..1.0, bbox).prop_map(|(class, score, bbox)| Detection { class, score, bbox })
    }

    proptest! {
        #[test]
        fn agrees_with_brute_force(
            mut detections in prop::collection::vec(detection(), 0..80),
            iou in 0f32..=1.0,
            limit in 1usize..100,
        ) {
            detections.sort_by(|a, b| a.score.total_cmp(&b.score));
            detections.dedup_by_key(|d| d.score);
            let expected = brute_force(detections.clone(), iou, limit);
            non_max_suppression(&mut detections, iou, limit);
            prop_assert_eq!(detections, expected);
        }

        #[test]
        fn does_not_depend_on_the_order_of_the_input(
            detections in prop::collection::vec(detection(), 0..40).prop_shuffle(),
        ) {
            let mut tied: Vec<_> = detections.iter().map(|d| Detection { score: 0.5, ..*d }).collect();
            let mut reversed: Vec<_> = tied.iter().rev().copied().collect();
            non_max_suppression(&mut tied, 0.5, 100);
            non_max_suppression(&mut reversed, 0.5, 100);
            prop_assert_eq!(tied, reversed);
        }
    }

    #[test]
    fn boxes_of_different_classes_do_not_suppress_each_other() {
        let of = |class, score| Detection { class, score, bbox: BoundingBox::new(0.0, 0.0, 9.0, 9.0) };
        let mut detections = vec![of(0, 0.8), of(1, 0.9), of(0, 0.7)];
        non_max_suppression(&mut detections, 0.5, 100);
        assert_eq!(detections, [of(1, 0.9), of(0, 0.8)]);
    }
}
