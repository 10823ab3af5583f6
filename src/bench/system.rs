//! Counters of the machine and of its processes, from `/proc`. `None` if the kernel does not report
//! one; on systems other than Linux that is all of them.

/// CPU time of all processors since boot, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuTicks {
    pub total: u64,
    /// Of programs and the kernel.
    pub busy: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
}

/// What a process has used since it started, in all its threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessStat {
    /// CPU time in clock ticks.
    pub ticks: u64,
    pub minor_faults: u64,
    pub major_faults: u64,
}

/// Context switches of the threads that a process has now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ContextSwitches {
    pub voluntary: u64,
    pub involuntary: u64,
}

/// Memory of the machine, in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    pub total: u64,
    pub available: Option<u64>,
    pub swap_used: u64,
}

/// Name and virtualisation of the processor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Processor {
    pub model: Option<String>,
    /// Whether it reports a hypervisor.
    pub virtual_machine: bool,
}

/// The kernel's clock, as the program that sets it has told the kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KernelClock {
    pub synchronised: bool,
    /// Microseconds by which it is still to be moved.
    pub correction_us: f64,
    /// Estimated error, microseconds.
    pub error_us: f64,
}

impl KernelClock {
    /// As the end of a sentence.
    pub fn sentence(&self) -> String {
        if !self.synchronised {
            return "the kernel's clock is not synchronised".into();
        }
        let (correction, error) = (self.correction_us, self.error_us);
        format!("{correction:.0} µs are still to be corrected, estimated error {error:.0} µs")
    }
}

#[cfg(target_os = "linux")]
pub use linux::*;
#[cfg(not(target_os = "linux"))]
pub use unsupported::*;

#[cfg(target_os = "linux")]
mod linux {
    use procfs::process::Process;
    use procfs::{CpuInfo, Current, CurrentSI, KernelStats, LoadAverage, Meminfo};

    use super::{ContextSwitches, CpuTicks, KernelClock, Memory, ProcessStat, Processor};

    pub fn kernel_clock() -> Option<KernelClock> {
        // SAFETY: with no modes set it fills the structure that it is given, for which all zero is a value.
        let (state, clock) = unsafe {
            let mut clock = std::mem::zeroed::<libc::timex>();
            (libc::adjtimex(&mut clock), clock)
        };
        let unit = if clock.status & libc::STA_NANO == 0 { 1.0 } else { 1e-3 };
        (state >= 0).then_some(KernelClock {
            synchronised: state != libc::TIME_ERROR && clock.status & libc::STA_UNSYNC == 0,
            correction_us: clock.offset as f64 * unit,
            error_us: clock.esterror as f64,
        })
    }

    pub fn cpu_ticks() -> Option<CpuTicks> {
        Some(CpuTicks::from(&KernelStats::current().ok()?.total))
    }

    impl From<&procfs::CpuTime> for CpuTicks {
        /// Guests' time is part of `user` and `nice` already.
        fn from(time: &procfs::CpuTime) -> Self {
            let or_zero = |ticks: Option<u64>| ticks.unwrap_or(0);
            let busy = time.user + time.nice + time.system + or_zero(time.irq) + or_zero(time.softirq);
            let steal = or_zero(time.steal);
            Self { total: busy + steal + time.idle + or_zero(time.iowait), busy, steal }
        }
    }

    fn process(pid: u32) -> Option<Process> {
        Process::new(i32::try_from(pid).ok()?).ok()
    }

    pub fn process_stat(pid: u32) -> Option<ProcessStat> {
        let stat = process(pid)?.stat().ok()?;
        Some(ProcessStat { ticks: stat.utime + stat.stime, minor_faults: stat.minflt, major_faults: stat.majflt })
    }

    /// The running processes of a group; none if there is no such group.
    pub fn process_group(group: u32) -> Vec<u32> {
        let all = procfs::process::all_processes().into_iter().flatten().flatten();
        let stats = all.filter_map(|process| process.stat().ok());
        // One that has ended stays, as a zombie, until its parent looks at it.
        let own = stats.filter(|stat| u32::try_from(stat.pgrp) == Ok(group) && stat.state != 'Z');
        own.filter_map(|stat| u32::try_from(stat.pid).ok()).collect()
    }

    pub fn context_switches(pid: u32) -> Option<ContextSwitches> {
        let tasks = process(pid)?.tasks().ok()?.flatten();
        let statuses = tasks.filter_map(|task| task.status().ok());
        Some(statuses.fold(ContextSwitches::default(), |sum, status| ContextSwitches {
            voluntary: sum.voluntary + status.voluntary_ctxt_switches.unwrap_or(0),
            involuntary: sum.involuntary + status.nonvoluntary_ctxt_switches.unwrap_or(0),
        }))
    }

    pub fn resident_mib(pid: u32) -> Option<f64> {
        let pages = process(pid)?.statm().ok()?.resident;
        Some((pages * procfs::page_size()) as f64 / f64::from(1 << 20))
    }

    pub fn ticks_per_second() -> f64 {
        procfs::ticks_per_second() as f64
    }

    pub fn load_average() -> Option<f32> {
        LoadAverage::current().ok().map(|load| load.one)
    }

    pub fn memory() -> Option<Memory> {
        let bytes = Meminfo::current().ok()?;
        Some(Memory {
            total: bytes.mem_total >> 20,
            available: bytes.mem_available.map(|bytes| bytes >> 20),
            swap_used: bytes.swap_total.saturating_sub(bytes.swap_free) >> 20,
        })
    }

    pub fn processor() -> Processor {
        let Ok(info) = CpuInfo::current() else { return Processor::default() };
        // On Arm the kernel names the board and not the processor.
        let board = || std::fs::read_to_string("/proc/device-tree/model").ok();
        let model = info.model_name(0).map(str::to_owned).or_else(board);
        Processor {
            model: model.map(|model| model.trim_matches(['\0', ' ', '\n']).to_owned()),
            virtual_machine: info.flags(0).is_some_and(|flags| flags.contains(&"hypervisor")),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod unsupported {
    use super::{ContextSwitches, CpuTicks, KernelClock, Memory, ProcessStat, Processor};

    pub fn kernel_clock() -> Option<KernelClock> {
        None
    }

    pub fn cpu_ticks() -> Option<CpuTicks> {
        None
    }

    pub fn process_stat(_: u32) -> Option<ProcessStat> {
        None
    }

    pub fn process_group(_: u32) -> Vec<u32> {
        vec![]
    }

    pub fn context_switches(_: u32) -> Option<ContextSwitches> {
        None
    }

    pub fn resident_mib(_: u32) -> Option<f64> {
        None
    }

    pub fn ticks_per_second() -> f64 {
        100.0
    }

    pub fn load_average() -> Option<f32> {
        None
    }

    pub fn memory() -> Option<Memory> {
        None
    }

    pub fn processor() -> Processor {
        Processor::default()
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use procfs::prelude::*;
    use procfs::{current_system_info, KernelStats};

    use super::*;

    /// Clock ticks of a `/proc/stat` that begins with `line`.
    fn ticks(line: &str) -> Option<CpuTicks> {
        let stat = format!("{line}\ncpu0 1 2 3 4 5 6 7 8 9 9\nctxt 1\nbtime 2\nprocesses 3\n");
        let stats = KernelStats::from_read(stat.as_bytes(), current_system_info()).ok()?;
        Some(CpuTicks::from(&stats.total))
    }

    #[test]
    fn cpu_ticks_are_split_into_busy_and_stolen() {
        let expected = CpuTicks { total: 1000, busy: 155, steal: 35 };
        assert_eq!(ticks("cpu  100 0 50 800 10 0 5 35 9 9"), Some(expected));
        assert_eq!(ticks("cpu 1 2 3"), None);
    }

    #[test]
    fn this_process_has_counters_and_an_unknown_one_has_none() {
        let here = std::process::id();
        assert!(resident_mib(here).unwrap() > 1.0);
        assert!(process_stat(here).is_some() && context_switches(here).unwrap().voluntary > 0);
        let unknown = u32::MAX;
        assert_eq!((resident_mib(unknown), process_stat(unknown)), (None, None));
        assert_eq!(context_switches(unknown), None);
    }

    #[test]
    fn the_machine_has_memory_and_processor_time() {
        let memory = memory().unwrap();
        assert!(memory.total > 100 && memory.available.is_none_or(|mib| mib <= memory.total));
        let ticks = cpu_ticks().unwrap();
        assert!(ticks.busy > 0 && ticks.total >= ticks.busy + ticks.steal);
        assert!(kernel_clock().is_some_and(|clock| clock.error_us >= 0.0));
        assert!(load_average().is_some() && processor().model.is_none_or(|model| !model.is_empty()));
    }
}
