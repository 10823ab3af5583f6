//! Options of a pipeline and their validation.

use peregrine_engine::EngineError;
use peregrine_student::architecture::{Architecture, MAX_STRIDE};
use peregrine_track::{TrackError, TrackerOptions};
use peregrine_vision::decode::NmsIou;

use super::device::GpuOptions;

/// Options of a pipeline.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineOptions {
    /// Least score of a detection, 0 to 1 (exclusive).
    pub score_threshold: f32,
    /// Above which overlap the lesser of two boxes is dropped.
    pub nms: NmsIou,
    /// Most detections of a frame, 1 to 1000.
    pub max_detections: usize,
    /// Whether to compute the mask. Without it the network is cut before its segmentation head.
    pub segmentation: bool,
    /// Threads that the engine may use, 1 to 256, the caller's included.
    pub threads: usize,
    /// Whether each of the engine's own threads stays on a CPU of its own, of those that the thread that makes the
    /// pipeline may use; the caller's is left as it is.
    pub pin_threads: bool,
    /// Width and height of the network's input, multiples of 32 up to 4096; `None`: the student's own.
    pub input_size: Option<(usize, usize)>,
    /// Tracker options; `None`: no tracking. Their `max_detections` and `high_score` are taken from the options above:
    /// every published detection may start a track.
    pub tracking: Option<TrackerOptions>,
    pub gpu: GpuOptions,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            score_threshold: 0.3,
            nms: NmsIou { same_class: 0.6, across_classes: 0.9 },
            max_detections: 100,
            segmentation: true,
            threads: 1,
            pin_threads: false,
            input_size: None,
            tracking: None,
            gpu: GpuOptions::default(),
        }
    }
}

impl PipelineOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// [`PipelineError::Option`] names the first option at fault.
    pub fn check(&self) -> Result<(), PipelineError> {
        let fault = |option, why: String| Err(PipelineError::Option { option, why });
        if !(self.score_threshold > 0.0 && self.score_threshold < 1.0) {
            return fault("score_threshold", format!("is {}; it must be between 0 and 1", self.score_threshold));
        }
        for (option, iou) in [("nms_iou", self.nms.same_class), ("cross_class_nms_iou", self.nms.across_classes)] {
            if !(0.0..=1.0).contains(&iou) {
                return fault(option, format!("is {iou}; it must be 0 to 1"));
            }
        }
        if !(1..=1000).contains(&self.max_detections) {
            return fault("max_detections", format!("is {}; it must be 1 to 1000", self.max_detections));
        }
        if !(1..=256).contains(&self.threads) {
            return fault("threads", format!("is {}; it must be 1 to 256", self.threads));
        }
        if let Some((width, height)) = self.input_size {
            if [width, height].iter().any(|&s| s == 0 || s % MAX_STRIDE != 0 || s > 4096) {
                let why = format!("is {width}x{height}; both must be multiples of {MAX_STRIDE} up to 4096");
                return fault("input_size", why);
            }
        }
        if let Some(tracking) = self.tracker() {
            tracking.check()?;
        }
        Ok(())
    }

    /// As [`check`](Self::check), and that they leave a network of `architecture` something to do.
    ///
    /// # Errors
    /// [`PipelineError::Option`] names the first option at fault.
    pub fn check_for(&self, architecture: &Architecture) -> Result<(), PipelineError> {
        self.check()?;
        if !self.segmentation && !architecture.detects() && architecture.scene.is_none() {
            let why = "is false, but this student does nothing else; set it to true".into();
            return Err(PipelineError::Option { option: "segmentation", why });
        }
        if let Some((width, height)) = self.input_size {
            let fits = architecture.try_graph(width, height).map(drop);
            fits.map_err(|why| PipelineError::Option {
                option: "input_size",
                why: format!("is {width}x{height}: {why}"),
            })?;
        }
        Ok(())
    }

    /// The tracker's options, with the thresholds of these.
    pub(super) fn tracker(&self) -> Option<TrackerOptions> {
        let (high_score, max_detections) = (self.score_threshold, self.max_detections);
        self.tracking.map(|tracking| TrackerOptions { high_score, max_detections, ..tracking })
    }
}

/// Why a pipeline cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("option {option} {why}")]
    Option { option: &'static str, why: String },
    #[error(transparent)]
    Tracking(#[from] TrackError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// CUDA was requested and is unusable: a sentence with the remedy.
    #[error("{0}")]
    Device(String),
}
