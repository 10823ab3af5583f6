//! Inference time before and after, measured alternately so that other load affects both equally.

use std::time::Instant;

use anyhow::Context;
use peregrine_engine::cpu::int8::{Int8Engine, IntegerIsa};
use peregrine_engine::cpu::{CpuEngine, Isa};
use peregrine_engine::Engine;
use peregrine_student::Student;
use serde::{Deserialize, Serialize};

/// LatencyComparison of one inference in ms, for an instruction set and a number of threads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LatencyComparison {
    /// The f32 engine's and the integer engine's.
    pub instructions: (String, String),
    pub threads: usize,
    /// `CPU` time of the single thread, or `wall`.
    pub clock: String,
    pub before: Times,
    pub after: Times,
    /// Ratio of the medians, after / before.
    pub ratio: f64,
}

/// Minimum and median in ms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    pub least: f64,
    pub median: f64,
}

/// Measures `before` and the quantized `after` with 1 and 2 threads, `runs` times each,
/// alternating: with the best instruction sets of this processor, and with the widespread AVX2.
///
/// # Errors
/// When an engine cannot be built.
pub fn measure(
    before: &Student,
    after: &Student,
    input: &[f32],
    runs: usize,
) -> anyhow::Result<Vec<LatencyComparison>> {
    let mut pairs = vec![(Isa::best(), IntegerIsa::best())];
    let avx2 = (Isa::Avx2, IntegerIsa::Avx2);
    if pairs[0] != avx2 && Isa::available().contains(&avx2.0) && IntegerIsa::available().contains(&avx2.1) {
        pairs.push(avx2);
    }
    let cases = pairs.into_iter().flat_map(|isas| [(isas, 1), (isas, 2)]);
    cases.map(|(isas, threads)| compare(before, after, isas, input, threads, runs)).collect()
}

fn compare(
    before: &Student,
    after: &Student,
    (isa, integer_isa): (Isa, IntegerIsa),
    input: &[f32],
    threads: usize,
    runs: usize,
) -> anyhow::Result<LatencyComparison> {
    let graph = before.graph();
    let quantization = after.quantization.as_ref().context("the second student is not quantized")?;
    let mut engines: [Box<dyn Engine>; 2] = [
        Box::new(CpuEngine::with_isa(&graph, &before.weights, threads, isa)?),
        Box::new(Int8Engine::with_isa(&graph, &after.weights, quantization, threads, integer_isa)?),
    ];
    engines.iter_mut().for_each(|e| e.input().copy_from_slice(input));
    let instructions = (format!("{isa:?}"), format!("{integer_isa:?}"));
    let start = Instant::now();
    let by_cpu = threads == 1 && thread_cpu_ms().is_some();
    let wall_ms = || start.elapsed().as_secs_f64() * 1e3;
    let now = || if by_cpu { thread_cpu_ms().unwrap_or_else(wall_ms) } else { wall_ms() };
    let clock = if by_cpu { "CPU" } else { "wall" };
    const WARM_UP: usize = 5;
    let mut times = [vec![], vec![]];
    for run in 0..runs + WARM_UP {
        for (engine, times) in engines.iter_mut().zip(&mut times) {
            let before = now();
            engine.run()?;
            if run >= WARM_UP {
                times.push(now() - before);
            }
        }
    }
    let [before, after] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        Times { least: t[0], median: t[t.len() / 2] }
    });
    Ok(LatencyComparison {
        instructions,
        threads,
        clock: clock.into(),
        before,
        after,
        ratio: after.median / before.median,
    })
}

/// CPU time of this thread so far.
#[cfg(all(target_os = "linux", target_pointer_width = "64"))]
fn thread_cpu_ms() -> Option<f64> {
    extern "C" {
        fn clock_gettime(clock: i32, time: *mut [i64; 2]) -> i32;
    }
    const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    let mut time = [0i64; 2];
    // SAFETY: on 64-bit Linux a timespec is two 64-bit integers, and the C library is linked
    // anyway.
    let status = unsafe { clock_gettime(CLOCK_THREAD_CPUTIME_ID, &mut time) };
    (status == 0).then(|| time[0] as f64 * 1e3 + time[1] as f64 / 1e6)
}

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
fn thread_cpu_ms() -> Option<f64> {
    None
}
