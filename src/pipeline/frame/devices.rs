//! Pipelines on the device that is asked for.

use std::sync::Arc;

use peregrine_core::ClassMask;
use peregrine_engine::Engine;
use peregrine_student::{Architecture, Student};
use peregrine_vision::decode::mask::MASK_STRIDE;
use peregrine_vision::decode::{HeadDecoder, SceneDecoder};
use peregrine_vision::preprocess::Normalisation;

use super::{FrameResult, Inference, Pipeline};
use crate::device::DeviceChoice;
use crate::graph::graph_for;
use crate::options::{PipelineError, PipelineOptions};

impl Pipeline {
    /// A pipeline on the CPU.
    ///
    /// # Errors
    /// When an option is out of range, or the student's weights do not fit its architecture.
    pub fn new(student: &Student, options: PipelineOptions) -> Result<Self, PipelineError> {
        options.check_for(&student.manifest.architecture)?;
        let graph = graph_for(&student.manifest.architecture, &options);
        let engine = student.cpu_engine(&graph, options.threads, options.pin_threads)?;
        Self::with_engine(&student.manifest.architecture, engine, options)
    }

    /// A pipeline on the device that `choice` asks for; [`device`](Self::device) tells which one it got.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`PipelineError::Device`] when `choice` is [`DeviceChoice::Cuda`] and CUDA is unusable.
    pub fn on(student: &Student, options: PipelineOptions, choice: DeviceChoice) -> Result<Self, PipelineError> {
        #[cfg(feature = "cuda")]
        if let Some(number) = choice.cuda_device() {
            let opened = peregrine_engine::cuda::open(number);
            return Self::on_opened(opened, student, options, choice == DeviceChoice::Auto);
        }
        let why = "this program was built without the feature cuda";
        match choice {
            DeviceChoice::Cpu => Self::new(student, options),
            DeviceChoice::Cuda(_) => Err(PipelineError::Device(why.into())),
            DeviceChoice::Auto => Ok(Self { instead_of_cuda: Some(why.into()), ..Self::new(student, options)? }),
        }
    }

    /// A pipeline on a CUDA device that was `opened`. If it was not, is unusable, or fails later, the CPU takes over,
    /// provided that `fallback` is set.
    ///
    /// # Errors
    /// When an option is out of range, and [`PipelineError::Device`] when CUDA is unusable and `fallback` is not set.
    #[cfg(feature = "cuda")]
    pub fn on_opened(
        opened: Result<std::sync::Arc<dyn peregrine_engine::cuda::Driver>, peregrine_engine::cuda::CudaError>,
        student: &Student,
        options: PipelineOptions,
        fallback: bool,
    ) -> Result<Self, PipelineError> {
        options.check_for(&student.manifest.architecture)?;
        let on_cuda = |driver| Self::on_cuda(&driver, student, &options, fallback).map_err(|e| e.to_string());
        match opened.map_err(|e| e.to_string()).and_then(on_cuda) {
            Ok(pipeline) => Ok(pipeline),
            Err(why) if fallback => Ok(Self { instead_of_cuda: Some(why), ..Self::new(student, options)? }),
            Err(why) => Err(PipelineError::Device(why)),
        }
    }

    /// A pipeline on a CUDA driver, real or emulated. With `fallback`, a device that fails later is replaced by the CPU.
    ///
    /// # Errors
    /// When an option is out of range, or the device fails.
    #[cfg(feature = "cuda")]
    pub fn on_cuda(
        driver: &std::sync::Arc<dyn peregrine_engine::cuda::Driver>,
        student: &Student,
        options: &PipelineOptions,
        fallback: bool,
    ) -> Result<Self, PipelineError> {
        options.check_for(&student.manifest.architecture)?;
        let path = crate::cuda::CudaFrontEnd::new(driver, student, options, fallback)?;
        Ok(Self::with(&student.manifest.architecture, Inference::Cuda(Box::new(path.into())), options.clone()))
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
        options.check_for(architecture)?;
        Ok(Self::with(architecture, Inference::Engine(engine), options))
    }

    /// `options` have been checked.
    fn with(architecture: &Architecture, inference: Inference, options: PipelineOptions) -> Self {
        let input = &architecture.input;
        let input_size = options.input_size.unwrap_or((input.width, input.height));
        let head = HeadDecoder::new(architecture, input_size.0, input_size.1);
        let scene = SceneDecoder::new(architecture);
        let segmentation_output = architecture.segmentation_output().filter(|_| options.segmentation);
        let cells = segmentation_output.map_or(0, |_| input_size.0 * input_size.1 / (MASK_STRIDE * MASK_STRIDE));
        let result = FrameResult {
            detections: Vec::with_capacity(head.max_detections()),
            identities: Vec::with_capacity(options.max_detections),
            tracks: Vec::with_capacity(options.tracking.map_or(0, |tracking| tracking.max_tracks)),
            mask: ClassMask { classes: Vec::with_capacity(cells), ..ClassMask::default() },
            scene: Vec::with_capacity(scene.classes()),
            ..FrameResult::default()
        };
        Self {
            inference,
            instead_of_cuda: None,
            options,
            input_size,
            normalisation: Normalisation { mean: input.mean, std: input.std },
            head,
            scene,
            segmentation_output,
            cameras: Vec::new(),
            result,
            observer: Arc::new(()),
        }
    }
}
