//! Samples of the machine during a run, once a second, from a thread of its own.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::board::{BoardConditions, BoardSample, BoardWatch};
use super::gpu::{Gpu, GpuSample};
use super::machine::{CpuLoad, CpuTime};
use super::realtime;
use super::sysfs::{cpu, Root};
use super::system::resident_mib;
use super::trend::{self, Trend};

const PERIOD: Duration = Duration::from_secs(1);

/// The machine at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct MachineSample {
    /// Seconds since the first sample.
    pub at_s: f64,
    /// Resident memory of the process under test.
    pub resident_mib: Option<f64>,
    /// CPU load since the previous sample.
    pub load: Option<CpuLoad>,
    /// Clock of the fastest CPU.
    pub cpu_mhz: Option<f64>,
    pub gpu: Option<GpuSample>,
    pub board: BoardSample,
}

/// Conditions of the machine during a run.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Conditions {
    /// CPU load over the whole run.
    pub load: Option<CpuLoad>,
    /// Thermal throttling events of the CPUs.
    pub throttled: Option<u64>,
    /// Lowest and highest CPU clock.
    pub cpu_mhz: Option<(f64, f64)>,
    /// Temperatures, clocks and supply.
    pub board: BoardConditions,
    /// Trend of the resident memory of the process under test, MiB.
    pub memory: Option<Trend>,
    pub samples: Vec<MachineSample>,
}

impl Conditions {
    /// How far the CPU clock fell from its maximum, in percent.
    pub fn clock_change_percent(&self) -> Option<f64> {
        self.cpu_mhz.map(|(low, high)| (1.0 - low / high) * 100.0)
    }

    /// Whether the GPU was throttled.
    pub fn gpu_throttled(&self) -> bool {
        self.samples.iter().any(|s| s.gpu.is_some_and(|gpu| gpu.throttled))
    }

    /// Summarises samples.
    fn new(samples: Vec<MachineSample>, load: Option<CpuLoad>, throttled: Option<u64>, board: BoardConditions) -> Self {
        let clocks = samples.iter().filter_map(|s| s.cpu_mhz);
        let cpu_mhz = clocks.fold(None, |range: Option<(f64, f64)>, mhz| {
            let (low, high) = range.unwrap_or((mhz, mhz));
            Some((low.min(mhz), high.max(mhz)))
        });
        let memory: Vec<_> = samples.iter().filter_map(|s| s.resident_mib).collect();
        Self { load, throttled, cpu_mhz, board, memory: trend::of_any_length(&memory), samples }
    }
}

/// Samples the machine until it is stopped.
pub struct Monitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Conditions>,
}

impl Monitor {
    /// Starts sampling. `processes` are the IDs of those under test, whose load counts as own;
    /// memory is that of the first.
    pub fn start(processes: Vec<u32>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                realtime::use_default_scheduling();
                sample_until(&stop, &processes)
            }
        });
        Self { stop, thread }
    }

    /// Stops sampling.
    pub fn stop(self) -> Conditions {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default()
    }
}

fn sample_until(stop: &AtomicBool, processes: &[u32]) -> Conditions {
    let (gpu, root) = (Gpu::find(), Root::system());
    let (begun, throttles, mut board) = (Instant::now(), cpu::throttle_count(&root), BoardWatch::start(Root::system()));
    let first = CpuTime::read(processes);
    let mut before = first;
    let mut samples = Vec::with_capacity(4096);
    loop {
        let now = CpuTime::read(processes);
        samples.push(MachineSample {
            at_s: begun.elapsed().as_secs_f64(),
            resident_mib: processes.first().and_then(|&pid| resident_mib(pid)),
            load: before.zip(now).and_then(|(before, now)| before.load_until(&now)),
            cpu_mhz: cpu::fastest_mhz(&root),
            gpu: gpu.as_ref().and_then(Gpu::sample),
            board: board.sample(),
        });
        before = now;
        if stop.load(Relaxed) {
            break;
        }
        thread::park_timeout(PERIOD);
    }
    let load = first.zip(CpuTime::read(processes)).and_then(|(first, last)| first.load_until(&last));
    let throttled = throttles.zip(cpu::throttle_count(&root)).map(|(before, after)| after.saturating_sub(before));
    Conditions::new(samples, load, throttled, board.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: usize, resident: impl Fn(usize) -> f64, mhz: impl Fn(usize) -> f64) -> Vec<MachineSample> {
        let sample = |i| MachineSample {
            at_s: i as f64,
            resident_mib: Some(resident(i)),
            load: None,
            cpu_mhz: Some(mhz(i)),
            gpu: None,
            board: BoardSample { celsius: None, gpu_mhz: None, memory_mhz: None, slowed: false },
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn memory_growth_and_clock_range_are_summarised() {
        let samples = samples(61, |i| 50.0 + i as f64, |i| if i == 30 { 1500.0 } else { 3000.0 });
        let conditions = Conditions::new(samples, None, None, BoardConditions::default());
        assert_eq!(conditions.memory.map(|m| m.change), Some(60.0));
        assert_eq!((conditions.cpu_mhz, conditions.clock_change_percent()), (Some((1500.0, 3000.0)), Some(50.0)));
    }

    #[test]
    fn a_monitor_samples_this_process_and_stops_at_once() {
        let begun = Instant::now();
        let conditions = Monitor::start(vec![std::process::id()]).stop();
        assert!(!conditions.samples.is_empty() && begun.elapsed() < Duration::from_secs(30));
    }
}
