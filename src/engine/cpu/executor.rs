//! A program, the threads that run it and the memory that they work on: what both CPU engines are
//! made of.

use std::time::{Duration, Instant};

use peregrine_core::PixelInput;

use super::explain::{PlanReport, StageReport, StepReport};
use super::layout::ThreadMemory;
use super::pool::{Pool, Stages};
use crate::quantization::TensorScale;
use crate::{EngineError, Graph};

/// A 64-byte cache line of floats: what the memory is made of, so that it is aligned.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(#[allow(dead_code, reason = "read through pointers")] [f32; LINE]);

/// The most floats of an engine's maps, 1 GiB: a few kilobytes of a network may ask for any number.
const MAX_FLOATS: usize = 1 << 28;

/// Floats in a cache line.
pub const LINE: usize = 16;

/// Stages that know how much memory they need, and what they are.
pub trait Program: Stages {
    /// Floats that all threads share.
    fn arena(&self) -> usize;

    /// Floats of each thread.
    fn scratch(&self) -> usize;

    /// Offset of each of the graph's outputs among the planar outputs.
    fn outputs(&self) -> &[usize];

    /// How it holds the input pixel by pixel, if its first stage does nothing but turn the planar
    /// one into that.
    fn pixels(&self) -> Option<PixelLayout>;

    /// The steps of a stage, of which there is at least one.
    fn steps(&self, stage: usize) -> Vec<StepReport>;
}

/// An input held pixel by pixel, in memory that no step writes but the one that turns the planar
/// input into it.
#[derive(Clone, Copy)]
pub struct PixelLayout {
    /// Width and height.
    pub size: (usize, usize),
    /// Bytes of the first border in a row, of a row, and of a pixel.
    pub left: usize,
    pub row: usize,
    pub pixel: usize,
    /// Writes pixels, side by side.
    ///
    /// # Safety
    /// There must be room for them, and the processor must have the instruction set of the program.
    pub write: unsafe fn(&[[f32; 4]], *mut u8, TensorScale),
    /// For those that are quantized.
    pub scale: TensorScale,
}

/// Runs one program.
pub struct Executor<P> {
    // Declared, and so dropped, before the memory that its threads work on.
    pool: Pool<P>,
    input: Vec<Line>,
    input_len: usize,
    pixels: Vec<Line>,
    /// Whether the input was given pixel by pixel last.
    by_pixels: bool,
    outputs: Vec<Line>,
    /// Offset and length of each output.
    ranges: Vec<(usize, usize)>,
    _work: Vec<Line>,
}

// SAFETY: the raw pointers among the fields are the pool's, to memory that moves with the executor
// as vectors.
unsafe impl<P: Send> Send for Executor<P> {}

/// The number of threads that an engine uses when asked for `threads`: 1 to 256.
pub fn clamp_thread_count(threads: usize) -> usize {
    threads.clamp(1, 256)
}

fn fault(why: String) -> EngineError {
    EngineError::Unsupported { device: "CPU", why }
}

impl<P: Program> Executor<P> {
    /// Memory and threads for `program`, which was built from `graph` for as many threads.
    ///
    /// # Errors
    /// When the network's maps are too large, or a thread cannot be started.
    pub fn new(program: P, graph: &Graph, threads: usize) -> Result<Self, EngineError> {
        let lengths = graph.outputs.iter().map(|&id| graph.layers[id].shape.len());
        let ranges: Vec<_> = program.outputs().iter().copied().zip(lengths).collect();
        let input_len = graph.input_shape().len();
        // A line more: kernels read a little past a row's end.
        let pixel_bytes = program.pixels().map_or(0, |p| p.size.1 * p.row + 4 * LINE);
        let output_len = ranges.last().map_or(0, |(at, len)| at + len);
        let (arena, scratch) = (program.arena().div_ceil(LINE), program.scratch().div_ceil(LINE));
        let parts = [
            input_len,
            pixel_bytes / 4,
            output_len,
            arena.saturating_mul(LINE),
            (threads * scratch).saturating_mul(LINE),
        ];
        let floats = parts.into_iter().fold(0, usize::saturating_add);
        if floats > MAX_FLOATS {
            let (asked, most) = (floats >> 18, MAX_FLOATS >> 18);
            let why =
                format!("its maps would take {asked} MiB, and at most {most} are given; choose a smaller input size");
            return Err(fault(why));
        }
        let mut input = lines(input_len);
        let mut pixels = lines(pixel_bytes.div_ceil(4));
        let mut outputs = lines(output_len);
        let mut work = lines((arena + threads * scratch) * LINE);
        let start = work.as_mut_ptr();
        let memory = (0..threads).map(|thread| ThreadMemory {
            arena: start.cast(),
            // SAFETY: within `work`, or at its end; it has a scratch for each thread after the
            // arena.
            scratch: unsafe { start.add(arena + thread * scratch) }.cast(),
            input: input.as_mut_ptr().cast(),
            pixels: pixels.as_mut_ptr().cast(),
            outputs: outputs.as_mut_ptr().cast(),
        });
        // SAFETY: sized as the program says just above; the vectors live in the executor, after the
        // pool.
        let pool = unsafe { Pool::new(program, memory.collect()) }
            .map_err(|e| fault(format!("a thread could not be started: {e}")))?;
        let mut executor = Self { pool, input, input_len, pixels, by_pixels: false, outputs, ranges, _work: work };
        // Fills the borders between the rows of pixels, which no other step writes.
        executor.pool.run(0..usize::from(pixel_bytes > 0), |_| ());
        Ok(executor)
    }

    /// See [`CpuEngine::pin`](super::CpuEngine::pin).
    ///
    /// # Errors
    /// When `cpus` is empty or names a CPU that does not exist or that this process may not use;
    /// also on systems other than Linux.
    pub fn pin(&self, cpus: &[usize]) -> Result<(), EngineError> {
        if cpus.is_empty() {
            return Err(fault("no CPU to pin its threads to; name one for each thread".into()));
        }
        #[cfg(target_os = "linux")]
        return self.pool.pin(cpus).map_err(|e| fault(format!("its threads cannot be pinned to CPUs {cpus:?}: {e}")));
        #[cfg(not(target_os = "linux"))]
        Err(fault("threads can be pinned on Linux only".into()))
    }

    /// Gives each thread but the caller's a CPU of its own among those that the calling thread may
    /// use, from the second on.
    ///
    /// # Errors
    /// When the system does not let this process choose; on systems other than Linux.
    pub fn pin_helpers(&self) -> Result<(), EngineError> {
        #[cfg(target_os = "linux")]
        return self.pool.pin_helpers().map_err(|e| fault(format!("its threads cannot be pinned to CPUs: {e}")));
        #[cfg(not(target_os = "linux"))]
        Err(fault("threads can be pinned on Linux only".into()))
    }

    /// What runs, with the least time of each stage in `runs` runs; without times where that is 0.
    /// `peak` tells what one thread can do at most, in 10⁹ operations a second.
    pub fn explain(&mut self, runs: usize, instruction_set: String, peak: impl FnOnce() -> f64) -> PlanReport {
        let times = if runs == 0 { vec![] } else { self.least_times(runs) };
        let threads = self.pool.threads();
        let peak = if runs == 0 { 0.0 } else { threads as f64 * peak() };
        let program = self.pool.program();
        let stage = |i: usize| StageReport::new(program.steps(i), program.chunks(i), times.get(i).copied(), peak);
        PlanReport {
            instruction_set,
            threads,
            peak_gflops_per_second: peak,
            arena_bytes: 4 * program.arena(),
            scratch_bytes_per_thread: 4 * program.scratch(),
            stages: (0..program.stages()).map(stage).collect(),
        }
    }

    /// The least time that each stage took in `runs` runs, by the name of its last step.
    pub fn profile(&mut self, runs: usize) -> Vec<(String, Duration)> {
        let times = self.least_times(runs);
        let name = |stage| self.pool.program().steps(stage).pop().expect("a stage has a step").name;
        times.iter().enumerate().map(|(stage, &time)| (name(stage), time)).collect()
    }

    fn least_times(&mut self, runs: usize) -> Vec<Duration> {
        let mut least = vec![Duration::MAX; self.pool.program().stages()];
        for _ in 0..runs {
            let mut before = Instant::now();
            self.pool.run(0..least.len(), |stage| {
                let now = Instant::now();
                least[stage] = least[stage].min(now - before);
                before = now;
            });
        }
        least
    }

    /// Runs the program once.
    pub fn run(&mut self) {
        let stages = self.pool.program().stages();
        self.pool.run(usize::from(self.by_pixels)..stages, |_| ());
    }

    /// The planar input.
    pub fn input(&mut self) -> &mut [f32] {
        self.by_pixels = false;
        // SAFETY: a line is that many floats, and nothing reads the input between runs.
        unsafe { std::slice::from_raw_parts_mut(self.input.as_mut_ptr().cast(), self.input_len) }
    }

    /// The input pixel by pixel, where the program holds it so.
    pub fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        self.pool.program().pixels()?;
        self.by_pixels = true;
        Some(self)
    }

    /// The graph's `index`-th output, planar.
    pub fn output(&self, index: usize) -> &[f32] {
        let (at, len) = self.ranges[index];
        // SAFETY: within the outputs, which nothing writes between runs.
        unsafe { std::slice::from_raw_parts(self.outputs.as_ptr().cast::<f32>().add(at), len) }
    }
}

impl<P: Program> PixelInput for Executor<P> {
    fn store(&mut self, y: usize, x: usize, pixels: &[[f32; 4]]) {
        let Some(held) = self.pool.program().pixels() else { return };
        let (width, height) = held.size;
        assert!(y < height && x <= width && pixels.len() <= width - x, "outside of the input");
        let at = y * held.row + held.left + x * held.pixel;
        // SAFETY: within the row, as just asserted, and so within the buffer, which nothing reads
        // between runs; the engine has checked the instruction set.
        unsafe { (held.write)(pixels, self.pixels.as_mut_ptr().cast::<u8>().add(at), held.scale) };
    }
}

/// Zeroed memory for `floats` floats. A vector and no box: moving a box would claim its content for
/// itself alone, and the pointers of the threads with it (Miri, Stacked Borrows).
fn lines(floats: usize) -> Vec<Line> {
    vec![Line([0.0; LINE]); floats.div_ceil(LINE)]
}
