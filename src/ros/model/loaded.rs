//! A model that is ready for frames.

use std::sync::Arc;

use peregrine_core::Encoding;
use peregrine_pipeline::{FrameResult, Pipeline, StageObserver};
use peregrine_student::Architecture;

use super::classes::ModelClasses;
use super::description::device_text;
use crate::messages::{DetectionsMessage, NativeHeader};
use crate::scene_class::SceneMessages;

/// The pipelines of a student, warmed up, and the message that carries their detections. Replaced
/// as a whole.
pub struct LoadedModel {
    full: Pipeline,
    /// For the degraded mode; `None` if it is off.
    reduced: Option<Pipeline>,
    degraded: bool,
    /// Whether the pipelines ran on CUDA when [`take_device_fallback`](Self::take_device_fallback)
    /// was last called.
    on_cuda: bool,
    pub detections_message: DetectionsMessage,
    scene_messages: SceneMessages,
    pub classes: Arc<ModelClasses>,
    pub architecture: Architecture,
}

impl LoadedModel {
    pub(super) fn new(
        full: Pipeline,
        reduced: Option<Pipeline>,
        architecture: &Architecture,
        classes: Arc<ModelClasses>,
        max_detections: usize,
    ) -> Self {
        Self {
            on_cuda: full.is_on_cuda(),
            full,
            reduced,
            degraded: false,
            detections_message: DetectionsMessage::new(architecture.detection_classes(), max_detections),
            scene_messages: SceneMessages::new(architecture.scene.as_ref()),
            classes,
            architecture: architecture.clone(),
        }
    }

    /// The pipeline in use: the reduced one in the degraded mode.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        match &mut self.reduced {
            Some(reduced) if self.degraded => reduced,
            _ => &mut self.full,
        }
    }

    /// Tells `observer` of each stage of the frames to come.
    pub fn set_observer(&mut self, observer: &Arc<dyn StageObserver>) {
        self.full.set_observer(Arc::clone(observer));
        if let Some(reduced) = &mut self.reduced {
            reduced.set_observer(Arc::clone(observer));
        }
    }

    /// Makes the pipeline in use fit for another frame after one that panicked.
    pub fn reset(&mut self) {
        self.pipeline().reset();
    }

    /// Whether the model has a degraded mode.
    pub fn can_degrade(&self) -> bool {
        self.reduced.is_some()
    }

    pub fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Enters or leaves the degraded mode from the next frame on, with the tracks. No effect on a
    /// model without one.
    pub fn set_degraded(&mut self, degraded: bool) {
        if let Some(reduced) = self.reduced.as_mut().filter(|_| degraded != self.degraded) {
            self.full.exchange_tracks(reduced);
            self.degraded = degraded;
        }
    }

    /// Prepares the pipeline that is not in use for the images of a camera, so that changing to it
    /// allocates nothing.
    pub fn prepare_other(&mut self, camera: usize, encoding: Encoding, size: (usize, usize)) {
        match &mut self.reduced {
            Some(_) if self.degraded => self.full.prepare(camera, encoding, size),
            Some(reduced) => reduced.prepare(camera, encoding, size),
            None => {}
        }
    }

    /// The device that the pipeline in use has fallen back to; once, after its device has failed.
    pub fn take_device_fallback(&mut self) -> Option<String> {
        if !self.on_cuda || self.pipeline().is_on_cuda() {
            return None;
        }
        self.on_cuda = false;
        Some(device_text(&self.pipeline().device()))
    }

    /// Continues the tracks of the model before, so that objects keep their identities and none is
    /// used twice, and its degraded mode. The tracks themselves end if the classes differ.
    pub fn take_tracks(&mut self, old: &mut Self) {
        self.degraded = old.degraded && self.can_degrade();
        let same_classes = self.architecture.detection_classes() == old.architecture.detection_classes();
        let pipeline = self.pipeline();
        pipeline.exchange_tracks(old.pipeline());
        if !same_classes {
            pipeline.forget_tracks();
        }
    }

    /// The last result of the pipeline in use, and the messages for its classes of scenes.
    pub fn scene(&mut self) -> (&FrameResult, &mut SceneMessages) {
        let pipeline = match &self.reduced {
            Some(reduced) if self.degraded => reduced,
            _ => &self.full,
        };
        (pipeline.result(), &mut self.scene_messages)
    }

    /// Fills the message with the last detections of the pipeline in use.
    pub fn fill_message(&mut self, header: &NativeHeader) {
        let pipeline = match &self.reduced {
            Some(reduced) if self.degraded => reduced,
            _ => &self.full,
        };
        let result = pipeline.result();
        self.detections_message.fill(header, &result.detections, &result.identities);
    }
}
