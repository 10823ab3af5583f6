//! A confirmed or tentative track.

use peregrine_core::{BoundingBox, Detection};

use super::box_filter::{BoxFilter, Noise};

/// State of an object, confirmed or not.
#[derive(Debug, Clone, Copy)]
pub struct Candidate {
    /// 0 until it is confirmed.
    pub id: u64,
    pub class: usize,
    pub score: f32,
    pub filter: BoxFilter,
    /// The predicted box of the current frame, with which detections are associated.
    pub bbox: BoundingBox,
    pub age: u32,
    pub missed: u32,
    /// Seconds since it was seen.
    pub unseen: f64,
    /// Whether it was detected in the current frame.
    pub matched: bool,
}

impl Candidate {
    pub fn new(detection: &Detection, noise: &Noise) -> Self {
        Self {
            id: 0,
            class: detection.class,
            score: detection.score,
            filter: BoxFilter::new(&detection.bbox, noise),
            bbox: detection.bbox,
            age: 1,
            missed: 0,
            unseen: 0.0,
            matched: true,
        }
    }

    pub fn is_confirmed(&self) -> bool {
        self.id != 0
    }

    pub fn confirm(&mut self, next_id: &mut u64) {
        self.id = *next_id;
        *next_id += 1;
    }

    pub fn see(&mut self, detection: &Detection, noise: &Noise) {
        self.filter.update(&detection.bbox, noise);
        (self.score, self.matched, self.missed, self.unseen) = (detection.score, true, 0, 0.0);
    }
}
