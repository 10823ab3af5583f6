//! What is under test: a pipeline with its images, or the network alone.

use std::sync::Arc;

use peregrine_core::now_ns;
use peregrine_engine::Engine;
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{DeviceChoice, FrameError, Pipeline, PipelineError, PipelineOptions, StageTimes};
use peregrine_student::Student;
use peregrine_vision::preprocess::{Letterbox, Normalisation};

use super::frames::Frames;
use super::progress::Progress;
use super::record::Layer;
use super::schedule::{BoxedWork, Work};
use super::stall::{Faults, ObservedEngine, Pauses};
use super::usage::Metered;
use super::warm;

/// Makes the work of one camera, warmed up, unmeasured and without faults; with the number of frames that took. Cameras
/// begin at different images.
///
/// # Errors
/// When the options do not suit the student, or the engine fails.
pub fn prepare(
    layer: Layer,
    student: &Student,
    options: &PipelineOptions,
    frames: &Arc<Frames>,
    faults: &Faults,
    (camera, warm_up): (usize, usize),
    device: DeviceChoice,
) -> Result<(BoxedWork, usize), PrepareError> {
    options.check()?;
    let (frames, first) = (Arc::clone(frames), camera * 5);
    let work = |pipeline, observed| PipelineWork { pipeline, frames: Arc::clone(&frames), first, observed };
    if device == DeviceChoice::Cuda {
        let pipeline = Pipeline::on(student, options.clone(), device)?;
        return work(pipeline, Observed::default()).warmed_up(warm_up);
    }
    let architecture = &student.manifest.architecture;
    let engine = student.cpu_engine(&graph_for(architecture, options), options.threads, options.pin_threads)?;
    let (pauses, progress) = (Arc::new(Pauses::default()), Arc::new(Progress::default()));
    let engine = Box::new(ObservedEngine { engine, pauses: pauses.clone(), progress: progress.clone() });
    let observed = Observed { pauses, progress, faults: faults.clone() };
    match layer {
        Layer::Engine => {
            let mut work = EngineWork { engine, observed };
            fill_input(&mut work.engine.engine, student, options, &frames);
            let warmed = warm::until_stable(warm_up, |_| work.engine.run())?;
            Ok((Box::new(Metered::new(work)), warmed))
        }
        Layer::Pipeline | Layer::Node => {
            work(Pipeline::with_engine(architecture, engine, options.clone())?, observed).warmed_up(warm_up)
        }
    }
}

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Engine(#[from] peregrine_engine::EngineError),
}

/// The faults still to come, and what is told to those who watch.
#[derive(Default)]
struct Observed {
    pauses: Arc<Pauses>,
    progress: Arc<Progress>,
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
struct PipelineWork {
    pipeline: Pipeline,
    frames: Arc<Frames>,
    first: usize,
    observed: Observed,
}

impl PipelineWork {
    fn warmed_up(mut self, least: usize) -> Result<(BoxedWork, usize), PrepareError> {
        let warmed = warm::until_stable(least, |index| self.pipeline.process(&self.frames.image(index)).map(|_| ()))?;
        Ok((Box::new(Metered::new(self)), warmed))
    }
}

impl Work for PipelineWork {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        self.observed.arm(index);
        self.pipeline.process(&self.frames.image(self.first + index)).ok().map(|result| result.times)
    }

    fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.observed.progress)
    }
}

/// Puts the first image into the network's input.
fn fill_input(engine: &mut Box<dyn Engine>, student: &Student, options: &PipelineOptions, frames: &Frames) {
    let input = &student.manifest.architecture.input;
    let size = options.input_size.unwrap_or((input.width, input.height));
    let normalisation = Normalisation { mean: input.mean, std: input.std };
    Letterbox::new((frames.width, frames.height), size).apply(&frames.image(0), &normalisation, engine.input());
}

/// The network alone, on one and the same input.
struct EngineWork {
    engine: Box<ObservedEngine>,
    observed: Observed,
}

impl Work for EngineWork {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        self.observed.arm(index);
        let start = now_ns();
        self.engine.run().ok()?;
        let end = now_ns();
        let times = StageTimes { preprocess_start: start, preprocess_end: start, ..StageTimes::default() };
        Some(StageTimes { inference_end: end, decode_end: end, ..times })
    }

    fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.observed.progress)
    }
}
