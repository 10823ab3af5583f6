//! The CPU engine: fused kernels over channels in blocks of 8, for the instruction set found at run time.
//!
//! From the outside in:
//! - `program`: a [`Plan`](super::plan::Plan) becomes stages over one arena;
//! - `stage`: what a stage does: one step, or a chain of convolutions band by band, in cache;
//! - `pool`: threads share each stage;
//! - `convolution`, `winograd`, `pooling`, `movement`: the steps; `layout`: how their tensors lie; `input_channels`: where a dense
//!   convolution finds its input;
//! - [`explain`]: all that, as a table for people;
//! - `isa`: kernels for each instruction set; `tiles`: the kernels; `simd`: the vectors they are written over;
//! - [`int8`]: the same in 8-bit integers, for a quantized student.
//!
//! The result does not depend on the number of threads: each value is computed by the same operations in the same
//! order.

mod convolution;
pub mod explain;
mod input_channels;
pub mod int8;
mod isa;
mod layout;
mod movement;
mod pool;
mod pooling;
mod program;
mod simd;
mod stage;
mod tiles;
mod winograd;

use std::time::{Duration, Instant};

pub use explain::PlanReport;
pub use isa::Isa;
use layout::Memory;
use pool::Pool;

use super::{Engine, EngineError, Graph, Weights};

/// A 64-byte cache line of floats: what the engine's memory is made of, so that it is aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through pointers")] [f32; LINE]);

const LINE: usize = 16;

/// Runs a graph on CPU cores, in f32.
pub struct CpuEngine {
    // Declared, and so dropped, before the memory that its threads work on.
    pool: Pool<program::Program>,
    isa: Isa,
    input: Vec<Line>,
    input_len: usize,
    outputs: Vec<Line>,
    /// Offset and length of each output.
    ranges: Vec<(usize, usize)>,
    _work: Vec<Line>,
}

// SAFETY: the raw pointers among the fields are the pool's, to memory that moves with the engine as vectors.
unsafe impl Send for CpuEngine {}

impl CpuEngine {
    /// Prepares `graph` for `threads` threads, the caller of [`run`](Engine::run) included (0 counts as 1), with the
    /// best instruction set that the processor has.
    ///
    /// # Errors
    /// When `weights` do not fit `graph`, or a convolution's kernel is larger than 7.
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
        let threads = threads.clamp(1, 256);
        let program = program::build(graph, weights, isa, threads)?;
        let lengths = graph.outputs.iter().map(|&id| graph.layers[id].shape.len());
        let ranges: Vec<_> = program.outputs.iter().copied().zip(lengths).collect();

        let mut input = lines(graph.input_shape().len());
        let mut outputs = lines(ranges.last().map_or(0, |(at, len)| at + len));
        let (arena, scratch) = (program.arena.div_ceil(LINE), program.scratch.div_ceil(LINE));
        let mut work = lines((arena + threads * scratch) * LINE);
        let start = work.as_mut_ptr();
        let memory = (0..threads).map(|thread| Memory {
            arena: start.cast(),
            // SAFETY: within `work`, which has a scratch for each thread after the arena.
            scratch: unsafe { start.add(arena + thread * scratch) }.cast(),
            input: input.as_mut_ptr().cast(),
            outputs: outputs.as_mut_ptr().cast(),
        });
        // SAFETY: sized as the program says just above; the vectors live in the engine, after the pool.
        let pool = unsafe { Pool::new(program, memory.collect()) }
            .map_err(|e| fault(format!("a thread could not be started: {e}")))?;
        Ok(Self { pool, isa, input, input_len: graph.input_shape().len(), outputs, ranges, _work: work })
    }

    /// Pins the calling thread, which is to call [`run`](Engine::run), and each of the engine's own to a CPU of `cpus`,
    /// in order; from the start again where there are more threads than CPUs.
    ///
    /// # Errors
    /// When `cpus` is empty or names a CPU that there is not or that this process may not use; also on systems other
    /// than Linux.
    pub fn pin(&self, cpus: &[usize]) -> Result<(), EngineError> {
        let fault = |why: String| EngineError::Unsupported { device: "CPU", why };
        if cpus.is_empty() {
            return Err(fault("no CPU to pin its threads to; name one for each thread".into()));
        }
        #[cfg(target_os = "linux")]
        return self.pool.pin(cpus).map_err(|e| fault(format!("its threads cannot be pinned to CPUs {cpus:?}: {e}")));
        #[cfg(not(target_os = "linux"))]
        Err(fault("threads can be pinned on Linux only".into()))
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// What runs, for people: shapes, operations, memory and kernels, step by step, and what each stage takes at least
    /// in `runs` runs; without times where that is 0.
    pub fn explain(&mut self, runs: usize) -> PlanReport {
        let times: Vec<_> =
            if runs == 0 { vec![] } else { self.profile(runs).into_iter().map(|(_, time)| time).collect() };
        PlanReport::new(self.pool.program(), self.isa, self.pool.threads(), &times)
    }

    /// The least time that each stage took in `runs` runs, by the name of its last step.
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
        (0..stages).map(|i| (self.pool.program().name(i).to_owned(), least[i])).collect()
    }
}

impl Engine for CpuEngine {
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

/// Zeroed memory for `floats` floats. A vector and no box: moving a box would claim its content for itself alone, and the
/// pointers of the threads with it (Miri, Stacked Borrows).
fn lines(floats: usize) -> Vec<Line> {
    vec![Line([0.0; LINE]); floats.div_ceil(LINE)]
}
