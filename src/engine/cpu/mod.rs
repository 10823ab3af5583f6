//! The CPU engine: fused kernels over channels in blocks of 8, for the instruction set found at run
//! time.
//!
//! From the outside in:
//! - `program`: a [`Plan`](super::plan::Plan) becomes stages over one arena;
//! - `stage`: what a stage does: one step, or a chain of convolutions band by band, in cache;
//! - `executor`: a program with its memory and threads; `pool`: these share each stage;
//! - `convolution`, `winograd`, `pooling`, `elementwise`, `bilinear`, `movement`: the steps; `plain`:
//!   those without weights as actions; `layout`, `views`: how their tensors lie; `input_channels`:
//!   where a dense convolution finds its input;
//! - [`explain`]: a human-readable report of all that;
//! - `residual`: what is added to a result; `band_split`: how threads share Winograd's convolutions;
//! - `kernels`: the kernels of each instruction set, compiled by `dispatch`; `isa`: which sets the
//!   processor has; `tiles`: the kernels; `simd`: the vectors that they are written over;
//! - [`int8`]: the same in 8-bit integers, for a quantized network.
//!
//! The result does not depend on the number of threads: each value is computed by the same
//! operations in the same order.

#![deny(clippy::undocumented_unsafe_blocks)]

mod band_split;
mod bilinear;
mod convolution;
mod dispatch;
mod elementwise;
mod executor;
pub mod explain;
mod input_channels;
pub mod int8;
mod isa;
mod kernels;
mod layout;
mod movement;
mod plain;
mod pool;
mod pooling;
mod program;
mod residual;
mod simd;
mod stage;
mod tiles;
mod views;
mod winograd;

use std::time::Duration;

use executor::Executor;
pub use explain::PlanReport;
pub use isa::Isa;

use super::{Engine, EngineError, Graph, PixelInput, Weights};

/// Runs a graph on CPU cores, in f32.
pub struct CpuEngine {
    executor: Executor<program::FloatProgram>,
    isa: Isa,
}

impl CpuEngine {
    /// Prepares `graph` for `threads` threads, the caller of [`run`](Engine::run) included (0
    /// counts as 1), with the best instruction set that the processor has.
    ///
    /// # Errors
    /// When `weights` do not fit `graph`, or a convolution's kernel is larger than 8.
    pub fn new(graph: &Graph, weights: &Weights, threads: usize) -> Result<Self, EngineError> {
        Self::with_isa(graph, weights, threads, Isa::best())
    }

    /// As [`new`](Self::new), with an instruction set chosen from [`Isa::available`].
    ///
    /// # Errors
    /// Also when the processor lacks the instruction set.
    pub fn with_isa(graph: &Graph, weights: &Weights, threads: usize, isa: Isa) -> Result<Self, EngineError> {
        let fault = |why: String| EngineError::Unsupported { device: "CPU", why };
        weights.check(graph)?;
        if !Isa::available().contains(&isa) {
            return Err(fault(format!("this processor has no {isa:?}")));
        }
        let threads = executor::clamp_thread_count(threads);
        let program = program::build(graph, weights, isa, threads)?;
        Ok(Self { executor: Executor::new(program, graph, threads)?, isa })
    }

    /// Pins the calling thread, which is to call [`run`](Engine::run), and each of the engine's own
    /// to a CPU of `cpus`, in order; from the start again where there are more threads than CPUs.
    ///
    /// # Errors
    /// When `cpus` is empty or names a CPU that does not exist or that this process may not use;
    /// also on systems other than Linux.
    pub fn pin(&self, cpus: &[usize]) -> Result<(), EngineError> {
        self.executor.pin(cpus)
    }

    /// Gives each of the engine's own threads a CPU of its own among those that the calling thread
    /// may use, from the second on; the thread that calls [`run`](Engine::run) is left as it is.
    ///
    /// # Errors
    /// When the system does not let this process choose; on systems other than Linux.
    pub fn pin_helpers(&self) -> Result<(), EngineError> {
        self.executor.pin_helpers()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// A human-readable report of what runs: shapes, operations, memory and kernels, step by step,
    /// and what each stage takes at least in `runs` runs; without times where that is 0.
    pub fn explain(&mut self, runs: usize) -> PlanReport {
        self.executor.explain(runs, format!("{:?}", self.isa), || explain::peak(self.isa.kernels().peak))
    }

    /// The least time that each stage took in `runs` runs, by the name of its last step.
    pub fn profile(&mut self, runs: usize) -> Vec<(String, Duration)> {
        self.executor.profile(runs)
    }
}

impl Engine for CpuEngine {
    fn input(&mut self) -> &mut [f32] {
        self.executor.input()
    }

    fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        self.executor.pixels()
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.executor.run();
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        self.executor.output(index)
    }
}
