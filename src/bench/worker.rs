//! The workload under test: a pipeline with its images, or the network alone.

use std::sync::Arc;

use peregrine_core::now_ns;
use peregrine_engine::Engine;
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{DeviceChoice, FrameError, Pipeline, PipelineError, PipelineOptions, StageTimes};
use peregrine_student::Student;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::frames::Frames;
use super::progress::WorkerProgress;
use super::record::BenchLayer;
use super::schedule::{BoxedWorkload, Workload};
use super::stall::{Faults, ObservedEngine, Pauses};
use super::usage::Metered;
use super::warm_up;

/// Creates the workload of one camera and warms it up, without faults; returns it with the number
/// of warm-up frames. Cameras start at different images.
///
/// # Errors
/// If the options do not fit the student, or the engine fails.
pub fn prepare(
    layer: BenchLayer,
    student: &Student,
    options: &PipelineOptions,
    frames: &Arc<Frames>,
    faults: &Faults,
    (camera, warm_up): (usize, usize),
    device: DeviceChoice,
) -> Result<(BoxedWorkload, usize), PrepareError> {
    options.check()?;
    let (frames, first) = (Arc::clone(frames), camera * 5);
    let work = |pipeline, observed| PipelineWorkload { pipeline, frames: Arc::clone(&frames), first, observed };
    if device.is_cuda() {
        let pipeline = Pipeline::on(student, options.clone(), device)?;
        return work(pipeline, Observed::default()).warmed_up(warm_up);
    }
    let architecture = &student.manifest.architecture;
    let engine = student.cpu_engine(&graph_for(architecture, options), options.threads, options.pin_threads)?;
    let (pauses, progress) = (Arc::new(Pauses::default()), Arc::new(WorkerProgress::default()));
    let engine = Box::new(ObservedEngine { engine, pauses: pauses.clone(), progress: progress.clone() });
    let observed = Observed { pauses, progress, faults: faults.clone() };
    match layer {
        BenchLayer::Engine => {
            let mut work = EngineWorkload { engine, observed };
            fill_input(&mut work.engine.engine, student, options, &frames);
            let warmed = warm_up::until_stable(warm_up, |_| work.engine.run())?;
            Ok((Box::new(Metered::new(work)), warmed))
        }
        BenchLayer::Pipeline | BenchLayer::Node | BenchLayer::ForeignNode => {
            work(Pipeline::with_engine(architecture, engine, options.clone())?, observed).warmed_up(warm_up)
        }
    }
}

/// Why the workload cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Engine(#[from] peregrine_engine::EngineError),
}

/// Faults to inject, and progress to publish.
#[derive(Default)]
struct Observed {
    pauses: Arc<Pauses>,
    progress: Arc<WorkerProgress>,
    faults: Faults,
}

impl Observed {
    fn arm(&mut self, index: usize) {
        if !self.faults.is_empty() {
            self.pauses.arm(self.faults.pauses(index));
        }
    }
}

/// From an image in memory to boxes and mask.
struct PipelineWorkload {
    pipeline: Pipeline,
    frames: Arc<Frames>,
    first: usize,
    observed: Observed,
}

impl PipelineWorkload {
    fn warmed_up(mut self, block: usize) -> Result<(BoxedWorkload, usize), PrepareError> {
        let warmed =
            warm_up::until_stable(block, |index| self.pipeline.process(&self.frames.image(index)).map(|_| ()))?;
        Ok((Box::new(Metered::new(self)), warmed))
    }
}

impl Workload for PipelineWorkload {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        self.observed.arm(index);
        self.pipeline.process(&self.frames.image(self.first + index)).ok().map(|result| result.times)
    }

    fn progress(&self) -> Arc<WorkerProgress> {
        Arc::clone(&self.observed.progress)
    }
}

/// Preprocesses the first image into the network's input, and returns the input.
pub(crate) fn fill_input(
    engine: &mut Box<dyn Engine>,
    student: &Student,
    options: &PipelineOptions,
    frames: &Frames,
) -> Vec<f32> {
    let input = &student.manifest.architecture.input;
    let size = options.input_size.unwrap_or((input.width, input.height));
    let normalisation = Normalisation { mean: input.mean, std: input.std };
    Letterbox::new((frames.width, frames.height), size).apply(&frames.image(0), &normalisation, engine.input());
    engine.input().to_vec()
}

/// The network alone, always on the same input.
struct EngineWorkload {
    engine: Box<ObservedEngine>,
    observed: Observed,
}

impl Workload for EngineWorkload {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        self.observed.arm(index);
        let start = now_ns();
        self.engine.run().ok()?;
        let end = now_ns();
        let times = StageTimes { preprocess_start: start, preprocess_end: start, ..StageTimes::default() };
        Some(StageTimes { inference_end: end, decode_end: end, ..times })
    }

    fn progress(&self) -> Arc<WorkerProgress> {
        Arc::clone(&self.observed.progress)
    }
}
