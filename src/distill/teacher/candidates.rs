//! What all families of detectors share: candidates with the probabilities of the student's classes,
//! and what becomes of them: soft targets to learn from, or detections to be judged by.

use peregrine_core::{BoundingBox, Detection};
use peregrine_vision::decode::head::logit;

use super::{SoftTarget, UNKNOWN};

/// Candidates whose best probability is below this are no soft targets.
pub(super) const MIN_SCORE: f32 = 0.05;
/// Soft targets of the same class with a larger IoU are one object.
const NMS_IOU: f32 = 0.6;
/// Most soft targets in an image.
const MAX_OBJECTS: usize = 100;
/// Most detections of a class in an image: COCO counts no more.
const MAX_DETECTIONS: usize = 100;

/// An output tensor: shape and values.
pub type OutputTensor<'a> = (Vec<usize>, &'a [f32]);

/// A box that a detector proposes.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Source pixels.
    pub bbox: BoundingBox,
    /// One for each of the student's classes, 0…1; 0 for those that the teacher does not know.
    pub probabilities: Vec<f32>,
    /// The classes for which it is a local maximum of its heat map; `None` without a heat map.
    pub peaks: Option<Vec<bool>>,
}

impl Candidate {
    fn counts_for(&self, class: usize) -> bool {
        self.peaks.as_ref().is_none_or(|peaks| peaks[class])
    }

    /// It with the logits of all classes; `None` if it is smaller than a pixel, improbable, or not
    /// a local maximum of its best class.
    fn soft_target(&self, groups: &[Vec<usize>]) -> Option<SoftTarget> {
        let best = self.probabilities.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        let usable = *best.1 > MIN_SCORE && self.counts_for(best.0);
        let visible = self.bbox.width() > 1.0 && self.bbox.height() > 1.0;
        let of_class = |(&p, group): (&f32, &Vec<usize>)| {
            if group.is_empty() {
                UNKNOWN
            } else {
                logit(p.clamp(1e-6, 1.0 - 1e-6))
            }
        };
        let logits = || self.probabilities.iter().zip(groups).map(of_class).collect();
        (usable && visible).then(|| SoftTarget { bbox: self.bbox, logits: logits() })
    }
}

/// For each of the student's classes, the best score in its group of the teacher's classes.
pub(super) fn best_of_groups<'a>(
    score: &'a impl Fn(usize) -> f32,
    groups: &'a [Vec<usize>],
) -> impl Iterator<Item = f32> + 'a {
    groups.iter().map(move |group| group.iter().map(|&c| score(c)).fold(0.0, f32::max))
}

/// The candidates as soft targets, best first: one for each object, with the logits of all classes.
pub fn soft_targets(candidates: &[Candidate], groups: &[Vec<usize>]) -> Vec<SoftTarget> {
    suppress(candidates.iter().filter_map(|candidate| candidate.soft_target(groups)).collect())
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

/// The candidates as detections to be judged by: every class of a box above `least`, with
/// non-maximum suppression within each class at an IoU of `nms_iou`, if any; best first.
pub fn detections(candidates: &[Candidate], classes: usize, least: f32, nms_iou: Option<f32>) -> Vec<Detection> {
    let mut all = Vec::new();
    for class in 0..classes {
        let of = |c: &Candidate| Detection { class, score: c.probabilities[class], bbox: c.bbox };
        let counts = |c: &&Candidate| c.probabilities[class] > least && c.counts_for(class) && c.bbox.area() > 0.0;
        let mut found: Vec<Detection> = candidates.iter().filter(counts).map(of).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        let mut kept: Vec<Detection> = Vec::new();
        for detection in found {
            if kept.len() == MAX_DETECTIONS {
                break;
            }
            if nms_iou.is_none_or(|limit| kept.iter().all(|k| k.bbox.iou(&detection.bbox) <= limit)) {
                kept.push(detection);
            }
        }
        all.extend(kept);
    }
    all.sort_by(|a, b| b.score.total_cmp(&a.score));
    all
}
