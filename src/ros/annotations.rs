//! The result of a frame, copied for threads that draw or keep it.

use std::sync::Arc;

use peregrine_core::{ClassMask, Detection};
use peregrine_pipeline::FrameResult;
use peregrine_track::Track;

use super::model::ModelClasses;

/// What was found in an image.
#[derive(Default)]
pub struct Annotations {
    /// Boxes in pixels of the image.
    pub detections: Vec<Detection>,
    /// Of the detections' tracks; 0 for those without one.
    pub identities: Vec<u64>,
    pub tracks: Vec<Track>,
    pub mask: ClassMask,
    /// Of the model that found them; `None` without a result.
    pub classes: Option<Arc<ModelClasses>>,
}

impl Annotations {
    /// Copies the result of a frame. Allocates only for more than ever before.
    pub fn copy_from(&mut self, result: &FrameResult, classes: &Arc<ModelClasses>) {
        self.detections.clone_from(&result.detections);
        self.identities.clone_from(&result.identities);
        self.tracks.clone_from(&result.tracks);
        (self.mask.width, self.mask.height) = (result.mask.width, result.mask.height);
        self.mask.classes.clone_from(&result.mask.classes);
        self.classes = Some(Arc::clone(classes));
    }

    /// Copies them. Allocates only for more than ever before.
    pub fn clone_from(&mut self, other: &Self) {
        self.detections.clone_from(&other.detections);
        self.identities.clone_from(&other.identities);
        self.tracks.clone_from(&other.tracks);
        (self.mask.width, self.mask.height) = (other.mask.width, other.mask.height);
        self.mask.classes.clone_from(&other.mask.classes);
        self.classes.clone_from(&other.classes);
    }

    /// Forgets the result, and keeps the memory.
    pub fn clear(&mut self) {
        self.detections.clear();
        self.identities.clear();
        self.tracks.clear();
        self.mask.classes.clear();
        self.classes = None;
    }
}
