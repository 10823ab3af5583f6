//! The machine while it is measured: looked at once a second, from a thread of its own.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::gpu::{Gpu, GpuSample};
use super::machine::{read_line, CpuTime, Load};
use super::realtime;
use super::trend::{self, Trend};
use super::usage::resident_mib;

const PERIOD: Duration = Duration::from_secs(1);

/// The machine at one time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sample {
    /// Seconds since the first sample.
    pub at_s: f64,
    /// Memory of the process under test.
    pub resident_mib: Option<f64>,
    /// Since the sample before.
    pub load: Option<Load>,
    /// The fastest CPU's clock.
    pub cpu_mhz: Option<f64>,
    pub gpu: Option<GpuSample>,
}

/// What a run was measured under.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Conditions {
    /// Over the whole run.
    pub load: Option<Load>,
    /// Times that a CPU was slowed down by its heat, where that is told.
    pub throttled: Option<u64>,
    /// Lowest and highest clock.
    pub cpu_mhz: Option<(f64, f64)>,
    /// Of the process under test, MiB.
    pub memory: Option<Trend>,
    pub samples: Vec<Sample>,
}

impl Conditions {
    /// How far the clock fell from its highest, in percent.
    pub fn clock_change_percent(&self) -> Option<f64> {
        self.cpu_mhz.map(|(low, high)| (1.0 - low / high) * 100.0)
    }

    /// Whether a GPU was slowed down.
    pub fn gpu_throttled(&self) -> bool {
        self.samples.iter().any(|s| s.gpu.is_some_and(|gpu| gpu.throttled))
    }

    /// From what was sampled.
    fn new(samples: Vec<Sample>, load: Option<Load>, throttled: Option<u64>) -> Self {
        let clocks = samples.iter().filter_map(|s| s.cpu_mhz);
        let cpu_mhz = clocks.fold(None, |range: Option<(f64, f64)>, mhz| {
            let (low, high) = range.unwrap_or((mhz, mhz));
            Some((low.min(mhz), high.max(mhz)))
        });
        let memory: Vec<_> = samples.iter().filter_map(|s| s.resident_mib).collect();
        Self { load, throttled, cpu_mhz, memory: trend::of_any(&memory), samples }
    }
}

/// Watches until it is asked to stop.
pub struct Monitor {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Conditions>,
}

impl Monitor {
    /// Watches the machine. `processes` (numbers, or `self`) are those whose load is not foreign; the memory watched is
    /// that of the first.
    pub fn start(processes: Vec<String>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                realtime::leave();
                watch(&processes, &stop)
            }
        });
        Self { stop, thread }
    }

    pub fn stop(self) -> Conditions {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        self.thread.join().unwrap_or_default()
    }
}

fn watch(processes: &[String], stop: &AtomicBool) -> Conditions {
    let gpu = Gpu::find();
    let (begun, throttles) = (Instant::now(), throttle_count());
    let first = CpuTime::of(processes);
    let mut before = first;
    let mut samples = Vec::with_capacity(4096);
    loop {
        let now = CpuTime::of(processes);
        samples.push(Sample {
            at_s: begun.elapsed().as_secs_f64(),
            resident_mib: processes.first().and_then(|process| resident_mib(process)),
            load: before.zip(now).and_then(|(before, now)| before.load_until(&now)),
            cpu_mhz: cpu_mhz(),
            gpu: gpu.as_ref().and_then(Gpu::sample),
        });
        before = now;
        if stop.load(Relaxed) {
            break;
        }
        thread::park_timeout(PERIOD);
    }
    let load = first.zip(CpuTime::of(processes)).and_then(|(first, last)| first.load_until(&last));
    let throttled = throttles.zip(throttle_count()).map(|(before, after)| after.saturating_sub(before));
    Conditions::new(samples, load, throttled)
}

fn cpus() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    entries.map(|entry| entry.path().to_string_lossy().into_owned()).filter(|path| {
        path.rsplit("cpu").next().is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The fastest CPU's clock, since an idle one's says nothing; none where the kernel does not tell, as on most virtual
/// machines.
fn cpu_mhz() -> Option<f64> {
    let khz = cpus().filter_map(|cpu| read_line(&format!("{cpu}/cpufreq/scaling_cur_freq"))?.parse::<f64>().ok());
    khz.reduce(f64::max).map(|khz| khz / 1e3)
}

/// Times since boot that CPUs were slowed down by heat; none where the kernel does not tell.
pub(super) fn throttle_count() -> Option<u64> {
    let count = |cpu: String, which: &str| {
        read_line(&format!("{cpu}/thermal_throttle/{which}_throttle_count"))?.parse::<u64>().ok()
    };
    cpus().filter_map(|cpu| Some(count(cpu.clone(), "core")? + count(cpu, "package").unwrap_or(0))).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: usize, resident: impl Fn(usize) -> f64, mhz: impl Fn(usize) -> f64) -> Vec<Sample> {
        let sample = |i| Sample {
            at_s: i as f64,
            resident_mib: Some(resident(i)),
            load: None,
            cpu_mhz: Some(mhz(i)),
            gpu: None,
        };
        (0..count).map(sample).collect()
    }

    #[test]
    fn growth_and_clock_are_summed_up() {
        let conditions =
            Conditions::new(samples(61, |i| 50.0 + i as f64, |i| if i == 30 { 1500.0 } else { 3000.0 }), None, None);
        assert_eq!(conditions.memory.map(|m| m.change), Some(60.0));
        assert_eq!((conditions.cpu_mhz, conditions.clock_change_percent()), (Some((1500.0, 3000.0)), Some(50.0)));
    }

    #[test]
    fn a_monitor_sees_this_process_and_stops_at_once() {
        let begun = Instant::now();
        let conditions = Monitor::start(vec!["self".into()]).stop();
        assert!(!conditions.samples.is_empty() && begun.elapsed() < Duration::from_secs(30));
    }
}
