//! The hot path: what happens to one frame, in the order in which it happens.

use super::timing::{now_ns, StageTimes};
use crate::decode::{non_max_suppression, ClassMask, Detection, HeadDecoder, MaskDecoder};
use crate::engine::{Engine, EngineError, Graph};
use crate::preprocess::{ImageView, Letterbox, Normalisation};
use crate::student::architecture::MAX_STRIDE;
use crate::student::{Architecture, Student};

/// What a pipeline is to do with each frame.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineOptions {
    /// Least score of a detection, 0 to 1 (exclusive).
    pub score_threshold: f32,
    /// Intersection over union, 0 to 1, above which the lesser of two boxes of a class is dropped.
    pub nms_iou: f32,
    /// Most detections of a frame, 1 to 1000.
    pub max_detections: usize,
    /// Whether to compute the mask. Without it the network is cut before its segmentation head.
    pub segmentation: bool,
    /// Threads that the engine may use, 1 to 256, the caller's included.
    pub threads: usize,
    /// Width and height of the network's input, multiples of 32 up to 4096; the student's own where none.
    pub input_size: Option<(usize, usize)>,
}

impl Default for PipelineOptions {
    fn default() -> Self {
        Self {
            score_threshold: 0.3,
            nms_iou: 0.6,
            max_detections: 100,
            segmentation: true,
            threads: 1,
            input_size: None,
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
        if !(0.0..=1.0).contains(&self.nms_iou) {
            return fault("nms_iou", format!("is {}; it must be 0 to 1", self.nms_iou));
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
        Ok(())
    }
}

/// Why a pipeline cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error("option {option} {why}")]
    Option { option: &'static str, why: String },
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// Why a frame yields no result.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is known of a frame. Owned by the pipeline and overwritten by the next frame.
#[derive(Debug, Clone, Default)]
pub struct FrameResult {
    /// By falling score; boxes in source pixels, clipped to the image.
    pub detections: Vec<Detection>,
    /// Most likely class of each cell; empty without segmentation.
    pub mask: ClassMask,
    pub times: StageTimes,
}

/// A student ready to process frames. Holds every buffer, so that [`process`](Self::process) allocates nothing while
/// the images keep their size.
pub struct Pipeline {
    engine: Box<dyn Engine>,
    options: PipelineOptions,
    input_size: (usize, usize),
    normalisation: Normalisation,
    head: HeadDecoder,
    /// For the size of the last image; none before the first.
    source: Option<SourceTables>,
    result: FrameResult,
}

/// What depends on the size of the source images.
struct SourceTables {
    letterbox: Letterbox,
    mask: MaskDecoder,
}

impl Pipeline {
    /// A pipeline on the CPU.
    ///
    /// # Errors
    /// When an option is out of range, or the student's weights do not fit its architecture.
    pub fn new(student: &Student, options: PipelineOptions) -> Result<Self, PipelineError> {
        options.check()?;
        let graph = graph_for(&student.manifest.architecture, &options);
        let engine = student.cpu_engine(&graph, options.threads)?;
        Self::with_engine(&student.manifest.architecture, engine, options)
    }

    /// A pipeline on any engine that runs the graph of [`graph_for`] with the same options.
    ///
    /// # Errors
    /// When an option is out of range.
    pub fn with_engine(
        architecture: &Architecture,
        engine: Box<dyn Engine>,
        options: PipelineOptions,
    ) -> Result<Self, PipelineError> {
        options.check()?;
        let input = &architecture.input;
        let input_size = options.input_size.unwrap_or((input.width, input.height));
        let head = HeadDecoder::new(architecture, input_size.0, input_size.1);
        let detections = Vec::with_capacity(head.max_detections());
        Ok(Self {
            engine,
            options,
            input_size,
            normalisation: Normalisation { mean: input.mean, std: input.std },
            head,
            source: None,
            result: FrameResult { detections, ..FrameResult::default() },
        })
    }

    /// Width and height of the network's input, in pixels.
    pub fn input_size(&self) -> (usize, usize) {
        self.input_size
    }

    /// What the last successful [`process`](Self::process) found.
    pub fn result(&self) -> &FrameResult {
        &self.result
    }

    /// Thresholds for the frames to come, of the same ranges as in [`PipelineOptions`]; one out of range is left as it
    /// was.
    pub fn set_thresholds(&mut self, score_threshold: f32, nms_iou: f32) {
        let options = PipelineOptions { score_threshold, nms_iou, ..self.options };
        if options.check().is_ok() {
            self.options = options;
        }
    }

    /// Finds what is in `image`. The result is valid until the next call.
    ///
    /// # Errors
    /// When the engine fails; the next frame may well succeed.
    pub fn process(&mut self, image: &ImageView) -> Result<&FrameResult, FrameError> {
        let preprocess_start = now_ns();
        let tables = SourceTables::for_size(&mut self.source, image.size(), self.input_size);
        tables.letterbox.apply(image, &self.normalisation, self.engine.input());

        let preprocess_end = now_ns();
        self.engine.run()?;

        let inference_end = now_ns();
        let FrameResult { detections, mask, times } = &mut self.result;
        self.head.decode(|index| self.engine.output(index), self.options.score_threshold, detections);
        non_max_suppression(detections, self.options.nms_iou, self.options.max_detections);
        for detection in detections.iter_mut() {
            detection.bbox = tables.letterbox.to_source(detection.bbox);
        }
        if self.options.segmentation {
            tables.mask.decode(self.engine.output(Architecture::SEGMENTATION_OUTPUT), mask);
        }

        *times = StageTimes { preprocess_start, preprocess_end, inference_end, decode_end: now_ns() };
        Ok(&self.result)
    }
}

impl SourceTables {
    /// The tables for images of `size`: those in `kept` if they fit, else new ones, kept in their turn.
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

/// The graph that a pipeline with `options` runs: of the asked size, and without the segmentation head if it is off.
pub fn graph_for(architecture: &Architecture, options: &PipelineOptions) -> Graph {
    let input = &architecture.input;
    let (width, height) = options.input_size.unwrap_or((input.width, input.height));
    let mut graph = architecture.graph(width, height);
    if !options.segmentation {
        // Its layers come last, and nothing else reads them.
        graph.outputs.truncate(Architecture::SEGMENTATION_OUTPUT);
        let last = graph.outputs.iter().max().copied().unwrap_or(0);
        graph.layers.truncate(last + 1);
    }
    graph
}
