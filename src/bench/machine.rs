//! What the figures were measured on, and what else used it meanwhile. Read from `/proc` and `/sys`; what is not there
//! is not known.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;

use super::gpu::{Gpu, GpuIdentity};

/// What a figure must be reported with to mean anything.
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
    /// Whether it is patched for real time (PREEMPT_RT).
    pub realtime_kernel: bool,
    /// CPUs that the kernel keeps other programs off, such as `2-3`.
    pub isolated_cpus: Option<String>,
    pub gpu: Option<GpuIdentity>,
    /// Where a ROS environment is set up.
    pub ros_distro: Option<String>,
    pub ros_middleware: Option<String>,
    pub architecture: &'static str,
    pub program_version: &'static str,
    /// Of the source that the program was built from, where that is at hand; with a word where the program is older.
    pub git_revision: Option<String>,
    /// Unoptimised builds are many times slower.
    pub optimised_build: bool,
}

impl Fingerprint {
    /// Of this machine and program.
    pub fn read() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu_model: field(&cpuinfo, "model name").or_else(|| field(&cpuinfo, "Model")).map(str::to_owned),
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get()),
            cpu_governor: read_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            virtual_machine: field(&cpuinfo, "flags").is_some_and(|f| f.split(' ').any(|flag| flag == "hypervisor")),
            memory_mib: meminfo_mib("MemTotal"),
            kernel: read_line("/proc/sys/kernel/osrelease"),
            realtime_kernel: realtime_kernel(),
            isolated_cpus: read_line("/sys/devices/system/cpu/isolated"),
            gpu: Gpu::find().and_then(|gpu| gpu.identity()),
            ros_distro: std::env::var("ROS_DISTRO").ok(),
            ros_middleware: std::env::var("ROS_DISTRO")
                .ok()
                .map(|_| std::env::var("RMW_IMPLEMENTATION").unwrap_or_else(|_| "the distribution's own".into())),
            architecture: std::env::consts::ARCH,
            program_version: env!("CARGO_PKG_VERSION"),
            git_revision: git_revision(Path::new(env!("CARGO_MANIFEST_DIR"))),
            optimised_build: !cfg!(debug_assertions),
        }
    }

    /// In one line.
    pub fn summary(&self) -> String {
        let or_unknown = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".into());
        format!(
            "{}, {} CPU{}{}, governor {}, kernel {}{}{}",
            or_unknown(&self.cpu_model),
            self.cpus,
            if self.cpus == 1 { "" } else { "s" },
            if self.virtual_machine { ", virtual" } else { "" },
            or_unknown(&self.cpu_governor),
            or_unknown(&self.kernel),
            if self.realtime_kernel { " (real time)" } else { "" },
            self.gpu.as_ref().map(|gpu| format!(", {}", gpu.name)).unwrap_or_default()
        )
    }
}

/// Whether the kernel is patched for real time.
pub(super) fn realtime_kernel() -> bool {
    read_line("/sys/kernel/realtime").as_deref() == Some("1")
        || read_line("/proc/version").is_some_and(|version| version.contains("PREEMPT_RT"))
}

/// The value of the first line `name : value`.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.trim() == name).map(|(_, value)| value.trim())
}

/// A file's first line; none where it cannot be read or is empty.
pub(super) fn read_line(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().next().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned)
}

/// A figure of `/proc/meminfo`, such as `MemAvailable`.
pub(super) fn meminfo_mib(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some(field(&text, name)?.strip_suffix(" kB")?.parse::<u64>().ok()? / 1024)
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
    // The folder may have moved on since the program was built.
    let built = fs::metadata(std::env::current_exe().ok()?).ok()?.modified().ok()?;
    let committed = UNIX_EPOCH + Duration::from_secs(git(&["log", "-1", "--format=%ct"])?.parse().ok()?);
    Some(if built < committed { format!("{revision}, but built before that") } else { revision })
}

/// Shares of the CPU time of all CPUs over some period, 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// This process.
    pub own: f64,
    /// Other programs and the kernel.
    pub others: f64,
    /// Taken by the hypervisor.
    pub steal: f64,
}

impl Load {
    /// Percent of the CPU time that went elsewhere.
    pub fn foreign_percent(&self) -> f64 {
        (self.others + self.steal) * 100.0
    }
}

/// The kernel's counters of CPU time, in ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CpuTime {
    total: u64,
    busy: u64,
    steal: u64,
    own: u64,
}

impl CpuTime {
    /// The counters now, with this process's own; none where there is no `/proc`.
    pub fn read() -> Option<Self> {
        Self::of(&["self".into()])
    }

    /// The counters now, with those of `processes` (numbers, or `self`) taken for own. One that has ended has none.
    pub fn of(processes: &[String]) -> Option<Self> {
        let stats = processes.iter().filter_map(|process| fs::read_to_string(format!("/proc/{process}/stat")).ok());
        Self::parse(&fs::read_to_string("/proc/stat").ok()?, stats)
    }

    fn parse(stat: &str, own: impl IntoIterator<Item = impl AsRef<str>>) -> Option<Self> {
        let all = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user, nice, system, idle, iowait, irq, softirq, steal; guests are counted in user already.
        let ticks: Vec<u64> = all.split_whitespace().take(8).map_while(|t| t.parse().ok()).collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks[..] else { return None };
        Some(Self {
            total: ticks.iter().sum(),
            busy: user + nice + system + irq + softirq,
            steal,
            own: own.into_iter().map(|stat| ticks_of(stat.as_ref())).sum::<Option<u64>>()?,
        })
    }

    /// The load between two readings; none where no tick passed.
    pub fn load_until(&self, later: &Self) -> Option<Load> {
        let total = later.total.checked_sub(self.total).filter(|&t| t > 0)? as f64;
        let own = later.own.saturating_sub(self.own);
        let busy = later.busy.saturating_sub(self.busy);
        let steal = later.steal.saturating_sub(self.steal);
        Some(Load {
            own: own as f64 / total,
            others: busy.saturating_sub(own) as f64 / total,
            steal: steal as f64 / total,
        })
    }
}

/// CPU time in ticks, from a process's `stat`: utime and stime.
pub(super) fn ticks_of(stat: &str) -> Option<u64> {
    Some(stat_field(stat, 14)? + stat_field(stat, 15)?)
}

/// A field of a process's `stat` by its number in proc(5), above 3.
pub(super) fn stat_field(stat: &str, number: usize) -> Option<u64> {
    // The name, second of all, is in brackets and may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_told_apart_by_whose_it_is() {
        let own = |ticks: u64| format!("7 (a) b (c) S 1 1 1 0 -1 4194304 1 0 0 0 {ticks} 20 0 0 20 0 4 0 99");
        let before = CpuTime::parse("cpu  100 0 50 800 10 0 5 35 9 9\ncpu0 1 2 3", [own(30)]).unwrap();
        let after = CpuTime::parse("cpu  150 10 70 890 10 0 5 65 9 9\n", [own(70)]).unwrap();
        // 200 ticks: 80 busy, half of them its own; 30 stolen; 90 idle.
        let load = before.load_until(&after).unwrap();
        assert_eq!(load, Load { own: 0.2, others: 0.2, steal: 0.15 });
        assert!((load.foreign_percent() - 35.0).abs() < 1e-9);
        assert_eq!(after.load_until(&after), None);
    }

    #[test]
    fn counters_of_another_form_are_not_known() {
        assert_eq!(CpuTime::parse("cpu 1 2 3", ["7 (a) S"]), None);
        assert_eq!(CpuTime::parse("", [""]), None);
    }

    #[test]
    fn fields_are_found_whatever_their_spacing() {
        assert_eq!(field("model name\t: AMD EPYC\nflags : a b\n", "model name"), Some("AMD EPYC"));
        assert_eq!(field("x: 1\n", "model name"), None);
    }
}
