//! What is known of an image's objects: its labels, and what the teacher saw, brought together.

use peregrine_core::BoundingBox;

use crate::data::Annotation;
use crate::teacher::SoftBox;

/// Labels and teacher's boxes that overlap at least so much are one object.
const SAME_OBJECT_IOU: f32 = 0.5;

/// An object to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub bbox: BoundingBox,
    /// The label's class, where there is a label.
    pub label: Option<usize>,
    /// The teacher's class logits, where it saw the object.
    pub teacher: Option<Vec<f32>>,
    /// 1 for a label; else the teacher's best class probability.
    pub confidence: f32,
    /// How much of the input its picture makes up: below 1 where two are blended.
    pub share: f32,
}

impl Object {
    /// One at `bbox` of which nothing else is known yet.
    pub fn at(bbox: BoundingBox) -> Self {
        Self { bbox, label: None, teacher: None, confidence: 1.0, share: 1.0 }
    }
}

/// The labelled objects, each with the logits of the most confident teacher's box that overlaps it; then the objects that
/// only the teacher saw. Opinions whose best probability is below `min_score` do not count.
pub fn merge(labels: &[Annotation], soft: &[SoftBox], min_score: f32) -> Vec<Object> {
    let mut objects: Vec<Object> =
        labels.iter().map(|a| Object { label: Some(a.class), ..Object::at(a.bbox) }).collect();
    let labelled = objects.len();
    let mut opinions: Vec<(f32, &SoftBox)> =
        soft.iter().map(|opinion| (opinion.score(), opinion)).filter(|o| o.0 >= min_score).collect();
    opinions.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (confidence, SoftBox { bbox, logits }) in opinions {
        let ious = objects[..labelled].iter().map(|o| o.bbox.iou(bbox)).enumerate();
        match ious.max_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((i, iou)) if iou >= SAME_OBJECT_IOU => {
                objects[i].teacher.get_or_insert_with(|| logits.clone());
            }
            _ => objects.push(Object { teacher: Some(logits.clone()), confidence, ..Object::at(*bbox) }),
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_take_the_most_confident_overlapping_opinion_and_strays_stay_alone() {
        let at = |x: f32| BoundingBox::new(x, 0.0, x + 10.0, 10.0);
        let labels = [Annotation { class: 2, bbox: at(0.0) }];
        let soft = [(3.0, 0.1), (1.0, 0.2), (50.0, 2.0), (80.0, -3.0)]
            .map(|(x, logit)| SoftBox { bbox: at(x), logits: vec![logit] });
        let objects = merge(&labels, &soft, 0.3);
        assert_eq!(objects.len(), 2);
        assert_eq!((objects[0].label, objects[0].teacher.as_deref()), (Some(2), Some(&[0.2f32][..])));
        assert_eq!(objects[1].label, None);
        assert!((objects[1].confidence - 0.880797).abs() < 1e-5);
    }
}
