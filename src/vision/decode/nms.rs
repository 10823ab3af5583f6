//! Greedy non-maximum suppression, within each class and across classes.

use std::cmp::Ordering;

use peregrine_core::Detection;

/// Intersections over union, 0 to 1, above which the lesser of two boxes is dropped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NmsIou {
    /// Of two boxes of one class.
    pub same_class: f32,
    /// Of two boxes of different classes, which are then of one object; 1: none is dropped.
    pub across_classes: f32,
}

impl NmsIou {
    /// Each class by itself.
    pub fn by_class(iou: f32) -> Self {
        Self { same_class: iou, across_classes: 1.0 }
    }

    /// That of two boxes.
    fn of(self, a: &Detection, b: &Detection) -> f32 {
        if a.class == b.class {
            self.same_class
        } else {
            self.across_classes
        }
    }
}

/// Keeps, by falling score, each detection that overlaps no kept one by more than `iou`; at most `limit`.
///
/// In place and without allocation. Ties go by class and position, so that the result does not depend on the order of
/// the input.
pub fn non_max_suppression(detections: &mut Vec<Detection>, iou: NmsIou, limit: usize) {
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
        let rival = |k: &Detection| k.bbox.iou(&candidate.bbox) > iou.of(k, &candidate);
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
    fn brute_force(mut remaining: Vec<Detection>, iou: NmsIou, limit: usize) -> Vec<Detection> {
        let mut kept = Vec::new();
        while !remaining.is_empty() && kept.len() < limit {
            let best = (0..remaining.len()).max_by(|&a, &b| remaining[a].score.total_cmp(&remaining[b].score)).unwrap();
            let best = remaining.swap_remove(best);
            remaining.retain(|d| {
                let most = if d.class == best.class { iou.same_class } else { iou.across_classes };
                d.bbox.iou(&best.bbox) <= most
            });
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
            (same_class, across_classes) in (0f32..=1.0, 0f32..=1.0),
            limit in 1usize..100,
        ) {
            detections.sort_by(|a, b| a.score.total_cmp(&b.score));
            detections.dedup_by_key(|d| d.score);
            let iou = NmsIou { same_class, across_classes };
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
            non_max_suppression(&mut tied, NmsIou { same_class: 0.5, across_classes: 0.8 }, 100);
            non_max_suppression(&mut reversed, NmsIou { same_class: 0.5, across_classes: 0.8 }, 100);
            prop_assert_eq!(tied, reversed);
        }
    }

    #[test]
    fn boxes_of_different_classes_are_of_one_object_only_where_they_nearly_coincide() {
        let of = |class, score, x_max| Detection { class, score, bbox: BoundingBox::new(0.0, 0.0, x_max, 9.0) };
        let detections = [of(0, 0.8, 9.0), of(1, 0.9, 9.0), of(0, 0.7, 9.0), of(2, 0.6, 6.0)];
        let kept = |iou| {
            let mut kept = detections.to_vec();
            non_max_suppression(&mut kept, iou, 100);
            kept
        };
        assert_eq!(kept(NmsIou::by_class(0.5)), [detections[1], detections[0], detections[3]]);
        let across = NmsIou { same_class: 0.5, across_classes: 0.8 };
        assert_eq!(kept(across), [detections[1], detections[3]], "6 by 9 of 9 by 9 is two thirds");
    }
}
