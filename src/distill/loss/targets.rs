//! What the detection head is to learn from a batch.

use peregrine_core::BoundingBox;

use super::assign::Cell;
use crate::teacher::UNKNOWN;

/// A positive anchor: a cell of the detection head that an object is assigned to.
#[derive(Debug, Clone)]
pub struct Positive {
    /// Row of the logits.
    pub row: u32,
    pub cell: Cell,
    /// The object's box in input pixels.
    pub bbox: BoundingBox,
    /// The label's class; `None` if only the teacher detected the object.
    pub label: Option<usize>,
    /// The teacher's class logits, if it detected the object; [`UNKNOWN`] for the classes that it
    /// does not know.
    pub teacher_logits: Option<Vec<f32>>,
    /// Confidence in the box: 1 for a label, the teacher's score otherwise.
    pub confidence: f32,
    /// Weight of the object's image in the input, 0 to 1: below 1 if mixup blended two.
    pub share: f32,
}

impl Positive {
    /// The teacher's weight in the target of `class`: α beside a label, 1 without one, and 0 if the
    /// teacher does not know the class.
    pub(super) fn teacher_weight(&self, class: usize, alpha: f64) -> f32 {
        if self.teacher_logits.as_ref().is_some_and(|logits| logits[class] != UNKNOWN) {
            self.alpha(alpha)
        } else {
            0.0
        }
    }

    /// The teacher's weight in the targets of the classes that it knows.
    pub(super) fn alpha(&self, alpha: f64) -> f32 {
        self.label.map_or(1.0, |_| alpha as f32)
    }
}

/// The targets of a batch's rows.
#[derive(Debug, Clone, Default)]
pub struct DetectionTargets {
    pub positives: Vec<Positive>,
    /// `[rows · classes]`: 1 if a missing label means that there is no object of the class, else 0.
    pub known: Vec<f32>,
    /// Positives that tensors have room for at least. On a device their shapes should seldom change
    /// from step to step; what is left over counts for nothing.
    pub room: usize,
}

impl DetectionTargets {
    /// The rows of a tensor of positives.
    pub fn slots(&self) -> usize {
        self.positives.len().max(self.room)
    }

    /// What `of` says of each positive, and `left_over` for the slots that are left.
    pub fn of_slots<T: Clone>(&self, left_over: T, of: impl Fn(&Positive) -> T) -> Vec<T> {
        let mut all: Vec<T> = self.positives.iter().map(of).collect();
        all.resize(self.slots(), left_over);
        all
    }

    /// The row of the logits of each slot; the first for those that are left.
    pub fn rows(&self) -> Vec<u32> {
        self.of_slots(0, |positive| positive.row)
    }
}
