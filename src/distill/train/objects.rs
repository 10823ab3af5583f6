//! The objects of an image: its labels merged with the teachers' soft targets.

use peregrine_core::BoundingBox;

use crate::data::Annotation;
use crate::teacher::SoftTarget;

/// A label and a soft target with at least this IoU are the same object.
const SAME_OBJECT_IOU: f32 = 0.5;

/// An object to learn from.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    pub bbox: BoundingBox,
    /// The label's class; `None` if only the teacher detected the object.
    pub label: Option<usize>,
    /// The teacher's class logits, if it detected the object.
    pub teacher_logits: Option<Vec<f32>>,
    /// 1 for a label; else the teacher's best class probability.
    pub confidence: f32,
    /// Weight of the object's image in the input: below 1 if mixup blended two.
    pub share: f32,
}

impl Object {
    /// One at `bbox` without label and teacher logits.
    pub fn at(bbox: BoundingBox) -> Self {
        Self { bbox, label: None, teacher_logits: None, confidence: 1.0, share: 1.0 }
    }
}

/// The labelled objects, each with the logits of the most confident soft target that overlaps it;
/// then the soft targets without a label. Soft targets whose best probability is below `min_score`
/// are ignored.
pub fn merge(labels: &[Annotation], soft_targets: &[SoftTarget], min_score: f32) -> Vec<Object> {
    let mut objects: Vec<Object> =
        labels.iter().map(|a| Object { label: Some(a.class), ..Object::at(a.bbox) }).collect();
    let labelled = objects.len();
    let mut scored: Vec<(f32, &SoftTarget)> =
        soft_targets.iter().map(|target| (target.score(), target)).filter(|s| s.0 >= min_score).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (confidence, SoftTarget { bbox, logits }) in scored {
        let ious = objects[..labelled].iter().map(|o| o.bbox.iou(bbox)).enumerate();
        match ious.max_by(|a, b| a.1.total_cmp(&b.1)) {
            Some((i, iou)) if iou >= SAME_OBJECT_IOU => {
                objects[i].teacher_logits.get_or_insert_with(|| logits.clone());
            }
            _ => objects.push(Object { teacher_logits: Some(logits.clone()), confidence, ..Object::at(*bbox) }),
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_take_the_best_overlapping_target_others_stay_alone() {
        let at = |x: f32| BoundingBox::new(x, 0.0, x + 10.0, 10.0);
        let labels = [Annotation { class: 2, bbox: at(0.0) }];
        let soft_targets = [(3.0, 0.1), (1.0, 0.2), (50.0, 2.0), (80.0, -3.0)]
            .map(|(x, logit)| SoftTarget { bbox: at(x), logits: vec![logit] });
        let objects = merge(&labels, &soft_targets, 0.3);
        assert_eq!(objects.len(), 2);
        assert_eq!((objects[0].label, objects[0].teacher_logits.as_deref()), (Some(2), Some(&[0.2f32][..])));
        assert_eq!(objects[1].label, None);
        assert!((objects[1].confidence - 0.880797).abs() < 1e-5);
    }
}
