//! The pipeline under test.

use super::frames::Frames;
use super::schedule::Work;
use super::stall::{Stall, StallPlan};
use crate::pipeline::frame::graph_for;
use crate::pipeline::{FrameError, Pipeline, PipelineError, PipelineOptions, StageTimes};
use crate::student::Student;

/// A pipeline with its images and the stalls it is to suffer.
pub struct PipelineWork<'a> {
    pipeline: Pipeline,
    frames: &'a Frames,
    stalls: StallPlan,
}

impl<'a> PipelineWork<'a> {
    /// The student on the CPU.
    ///
    /// # Errors
    /// As [`Pipeline::new`].
    pub fn new(
        student: &Student,
        options: PipelineOptions,
        frames: &'a Frames,
        stalls: Vec<Stall>,
    ) -> Result<Self, PipelineError> {
        options.check()?;
        let architecture = &student.manifest.architecture;
        let engine = student.cpu_engine(&graph_for(architecture, &options), options.threads)?;
        let (stalls, engine) = StallPlan::new(stalls, engine);
        Ok(Self { pipeline: Pipeline::with_engine(architecture, engine, options)?, frames, stalls })
    }

    /// Processes `count` frames, unmeasured and without stalls.
    ///
    /// # Errors
    /// When the engine fails.
    pub fn warm_up(&mut self, count: usize) -> Result<(), FrameError> {
        (0..count).try_for_each(|index| self.pipeline.process(&self.frames.image(index)).map(|_| ()))
    }
}

impl Work for PipelineWork<'_> {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        self.stalls.arm(index);
        self.pipeline.process(&self.frames.image(index)).ok().map(|result| result.times)
    }
}
