//! The CPU engine in 8-bit integers: for a [`Quantization`] of a graph, on the same threads as the
//! f32 engine.
//!
//! From the outside in:
//! - `program`: stages over one arena, for what [`crate::quantized_plan`] says is integer;
//! - `explain`: a human-readable report of its stages;
//! - `stage`: what a stage does; `convolution`, `plain`, `movement`: the steps; `packing`: their weights;
//!   `layout`: how bytes lie, in blocks of 16 channels; `parts`: which lie within others;
//! - `residual`: what is added to a result; `winograd`: 3×3 convolutions by fewer multiplications;
//! - `kernels`: the kernels of each instruction set; `isa`: which sets the processor has; `tiles`:
//!   the kernels; `simd`, `x86`, `neon`: the vectors that they are written over;
//! - [`reference`](mod@reference): the same arithmetic, obvious and slow, which the kernels match
//!   bit by bit.
//!
//! Every result is exact integer arithmetic followed by a fixed sequence of f32 operations, so it
//! depends on neither the instruction set nor the number of threads. Steps that stay f32 are the
//! f32 engine's own.

mod convolution;
mod explain;
mod isa;
mod kernels;
mod layout;
mod movement;
#[cfg(target_arch = "aarch64")]
mod neon;
mod packing;
mod parts;
mod plain;
mod program;
pub mod reference;
mod residual;
mod simd;
mod stage;
mod tiles;
mod winograd;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::time::Duration;

pub use isa::IntegerIsa;

use super::executor::{clamp_thread_count, Executor};
use super::program::check_kernels;
use super::PlanReport;
use crate::quantization::TensorScale;
use crate::quantized_plan::Lowered;
use crate::{Engine, EngineError, Graph, Quantization, Weights};
use peregrine_core::PixelInput;

/// Runs a quantized graph on CPU cores.
pub struct Int8Engine {
    executor: Executor<program::IntegerProgram>,
    isa: IntegerIsa,
}

impl Int8Engine {
    /// Prepares `graph` for `threads` threads, the caller of [`run`](Engine::run) included (0
    /// counts as 1), with the best instruction set that the processor has. Layers without 8-bit
    /// weights are computed in f32 from `weights`.
    ///
    /// # Errors
    /// When `weights` or `quantization` do not fit `graph`, or a convolution's kernel is larger
    /// than 8.
    pub fn new(
        graph: &Graph,
        weights: &Weights,
        quantization: &Quantization,
        threads: usize,
    ) -> Result<Self, EngineError> {
        Self::with_isa(graph, weights, quantization, threads, IntegerIsa::best())
    }

    /// As [`new`](Self::new), with an instruction set chosen from [`IntegerIsa::available`].
    ///
    /// # Errors
    /// Also when the processor lacks the instruction set.
    pub fn with_isa(
        graph: &Graph,
        weights: &Weights,
        quantization: &Quantization,
        threads: usize,
        isa: IntegerIsa,
    ) -> Result<Self, EngineError> {
        let fault = |why: String| EngineError::Unsupported { device: "CPU", why };
        weights.check(graph)?;
        quantization.check(graph)?;
        if !IntegerIsa::available().contains(&isa) {
            return Err(fault(format!("this processor has no {isa:?}")));
        }
        check_kernels(graph)?;
        let threads = clamp_thread_count(threads);
        let lowered = Lowered::new(graph, quantization)?;
        let program = program::build(graph, weights, quantization, &lowered, isa, threads);
        Ok(Self { executor: Executor::new(program, graph, threads)?, isa })
    }

    /// Whether `quantization` can be run for `graph`.
    ///
    /// # Errors
    /// Names the layer at fault.
    pub fn check(graph: &Graph, quantization: &Quantization) -> Result<(), EngineError> {
        quantization.check(graph)?;
        Lowered::new(graph, quantization).map(|_| ())
    }

    /// For each layer of `graph` the scale of its result, where the engine holds that in bytes.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn byte_tensors(graph: &Graph, quantization: &Quantization) -> Result<Vec<Option<TensorScale>>, EngineError> {
        quantization.check(graph)?;
        let lowered = Lowered::new(graph, quantization)?;
        let mut layers = vec![None; graph.layers.len()];
        for (tensor, &scale) in lowered.plan.tensors.iter().zip(&lowered.scales) {
            layers[tensor.layer] = scale;
        }
        Ok(layers)
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
    pub fn isa(&self) -> IntegerIsa {
        self.isa
    }

    /// As [`CpuEngine::pin`](super::CpuEngine::pin).
    ///
    /// # Errors
    /// As there.
    pub fn pin(&self, cpus: &[usize]) -> Result<(), EngineError> {
        self.executor.pin(cpus)
    }

    /// As [`CpuEngine::explain`](super::CpuEngine::explain); the peak is that of integer products.
    pub fn explain(&mut self, runs: usize) -> PlanReport {
        let peak = || super::explain::peak(self.isa.kernels(true).peak);
        self.executor.explain(runs, format!("{:?} in 8-bit integers", self.isa), peak)
    }

    /// The least time that each stage took in `runs` runs, by its name.
    pub fn profile(&mut self, runs: usize) -> Vec<(String, Duration)> {
        self.executor.profile(runs)
    }
}

impl Engine for Int8Engine {
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
