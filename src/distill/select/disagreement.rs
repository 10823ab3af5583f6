//! How much two detectors disagree about one image.

use peregrine_core::Detection;

/// Boxes of one class with at least this IoU are one object.
const SAME_OBJECT_IOU: f32 = 0.5;

/// The sum over objects of the squared difference between the probabilities that the two detectors
/// give them (Brier 1950), with 0 for an object that one does not detect: about the number of
/// objects that one sees with certainty and the other not at all. Classes for which `known` is false
/// are left out.
pub fn disagreement(a: &[Detection], b: &[Detection], known: &[bool]) -> f32 {
    let counts = |d: &&Detection| known[d.class];
    let mut a: Vec<&Detection> = a.iter().filter(counts).collect();
    a.sort_by(|x, y| y.score.total_cmp(&x.score));
    let mut others: Vec<&Detection> = b.iter().filter(counts).collect();
    let mut sum = 0.0;
    for object in a {
        let iou = |other: &&Detection| {
            if other.class == object.class {
                other.bbox.iou(&object.bbox)
            } else {
                0.0
            }
        };
        let twin = others.iter().enumerate().max_by(|x, y| iou(x.1).total_cmp(&iou(y.1)));
        let twin = twin.filter(|(_, other)| iou(other) >= SAME_OBJECT_IOU).map(|(i, _)| i);
        let score = twin.map_or(0.0, |i| others.swap_remove(i).score);
        sum += (object.score - score).powi(2);
    }
    sum + others.iter().map(|other| other.score.powi(2)).sum::<f32>()
}

/// The mean over all pairs of `teachers`, each with the classes that it knows; 0 for fewer than two.
pub fn among(teachers: &[(Vec<Detection>, &[bool])]) -> f32 {
    let (mut sum, mut pairs) = (0.0, 0);
    for (i, (a, knows)) in teachers.iter().enumerate() {
        for (b, too) in &teachers[i + 1..] {
            let both: Vec<bool> = knows.iter().zip(*too).map(|(&a, &b)| a && b).collect();
            sum += disagreement(a, b, &both);
            pairs += 1;
        }
    }
    sum / pairs.max(1) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_core::BoundingBox;

    fn object(class: usize, score: f32, x: f32) -> Detection {
        Detection { class, score, bbox: BoundingBox::new(x, 0.0, x + 10.0, 10.0) }
    }

    #[test]
    fn what_one_detector_alone_sees_counts_whole_and_what_both_see_by_their_difference() {
        let a = [object(0, 0.9, 0.0), object(1, 0.8, 50.0)];
        let b = [object(0, 0.6, 1.0), object(0, 0.5, 50.0)];
        let expected = 0.3f32.powi(2) + 0.8f32.powi(2) + 0.5f32.powi(2);
        assert!((disagreement(&a, &b, &[true, true]) - expected).abs() < 1e-6);
        assert!((disagreement(&b, &a, &[true, true]) - expected).abs() < 1e-6);
        assert!((disagreement(&a, &b, &[true, false]) - 0.34).abs() < 1e-6);
        assert_eq!(disagreement(&a, &a, &[true, true]), 0.0);
    }

    #[test]
    fn teachers_are_compared_on_the_classes_that_both_know() {
        let (all, cars) = ([true, true], [true, false]);
        let one = (vec![object(0, 0.9, 0.0), object(1, 0.8, 50.0)], &all[..]);
        let two = (vec![object(0, 0.9, 0.0)], &cars[..]);
        assert_eq!(among(&[one.clone(), two]), 0.0);
        assert_eq!(among(&[one]), 0.0);
    }
}
