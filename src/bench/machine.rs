//! The machine that the figures were measured on, and what else used it meanwhile. `None` is what
//! the system does not report.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::gpu::{Gpu, GpuIdentity};
use super::sysfs::{jetson, Root};
use super::system::{self, CpuTicks};

/// The machine and program, without which a latency figure means nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fingerprint {
    pub cpu_model: Option<String>,
    /// Logical CPUs that this process may use.
    pub cpus: usize,
    pub cpu_governor: Option<String>,
    /// Whether a hypervisor is reported, which may take CPU time away.
    pub virtual_machine: bool,
    pub memory_mib: Option<u64>,
    pub kernel: Option<String>,
    /// Whether the kernel is PREEMPT_RT.
    pub realtime_kernel: bool,
    /// CPUs excluded from the scheduler (`isolcpus`), such as `2-3`.
    pub isolated_cpus: Option<String>,
    /// `None` on what is no Jetson.
    pub jetson: Option<jetson::Board>,
    pub gpu: Option<GpuIdentity>,
    /// `None` outside a ROS environment.
    pub ros_distro: Option<String>,
    pub ros_middleware: Option<String>,
    pub architecture: &'static str,
    pub program_version: &'static str,
    /// Git revision of the source that the program was built from, marked if the program is older.
    /// `None` if the source is not there.
    pub git_revision: Option<String>,
    /// `false` for a debug build, which is many times slower.
    pub optimised_build: bool,
}

impl Fingerprint {
    /// Reads those of this machine and program.
    pub fn read() -> Self {
        let (processor, root) = (system::processor(), Root::system());
        Self {
            cpu_model: processor.model,
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cpu_governor: root.line("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: processor.virtual_machine,
            memory_mib: system::memory().map(|memory| memory.total),
            kernel: root.line("proc/sys/kernel/osrelease"),
            realtime_kernel: realtime_kernel(&root),
            isolated_cpus: root.line("sys/devices/system/cpu/isolated"),
            jetson: jetson::board(&root),
            gpu: Gpu::find().and_then(|gpu| gpu.identity()),
            ros_distro: std::env::var("ROS_DISTRO").ok(),
            ros_middleware: std::env::var("ROS_DISTRO")
                .ok()
                .map(|_| std::env::var("RMW_IMPLEMENTATION").unwrap_or_else(|_| "default".into())),
            architecture: std::env::consts::ARCH,
            program_version: env!("CARGO_PKG_VERSION"),
            git_revision: git_revision(Path::new(env!("CARGO_MANIFEST_DIR"))),
            optimised_build: !cfg!(debug_assertions),
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let power_mode = self.jetson.as_ref().and_then(|board| board.power_mode.as_ref());
        let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        format!(
            "{}, {} CPU{}{}{}, governor {}, kernel {}{}{}",
            or_unknown(&self.cpu_model),
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            if self.virtual_machine { ", virtual" } else { "" },
            power_mode.map(|mode| format!(", power mode {mode}")).unwrap_or_default(),
            or_unknown(&self.cpu_governor),
            or_unknown(&self.kernel),
            if self.realtime_kernel { " (PREEMPT_RT)" } else { "" },
            self.gpu.as_ref().map(|gpu| format!(", {}", gpu.name)).unwrap_or_default()
        )
    }
}

/// Whether the kernel is PREEMPT_RT.
pub(super) fn realtime_kernel(root: &Root) -> bool {
    root.line("sys/kernel/realtime").as_deref() == Some("1")
        || root.line("proc/version").is_some_and(|version| version.contains("PREEMPT_RT"))
}

fn git_revision(source: &Path) -> Option<String> {
    if !source.join(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(source).args(arguments).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let revision = git(&["describe", "--always", "--dirty"])?;
    // The working tree may be newer than the program.
    let built = fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()?;
    let committed = UNIX_EPOCH + Duration::from_secs(git(&["log", "-1", "--format=%ct"])?.parse().ok()?);
    Some(if built < committed { format!("{revision}, built before it") } else { revision })
}

/// Fractions (0 to 1) of the CPU time of all CPUs over a period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CpuLoad {
    /// Of the processes under test.
    pub own: f64,
    /// Of other programs and the kernel.
    pub others: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
}

impl CpuLoad {
    /// CPU time that the processes under test could not have, in percent.
    pub fn foreign_percent(&self) -> f64 {
        (self.others + self.steal) * 100.0
    }
}

/// CPU time since boot of the machine and of the processes under test, in clock ticks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuTime {
    machine: CpuTicks,
    own: u64,
}

impl CpuTime {
    /// The counters now. `None` if the system does not report them.
    pub fn read(processes: &[u32]) -> Option<Self> {
        let machine = system::cpu_ticks()?;
        // A process that has ended has no counters any more.
        let own = processes.iter().filter_map(|&pid| system::process_stat(pid)).map(|stat| stat.ticks).sum();
        Some(Self { machine, own })
    }

    /// The load between two readings. `None` if no tick passed.
    pub fn load_until(&self, later: &Self) -> Option<CpuLoad> {
        let total = later.machine.total.checked_sub(self.machine.total).filter(|&t| t > 0)? as f64;
        let own = later.own.saturating_sub(self.own);
        let busy = later.machine.busy.saturating_sub(self.machine.busy);
        let steal = later.machine.steal.saturating_sub(self.machine.steal);
        Some(CpuLoad {
            own: own as f64 / total,
            others: busy.saturating_sub(own) as f64 / total,
            steal: steal as f64 / total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_split_into_own_others_and_steal() {
        let time = |total, busy, steal, own| CpuTime { machine: CpuTicks { total, busy, steal }, own };
        let (before, after) = (time(1000, 155, 35, 50), time(1200, 235, 65, 90));
        // 200 ticks: 80 busy, half of them its own; 30 stolen; 90 idle.
        let load = before.load_until(&after).unwrap();
        assert_eq!(load, CpuLoad { own: 0.2, others: 0.2, steal: 0.15 });
        assert!((load.foreign_percent() - 35.0).abs() < 1e-9);
        assert_eq!(after.load_until(&after), None);
    }
}
