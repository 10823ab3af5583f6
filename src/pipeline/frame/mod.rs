//! The hot path: one frame from bytes to boxes and mask, in the order of execution.
//!
//! - here: `Pipeline`, and a frame on the CPU. `on_cuda`: frames on a GPU.
//! - `devices`: pipelines on the device that is asked for.

mod devices;
#[cfg(feature = "cuda")]
mod on_cuda;

use std::sync::Arc;

use peregrine_core::{now_ns, ClassMask, Detection, Encoding, ImageView};
use peregrine_engine::{Engine, EngineError};
use peregrine_track::{Track, TrackError, Tracker};
use peregrine_vision::decode::{non_max_suppression, HeadDecoder, MaskDecoder, NmsIou, SceneDecoder};
use peregrine_vision::preprocess::{Letterbox, Normalisation};

#[cfg(feature = "cuda")]
use super::cuda::Decoding;
use super::device::DeviceInUse;
use super::options::PipelineOptions;
use super::stage::{Stage, StageObserver};
use super::timing::StageTimes;
#[cfg(feature = "cuda")]
pub use on_cuda::Begun;

/// Without CUDA there is no image that could have begun.
#[cfg(not(feature = "cuda"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {}

/// Why a frame yields no result.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error(transparent)]
    Tracking(#[from] TrackError),
}

/// The result of a frame. Owned by the pipeline and overwritten by the next frame.
#[derive(Debug, Clone, Default)]
pub struct FrameResult {
    /// By falling score; boxes in source pixels, clipped to the image.
    pub detections: Vec<Detection>,
    /// Width and height of the image, in pixels.
    pub size: (usize, usize),
    /// For each detection the identity of its track; 0 where it has none yet. Empty without tracking.
    pub identities: Vec<u64>,
    /// All tracks that are alive, in the order in which they were begun. Empty without tracking.
    pub tracks: Vec<Track>,
    /// Most likely class of each cell; empty without segmentation.
    pub mask: ClassMask,
    /// Probabilities of the classes of scenes, group by group; empty without a scene head.
    pub scene: Vec<f32>,
    pub times: StageTimes,
}

/// A student ready to process frames. Holds every buffer, so that [`process`](Self::process) allocates nothing while
/// the images keep their size.
pub struct Pipeline {
    inference: Inference,
    /// Why not on CUDA, where that was tried.
    instead_of_cuda: Option<String>,
    options: PipelineOptions,
    input_size: (usize, usize),
    normalisation: Normalisation,
    head: HeadDecoder,
    scene: SceneDecoder,
    /// Index of the segmentation logits in the engine's outputs; `None` without segmentation.
    segmentation_output: Option<usize>,
    /// One for each camera that there was an image of.
    cameras: Vec<Camera>,
    result: FrameResult,
    /// Is told of each stage.
    observer: Arc<dyn StageObserver>,
}

/// State of a camera from frame to frame.
#[derive(Default)]
struct Camera {
    /// For the size of the last image; `None` before the first.
    source: Option<SourceTables>,
    tracker: Option<Tracker>,
}

/// What runs the network.
enum Inference {
    /// The network alone; pre- and postprocessing run on the host.
    Engine(Box<dyn Engine>),
    /// The whole frame.
    #[cfg(feature = "cuda")]
    Cuda(Box<crate::cuda::LeakedWhileWorking>),
}

/// Tables that depend on the size of the source images.
struct SourceTables {
    letterbox: Letterbox,
    mask: MaskDecoder,
}

impl Pipeline {
    /// Tells `observer` of each stage that a frame enters from now on.
    pub fn set_observer(&mut self, observer: Arc<dyn StageObserver>) {
        self.observer = observer;
    }

    /// The device in use; changes when the CPU has taken over from a failed GPU.
    pub fn device(&self) -> DeviceInUse {
        match &self.inference {
            Inference::Engine(_) => DeviceInUse::Cpu { instead_of_cuda: self.instead_of_cuda.clone() },
            #[cfg(feature = "cuda")]
            Inference::Cuda(cuda) => DeviceInUse::Cuda(cuda.name.clone()),
        }
    }

    /// Whether inference runs on CUDA; [`device`](Self::device) without allocation.
    pub fn is_on_cuda(&self) -> bool {
        !matches!(self.inference, Inference::Engine(_))
    }

    /// Values of the network that lay beyond the range of half precision and became its end, in all frames on CUDA but the
    /// last one of each camera: a student that was made for this precision has none. 0 on the CPU, which computes in single
    /// precision. Of a camera it is counted modulo 2^32.
    pub fn saturated_values(&self) -> u64 {
        match &self.inference {
            Inference::Engine(_) => 0,
            #[cfg(feature = "cuda")]
            Inference::Cuda(cuda) => cuda.saturated(),
        }
    }

    /// The CUDA graph of a frame as a human-readable table; `None` on the CPU.
    #[cfg(feature = "cuda")]
    pub fn explain_cuda(&mut self, image: &ImageView) -> Option<String> {
        let Inference::Cuda(cuda) = &mut self.inference else { return None };
        let path = cuda.of(0).ok()?;
        path.prepare(image.encoding(), image.size()).ok()?;
        path.explain()
    }

    /// Width and height of the network's input, in pixels.
    pub fn input_size(&self) -> (usize, usize) {
        self.input_size
    }

    /// What the last successful [`process`](Self::process) found.
    pub fn result(&self) -> &FrameResult {
        &self.result
    }

    /// For each cell of the mask of the first camera's last frame, the probability of its class; for evaluation, since it
    /// allocates. Empty where CUDA does the whole frame and brings back the classes alone.
    pub fn mask_confidence(&self) -> Vec<f32> {
        #[cfg_attr(not(feature = "cuda"), allow(irrefutable_let_patterns, reason = "the only kind"))]
        let Inference::Engine(engine) = &self.inference
        else {
            return Vec::new();
        };
        match (self.cameras.first().and_then(|camera| camera.source.as_ref()), self.segmentation_output) {
            (Some(tables), Some(output)) => tables.mask.confidence(engine.output(output)),
            _ => Vec::new(),
        }
    }

    /// Thresholds for the frames to come, of the same ranges as in [`PipelineOptions`]; one out of range is left as it
    /// was.
    pub fn set_thresholds(&mut self, score_threshold: f32, nms: NmsIou) {
        let options = PipelineOptions { score_threshold, nms, ..self.options };
        if options.check().is_ok() {
            self.options = options;
        }
    }

    /// Whether results have a mask.
    pub fn has_segmentation(&self) -> bool {
        self.segmentation_output.is_some()
    }

    /// Warms up for images of an encoding and `size` (width, height) of `camera`, so that the first of them allocates
    /// nothing. A device that fails here fails again with the image, and the fallback happens then.
    pub fn prepare(&mut self, camera: usize, encoding: Encoding, size: (usize, usize)) {
        if self.cameras.len() <= camera {
            self.cameras.resize_with(camera + 1, Camera::default);
        }
        match &mut self.inference {
            Inference::Engine(_) => {
                SourceTables::for_size(&mut self.cameras[camera].source, size, self.input_size);
            }
            #[cfg(feature = "cuda")]
            Inference::Cuda(cuda) => {
                let _ = cuda.of(camera).and_then(|path| path.prepare(encoding, size));
                if cuda.decoding() == Decoding::OnHost {
                    SourceTables::for_size(&mut self.cameras[camera].source, size, self.input_size);
                }
            }
        }
        // Only the GPU keeps something per encoding.
        let _ = encoding;
    }

    /// Swaps all tracks with another pipeline, as when a new model or the degraded mode takes over the tracked objects.
    pub fn exchange_tracks(&mut self, other: &mut Self) {
        // Only a pipeline that never saw those cameras, that of a new model, has to make room.
        if self.cameras.len() < other.cameras.len() {
            self.cameras.resize_with(other.cameras.len(), Camera::default);
        }
        for (own, others) in self.cameras.iter_mut().zip(&mut other.cameras) {
            std::mem::swap(&mut own.tracker, &mut others.tracker);
        }
    }

    /// Ends all tracks, whose identities are not used again.
    pub fn forget_tracks(&mut self) {
        self.cameras.iter_mut().filter_map(|camera| camera.tracker.as_mut()).for_each(Tracker::forget);
    }

    /// Makes the pipeline fit for another frame after one that panicked: what that may have left half done is made anew,
    /// all that was [begun](Self::begin) as well, and all tracks end, whose identities are not used again.
    pub fn reset(&mut self) {
        #[cfg(feature = "cuda")]
        if let Inference::Cuda(cuda) = &mut self.inference {
            cuda.abandon();
        }
        self.forget_tracks();
        self.cameras.iter_mut().for_each(|camera| camera.source = None);
    }

    /// Forgets every camera: the sizes of their images and the tracks in them.
    pub fn forget_cameras(&mut self) {
        self.cameras.clear();
    }

    /// Processes `image` with the current time as its stamp. The result is valid until the next call.
    ///
    /// # Errors
    /// When the engine fails; the next frame may well succeed.
    pub fn process(&mut self, image: &ImageView) -> Result<&FrameResult, FrameError> {
        self.process_from(0, image, now_ns() as i64)
    }

    /// Processes `image` with `stamp` (nanoseconds of any one clock; the tracker's time) from one of several cameras,
    /// numbered from 0, which share the pipeline. The first image of a camera allocates.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn process_from(&mut self, camera: usize, image: &ImageView, stamp: i64) -> Result<&FrameResult, FrameError> {
        self.finish(camera, image, None, stamp)
    }

    /// Has a GPU begin with `image` of `camera`, to be [finished](Self::finish) later: what was begun of several cameras runs
    /// there side by side. Allocates nothing.
    ///
    /// `None` where nothing was begun, and finishing does it all: on the CPU, for a camera's first image of an encoding and
    /// size, while an image of the camera is unfinished, and when the device fails.
    pub fn begin(&mut self, camera: usize, image: &ImageView) -> Option<Begun> {
        // Used on a GPU alone.
        let _ = (camera, image);
        match &self.inference {
            Inference::Engine(_) => None,
            #[cfg(feature = "cuda")]
            Inference::Cuda(_) => self.begin_on_cuda(camera, image),
        }
    }

    /// As [`process_from`](Self::process_from), with what was `begun` of the same image of the same camera. What cannot be
    /// used, since the device has failed for instance, is done anew.
    ///
    /// # Errors
    /// As [`process`](Self::process).
    pub fn finish(
        &mut self,
        camera: usize,
        image: &ImageView,
        begun: Option<Begun>,
        stamp: i64,
    ) -> Result<&FrameResult, FrameError> {
        if self.cameras.len() <= camera {
            self.cameras.resize_with(camera + 1, Camera::default);
        }
        let score_threshold = self.options.score_threshold;
        let mut times = self.detect(camera, image, begun)?;

        let FrameResult { detections, size, identities, tracks, .. } = &mut self.result;
        *size = image.size();
        if let Some(options) = self.options.tracker() {
            self.observer.enter(Stage::Track);
            // Made with the first image; the options were checked when they were set.
            let tracker = match &mut self.cameras[camera].tracker {
                Some(tracker) => tracker,
                none => none.insert(Tracker::new(options)?),
            };
            tracker.set_scores(options.high_score, options.low_score);
            tracker.update(stamp, detections);
            detections.truncate(detections.partition_point(|d| d.score > score_threshold));
            identities.clear();
            identities.extend_from_slice(&tracker.identities()[..detections.len()]);
            tracks.clear();
            tracks.extend(tracker.tracks());
            times.track_end = now_ns();
        }

        self.result.times = times;
        Ok(&self.result)
    }

    /// The least score of detections that are looked for. The tracker uses lower ones as well. They never displace higher
    /// ones, which come first both in the sorting and in the suppression.
    fn least_score(&self) -> f32 {
        let score_threshold = self.options.score_threshold;
        self.options.tracking.map_or(score_threshold, |t| t.low_score.clamp(0.01, score_threshold))
    }

    /// Fills the detections above the least score and the mask.
    fn detect(&mut self, camera: usize, image: &ImageView, begun: Option<Begun>) -> Result<StageTimes, FrameError> {
        let least_score = self.least_score();
        // Nothing of it is on the CPU.
        let _ = begun;
        match &mut self.inference {
            Inference::Engine(_) => self.detect_on_engine(camera, image, least_score),
            #[cfg(feature = "cuda")]
            Inference::Cuda(_) => self.detect_on_cuda(camera, image, begun, least_score),
        }
    }

    fn detect_on_engine(
        &mut self,
        camera: usize,
        image: &ImageView,
        least_score: f32,
    ) -> Result<StageTimes, FrameError> {
        #[cfg_attr(not(feature = "cuda"), allow(irrefutable_let_patterns, reason = "the only kind"))]
        let Inference::Engine(engine) = &mut self.inference
        else {
            unreachable!("`detect` has looked")
        };
        let observer = &self.observer;
        observer.enter(Stage::Preprocess);
        let preprocess_start = now_ns();
        let tables = SourceTables::for_size(&mut self.cameras[camera].source, image.size(), self.input_size);
        match engine.pixels() {
            Some(input) => tables.letterbox.apply_to(image, &self.normalisation, input),
            None => tables.letterbox.apply(image, &self.normalisation, engine.input()),
        }

        observer.enter(Stage::Inference);
        let preprocess_end = now_ns();
        engine.run()?;

        observer.enter(Stage::Decode);
        let inference_end = now_ns();
        let FrameResult { detections, mask, scene, .. } = &mut self.result;
        self.head.decode(|index| engine.output(index), least_score, detections);
        self.scene.decode(|index| engine.output(index), scene);
        suppress(detections, &self.options, &tables.letterbox);
        if let Some(output) = self.segmentation_output {
            tables.mask.decode(engine.output(output), mask);
        }
        Ok(StageTimes { preprocess_start, preprocess_end, inference_end, decode_end: now_ns(), track_end: 0 })
    }
}

/// From all candidates to the best of each object, in source pixels.
fn suppress(detections: &mut Vec<Detection>, options: &PipelineOptions, letterbox: &Letterbox) {
    non_max_suppression(detections, options.nms, options.max_detections);
    for detection in detections {
        detection.bbox = letterbox.to_source(detection.bbox);
    }
}

impl SourceTables {
    /// The tables for images of `size`: the cached ones in `kept` if they fit, else new ones, cached in their place.
    fn for_size(kept: &mut Option<Self>, size: (usize, usize), input: (usize, usize)) -> &mut Self {
        if kept.as_ref().is_some_and(|tables| tables.letterbox.source() != size) {
            *kept = None;
        }
        kept.get_or_insert_with(|| {
            let letterbox = Letterbox::new(size, input);
            Self { mask: MaskDecoder::new(&letterbox), letterbox }
        })
    }
}
