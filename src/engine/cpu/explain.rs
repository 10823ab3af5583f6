//! A human-readable report of what an engine runs: step by step, with what each stage costs and how
//! near it comes to the machine's peak.

use std::fmt::Write;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::layout::Region;
use super::stage::{FloatAction, FloatStep};

/// One step of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    /// The layer, or what is done to it.
    pub name: String,
    /// Channels, height and width of its output.
    pub shape: [usize; 3],
    /// A multiply-accumulate counted as two, of floats or of integers.
    pub flops: usize,
    /// Bytes of its input, its output and its weights, each counted once.
    pub bytes: usize,
    /// The kernel that computes it.
    pub kernel: String,
    /// Set within a chain: how many rows of the output exist at a time.
    pub rows_at_a_time: Option<usize>,
}

/// What runs between two barriers: one step, or a chain of them whose maps stay in cache.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageReport {
    /// In execution order.
    pub steps: Vec<StepReport>,
    /// Parts that the threads share.
    pub chunks: usize,
    /// The least that was measured; `None` if nothing was.
    pub microseconds: Option<f64>,
    /// 10⁹ operations a second; `None` for a stage without arithmetic.
    pub gflops_per_second: Option<f64>,
    /// Fraction of the machine's peak with as many threads, measured with independent multiply-adds
    /// in registers.
    pub share_of_peak: Option<f64>,
}

/// A whole engine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanReport {
    /// For which the kernels are compiled.
    pub instruction_set: String,
    /// That share the work, the caller's included.
    pub threads: usize,
    /// Of all threads together; 0 where nothing was measured.
    pub peak_gflops_per_second: f64,
    /// Of the tensors.
    pub arena_bytes: usize,
    /// Of maps within chains, and of transforms.
    pub scratch_bytes_per_thread: usize,
    /// In execution order.
    pub stages: Vec<StageReport>,
}

impl StageReport {
    /// Of a stage of `steps` that threads share in `chunks` parts. `time`: the least that was
    /// measured; `peak`: of the machine, in 10⁹ operations a second.
    pub(super) fn new(steps: Vec<StepReport>, chunks: usize, time: Option<Duration>, peak: f64) -> Self {
        let seconds = time.map(|time| time.as_secs_f64());
        let flops = steps.iter().map(|step| step.flops).sum::<usize>();
        let rate = seconds.filter(|_| flops > 0).map(|s| flops as f64 / s / 1e9);
        Self {
            steps,
            chunks,
            microseconds: seconds.map(|s| s * 1e6),
            gflops_per_second: rate,
            share_of_peak: rate.map(|rate| rate / peak),
        }
    }
}

impl PlanReport {
    /// A table: a line a step; the stage's figures are on its last one.
    pub fn text(&self) -> String {
        let width = self.stages.iter().flat_map(|s| &s.steps).map(|s| s.name.len()).max().unwrap_or(0);
        let mut table = format!(
            "{:>5} {:<width$} {:>14} {:>8} {:>8} {:>8} {:>8} {:>6}  kernel\n",
            "stage", "step", "output", "MFLOP", "KiB", "µs", "GFLOP/s", "peak"
        );
        for (i, stage) in self.stages.iter().enumerate() {
            for (j, step) in stage.steps.iter().enumerate() {
                let last = j + 1 == stage.steps.len();
                let figure = |value: Option<f64>, scale: f64, unit: &str| {
                    value.filter(|_| last).map_or(String::new(), |v| format!("{:.0}{unit}", v * scale))
                };
                let [channels, height, columns] = step.shape;
                let band = step.rows_at_a_time.map_or(String::new(), |rows| format!(", {rows} rows at a time"));
                let _ = writeln!(
                    table,
                    "{i:>5} {:<width$} {:>14} {:>8.2} {:>8} {:>8} {:>8} {:>6}  {}{band}",
                    step.name,
                    format!("{channels}x{height}x{columns}"),
                    step.flops as f64 / 1e6,
                    step.bytes / 1024,
                    figure(stage.microseconds, 1.0, ""),
                    figure(stage.gflops_per_second, 1.0, ""),
                    figure(stage.share_of_peak, 100.0, " %"),
                    step.kernel,
                );
            }
        }
        let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
        let _ = write!(table, "{}, {} thread(s)", self.instruction_set, self.threads);
        let _ = write!(table, "; arena {:.2} MiB, ", mib(self.arena_bytes));
        let _ = writeln!(table, "scratch {:.2} MiB a thread", mib(self.scratch_bytes_per_thread));
        let total: f64 = self.stages.iter().filter_map(|s| s.microseconds).sum();
        if total > 0.0 {
            let flops: usize = self.stages.iter().flat_map(|s| &s.steps).map(|s| s.flops).sum();
            let rate = flops as f64 / total / 1e3;
            let peak = self.peak_gflops_per_second;
            let _ = writeln!(
                table,
                "{:.2} ms for {:.3} GFLOP: {rate:.0} GFLOP/s, {:.0} % of this machine's {peak:.0}",
                total / 1e3,
                flops as f64 / 1e9,
                100.0 * rate / peak
            );
        }
        table
    }

    /// The same, as JSON.
    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data") + "\n"
    }
}

impl StepReport {
    /// Of a step of the f32 engine.
    pub(super) fn new(step: &FloatStep) -> Self {
        let s = step.output.shape;
        let (kernel, weights) = match &step.action {
            FloatAction::Pack if step.output.place == Region::Pixels => ("planar to pixels".to_string(), 0),
            FloatAction::Pack => ("planar to blocks".to_string(), 0),
            FloatAction::Convolution(c) => (c.describe(), c.weight_bytes()),
            FloatAction::Winograd(c) => (c.describe(), c.weight_bytes()),
            FloatAction::Sum(operands) => (format!("sum of {}", operands.len()), 0),
            FloatAction::MaxPool(pool) => (format!("max {0}x{0}/{1}", pool.window.kernel, pool.window.stride), 0),
            FloatAction::AveragePool(pool) => (format!("mean {0}x{0}/{1}", pool.window.kernel, pool.window.stride), 0),
            FloatAction::GlobalAverage => ("mean of each channel".to_string(), 0),
            FloatAction::Scale(_) => ("scaled by channel".to_string(), 0),
            FloatAction::Activate(activate) => (format!("{:?}", activate.activation).to_lowercase(), 0),
            FloatAction::Bilinear => ("bilinear upsampling".to_string(), 0),
            FloatAction::Copy(parts) => (format!("{} parts copied", parts.len()), 0),
            FloatAction::Unpack(_) => ("blocks to planar".to_string(), 0),
        };
        Self {
            name: step.name.clone(),
            shape: [s.channels, s.height, s.width],
            flops: step.flops,
            bytes: 4 * (step.input.shape.len() + s.len()) + weights,
            kernel,
            rows_at_a_time: (step.output.place == Region::Scratch).then_some(step.output.rows),
        }
    }
}

/// The most that one thread can multiply and add, in 10⁹ operations a second: the best of several
/// short trials of `rounds`, a kernel that does so in registers and returns the number of
/// operations.
pub(super) fn peak(rounds: unsafe fn(usize) -> usize) -> f64 {
    const ROUNDS: usize = 200_000;
    let trial = |_| {
        let start = Instant::now();
        // SAFETY: the kernel is from the table of an instruction set that the processor has.
        let operations = unsafe { rounds(ROUNDS) };
        operations as f64 / start.elapsed().as_secs_f64() / 1e9
    };
    (0..10).map(trial).fold(0.0, f64::max)
}
