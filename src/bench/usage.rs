//! The cost of a frame besides latency: CPU time, context switches, page faults and allocations.

use std::sync::Arc;

use peregrine_core::allocations::allocations;
use peregrine_pipeline::StageTimes;
use serde::Serialize;

use super::progress::WorkerProgress;
use super::record::{FrameCost, FrameRecord};
use super::schedule::Workload;
use super::system;

/// Counters at one instant: context switches, page faults and allocations of the calling thread,
/// and CPU time of the process.
///
/// Read before and after each frame by two system calls that allocate nothing; `/proc` would
/// allocate.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    cpu: u64,
    voluntary: i64,
    involuntary: i64,
    minor: i64,
    major: i64,
    allocations: u64,
}

#[cfg(target_os = "linux")]
impl Counters {
    fn read() -> Self {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: both calls write to what they are given, and to nothing else; all bytes of an
        // rusage may be zero.
        let usage = unsafe {
            libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time);
            let mut usage = std::mem::zeroed::<libc::rusage>();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage
        };
        #[allow(clippy::unnecessary_cast)] // Of another width on 32-bit machines.
        Self {
            cpu: time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64,
            voluntary: usage.ru_nvcsw as i64,
            involuntary: usage.ru_nivcsw as i64,
            minor: usage.ru_minflt as i64,
            major: usage.ru_majflt as i64,
            allocations: allocations(),
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Counters {
    fn read() -> Self {
        Self { allocations: allocations(), ..Self::default() }
    }
}

impl Counters {
    fn cost_until(&self, later: &Self) -> FrameCost {
        FrameCost {
            cpu: later.cpu.saturating_sub(self.cpu),
            voluntary_switches: (later.voluntary - self.voluntary) as u32,
            involuntary_switches: (later.involuntary - self.involuntary) as u32,
            minor_faults: (later.minor - self.minor) as u32,
            major_faults: (later.major - self.major) as u32,
            allocations: (later.allocations - self.allocations) as u32,
        }
    }
}

/// Measures the cost of each frame of a workload, at about 2 µs a frame, outside the stages.
pub struct Metered<W> {
    work: W,
    cost: FrameCost,
}

impl<W: Workload> Metered<W> {
    pub fn new(work: W) -> Self {
        Self { work, cost: FrameCost::default() }
    }
}

impl<W: Workload> Workload for Metered<W> {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        let before = Counters::read();
        let times = self.work.process(index);
        self.cost = before.cost_until(&Counters::read());
        times
    }

    fn cost(&self) -> FrameCost {
        self.cost
    }

    fn progress(&self) -> Arc<WorkerProgress> {
        self.work.progress()
    }
}

/// CPU time of all threads of this process, in nanoseconds; 0 where the system does not report it.
pub fn process_cpu_ns() -> u64 {
    Counters::read().cpu
}

/// Mean cost of the frames that were processed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CostPerFrame {
    /// CPU time of the process; exceeds the latency if several threads work.
    pub cpu_ms: f64,
    pub voluntary_switches: f64,
    pub involuntary_switches: f64,
    pub minor_faults: f64,
    pub major_faults: f64,
    /// Allocations of the worker's thread. `None` for another process, whose allocator cannot be
    /// read.
    pub allocations: Option<f64>,
    /// Most allocations of a single frame.
    pub most_allocations: Option<u32>,
}

impl CostPerFrame {
    /// `None` if no cost was measured.
    pub fn of(records: &[FrameRecord]) -> Option<Self> {
        let costs: Vec<_> =
            records.iter().filter(|r| r.timestamps.is_some() && r.cost.cpu > 0).map(|r| r.cost).collect();
        if costs.is_empty() {
            return None;
        }
        let mean = |of: fn(&FrameCost) -> f64| costs.iter().map(of).sum::<f64>() / costs.len() as f64;
        Some(Self {
            cpu_ms: mean(|c| c.cpu as f64 / 1e6),
            voluntary_switches: mean(|c| f64::from(c.voluntary_switches)),
            involuntary_switches: mean(|c| f64::from(c.involuntary_switches)),
            minor_faults: mean(|c| f64::from(c.minor_faults)),
            major_faults: mean(|c| f64::from(c.major_faults)),
            allocations: Some(mean(|c| f64::from(c.allocations))),
            most_allocations: costs.iter().map(|c| c.allocations).max(),
        })
    }
}

/// Counters of another process since its start, summed over its threads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProcessCounters {
    cpu_ms: f64,
    voluntary: u64,
    involuntary: u64,
    minor: u64,
    major: u64,
}

impl ProcessCounters {
    /// Reads them by process ID. CPU time has a resolution of 10 ms, so that readings should be far
    /// apart; context switches of threads that have ended are not counted.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = system::process_stat(pid)?;
        let switches = system::context_switches(pid)?;
        Some(Self {
            cpu_ms: stat.ticks as f64 * 1e3 / system::ticks_per_second(),
            voluntary: switches.voluntary,
            involuntary: switches.involuntary,
            minor: stat.minor_faults,
            major: stat.major_faults,
        })
    }

    /// The sum of several processes. `None` if none can be read.
    pub fn read_all(pids: &[u32]) -> Option<Self> {
        let add = |a: Self, b: Self| Self {
            cpu_ms: a.cpu_ms + b.cpu_ms,
            voluntary: a.voluntary + b.voluntary,
            involuntary: a.involuntary + b.involuntary,
            minor: a.minor + b.minor,
            major: a.major + b.major,
        };
        pids.iter().filter_map(|&pid| Self::read(pid)).reduce(add)
    }

    /// Mean cost of each of `frames` frames between this reading and `later`.
    pub fn per_frame(&self, later: &Self, frames: usize) -> CostPerFrame {
        let each = |from: u64, to: u64| to.saturating_sub(from) as f64 / frames as f64;
        CostPerFrame {
            cpu_ms: (later.cpu_ms - self.cpu_ms) / frames as f64,
            voluntary_switches: each(self.voluntary, later.voluntary),
            involuntary_switches: each(self.involuntary, later.involuntary),
            minor_faults: each(self.minor, later.minor),
            major_faults: each(self.major, later.major),
            allocations: None,
            most_allocations: None,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use peregrine_core::now_ns;

    /// Runs for 3 ms and touches 64 new pages.
    struct Busy;

    impl Workload for Busy {
        fn process(&mut self, _: usize) -> Option<StageTimes> {
            let end = now_ns() + 3_000_000;
            // Large enough that the allocator maps it anew each time.
            let mut pages = vec![0u8; 64 << 20];
            pages.iter_mut().step_by(1 << 20).for_each(|byte| *byte = 1);
            while now_ns() < end {
                std::hint::spin_loop();
            }
            std::hint::black_box(pages);
            Some(StageTimes::default())
        }
    }

    #[test]
    fn the_cost_of_a_frame_is_what_it_used() {
        let mut work = Metered::new(Busy);
        work.process(0);
        let cost = work.cost();
        assert!(cost.cpu > 100_000 && cost.minor_faults >= 1, "{cost:?}");
    }

    #[test]
    fn the_cost_of_a_process_is_divided_by_its_frames() {
        let read = || ProcessCounters::read(std::process::id()).unwrap();
        let before = read();
        let mut work = Metered::new(Busy);
        (0..20).for_each(|index| {
            let _ = work.process(index);
        });
        let cost = before.per_frame(&read(), 20);
        // Resolution 10 ms; other tests run in this process as well.
        assert!(cost.cpu_ms > 1.0 && cost.minor_faults >= 1.0 && cost.allocations.is_none(), "{cost:?}");
        assert_eq!(ProcessCounters::read(0), None);
    }
}
