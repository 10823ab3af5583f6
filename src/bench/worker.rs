//! What is under test: a pipeline with its images, or the network alone.

use std::sync::Arc;

use super::frames::Frames;
use super::progress::Progress;
use super::record::Layer;
use super::schedule::{BoxedWork, Work};
use super::stall::{Faults, ObservedEngine, Pauses};
use super::usage::Metered;
use crate::engine::Engine;
use crate::pipeline::frame::graph_for;
use crate::pipeline::{now_ns, FrameError, Pipeline, PipelineError, PipelineOptions, StageTimes};
use crate::preprocess::{Letterbox, Normalisation};
use crate::student::Student;

/// Makes the work of one camera, warmed up with `warm_up` frames, unmeasured and without faults. Cameras begin at
/// different images.
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
) -> Result<BoxedWork, PrepareError> {
    options.check()?;
    let architecture = &student.manifest.architecture;
    let engine = student.cpu_engine(&graph_for(architecture, options), options.threads, options.pin_threads)?;
    let (pauses, progress) = (Arc::new(Pauses::default()), Arc::new(Progress::default()));
    let engine = Box::new(ObservedEngine { engine, pauses: pauses.clone(), progress: progress.clone() });
    let observed = Observed { pauses, progress, faults: faults.clone() };
    let (frames, first) = (Arc::clone(frames), camera * 5);
    Ok(match layer {
        Layer::Engine => {
            let mut work = EngineWork { engine, observed };
            fill_input(&mut work.engine.engine, student, options, &frames);
            (0..warm_up).try_for_each(|_| work.engine.run())?;
            Box::new(Metered::new(work))
        }
        Layer::Pipeline | Layer::Node => {
            let pipeline = Pipeline::with_engine(architecture, engine, options.clone())?;
            let mut work = PipelineWork { pipeline, frames, first, observed };
            for index in 0..warm_up {
                work.pipeline.process(&work.frames.image(index))?;
            }
            Box::new(Metered::new(work))
        }
    })
}

/// Why there is nothing to measure.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Engine(#[from] crate::engine::EngineError),
}

/// The faults still to come, and what is told to those who watch.
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
