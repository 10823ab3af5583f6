//! The CPU engine in 8-bit integers: for a [`Quantization`] of a graph, on the same threads as the f32 engine.
//!
//! From the outside in:
//! - `lower`: which steps are integer, and where tensors change form; `program`: stages over one arena;
//! - `convolution`, `movement`: the steps; `layout`: how bytes lie, in blocks of 16 channels;
//! - `isa`: kernels for each instruction set; `tiles`: the kernels; `simd`, `x86`: the vectors they are written over;
//! - [`reference`](mod@reference): the same arithmetic, obvious and slow, which the kernels match bit by bit.
//!
//! Every result is exact integer arithmetic followed by a fixed sequence of f32 operations, so it depends on neither the
//! instruction set nor the number of threads. Steps that stay f32 are the f32 engine's own.

mod convolution;
mod isa;
mod layout;
mod lower;
mod movement;
mod program;
pub mod reference;
mod simd;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::time::{Duration, Instant};

pub use isa::IntegerIsa;

use super::layout::Memory;
use super::pool::Pool;
use super::tiles::MAX_KERNEL;
use super::{lines, Line, LINE};
use crate::engine::{Engine, EngineError, Graph, Quantization, Weights};
use lower::Lowered;

/// Runs a quantized graph on CPU cores.
pub struct Int8Engine {
    // Declared, and so dropped, before the memory that its threads work on.
    pool: Pool<program::Program>,
    isa: IntegerIsa,
    input: Vec<Line>,
    input_len: usize,
    outputs: Vec<Line>,
    /// Offset and length of each output.
    ranges: Vec<(usize, usize)>,
    _work: Vec<Line>,
}

// SAFETY: the raw pointers among the fields are the pool's, to memory that moves with the engine as vectors.
unsafe impl Send for Int8Engine {}

impl Int8Engine {
    /// Prepares `graph` for `threads` threads, the caller of [`run`](Engine::run) included (0 counts as 1), with the
    /// best instruction set that the processor has. Layers without 8-bit weights are computed in f32 from `weights`.
    ///
    /// # Errors
    /// When `weights` or `quantization` do not fit `graph`, or a convolution's kernel is larger than 7.
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
        if let Some((layer, conv, _)) = graph.convs().find(|(_, conv, _)| conv.kernel > MAX_KERNEL) {
            let why = format!("{} has a kernel of {}, and the largest is {MAX_KERNEL}", layer.name, conv.kernel);
            return Err(fault(why));
        }
        let threads = threads.clamp(1, 256);
        let lowered = Lowered::new(graph, quantization)?;
        let program = program::build(graph, weights, quantization, &lowered, isa, threads);
        let lengths = graph.outputs.iter().map(|&id| graph.layers[id].shape.len());
        let ranges: Vec<_> = program.outputs.iter().copied().zip(lengths).collect();

        let mut input = lines(graph.input_shape().len());
        let mut outputs = lines(ranges.last().map_or(0, |(at, len)| at + len));
        // One line more: kernels read a little past a row's end.
        let mut work = lines(program.arena + LINE);
        let memory = Memory {
            arena: work.as_mut_ptr().cast(),
            // Only chains of the f32 engine have scratch.
            scratch: std::ptr::null_mut(),
            input: input.as_mut_ptr().cast(),
            outputs: outputs.as_mut_ptr().cast(),
        };
        // SAFETY: sized as the program says just above; the vectors live in the engine, after the pool.
        let pool = unsafe { Pool::new(program, vec![memory; threads]) }
            .map_err(|e| fault(format!("a thread could not be started: {e}")))?;
        Ok(Self { pool, isa, input, input_len: graph.input_shape().len(), outputs, ranges, _work: work })
    }

    /// Whether `quantization` can be run for `graph`.
    ///
    /// # Errors
    /// Names the layer at fault.
    pub fn check(graph: &Graph, quantization: &Quantization) -> Result<(), EngineError> {
        quantization.check(graph)?;
        Lowered::new(graph, quantization).map(|_| ())
    }

    /// The instruction set in use.
    pub fn isa(&self) -> IntegerIsa {
        self.isa
    }

    /// What runs, as a table for people.
    pub fn explain(&self) -> String {
        self.pool.program().explain()
    }

    /// The least time that each stage took in `runs` runs, by its name.
    pub fn profile(&mut self, runs: usize) -> Vec<(String, Duration)> {
        let stages = self.pool.program().stages.len();
        let mut least = vec![Duration::MAX; stages];
        for _ in 0..runs {
            let mut before = Instant::now();
            self.pool.run(|stage| {
                let now = Instant::now();
                least[stage] = least[stage].min(now - before);
                before = now;
            });
        }
        self.pool.program().stages.iter().map(|s| s.name.clone()).zip(least).collect()
    }
}

impl Engine for Int8Engine {
    fn input(&mut self) -> &mut [f32] {
        // SAFETY: a line is that many floats, and nothing reads the input between runs.
        unsafe { std::slice::from_raw_parts_mut(self.input.as_mut_ptr().cast(), self.input_len) }
    }

    fn run(&mut self) -> Result<(), EngineError> {
        self.pool.run(|_| ());
        Ok(())
    }

    fn output(&self, index: usize) -> &[f32] {
        let (at, len) = self.ranges[index];
        // SAFETY: within the outputs, which nothing writes between runs.
        unsafe { std::slice::from_raw_parts(self.outputs.as_ptr().cast::<f32>().add(at), len) }
    }
}
