//! CPUs: clocks and their governor, idle states, thermal throttling.

use super::Root;

const FOLDER: &str = "sys/devices/system/cpu";

/// The folders of all CPUs, those offline included.
pub fn folders(root: &Root) -> Vec<String> {
    root.numbered(FOLDER, "cpu").into_iter().map(|(_, name)| format!("{FOLDER}/{name}")).collect()
}

/// Clock of the fastest CPU, MHz (idle ones are clocked down). `None` on most virtual machines.
pub fn fastest_mhz(root: &Root) -> Option<f64> {
    let khz = folders(root).into_iter().filter_map(|cpu| root.count(&format!("{cpu}/cpufreq/scaling_cur_freq")));
    khz.max().map(|khz| khz as f64 / 1e3)
}

/// How the clock of a CPU is chosen. MHz.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClockPolicy {
    pub governor: String,
    /// The lowest and highest that the governor may choose.
    pub lowest: u64,
    pub highest: u64,
    /// The highest that the CPU has.
    pub possible: u64,
}

impl ClockPolicy {
    /// Whether it is always that of the highest permitted clock.
    pub fn is_locked(&self) -> bool {
        self.governor == "performance" || self.lowest >= self.highest
    }
}

/// The different policies of all CPUs that are online. None on most virtual machines.
pub fn clock_policies(root: &Root) -> Vec<ClockPolicy> {
    let policy = |cpu: String| {
        let mhz = |file: &str| Some(root.count(&format!("{cpu}/cpufreq/{file}"))? / 1000);
        let (lowest, highest) = (mhz("scaling_min_freq").unwrap_or(0), mhz("scaling_max_freq").unwrap_or(u64::MAX));
        let possible = mhz("cpuinfo_max_freq").unwrap_or(highest);
        Some(ClockPolicy {
            governor: root.line(&format!("{cpu}/cpufreq/scaling_governor"))?,
            lowest,
            highest,
            possible,
        })
    };
    let mut found: Vec<_> = folders(root).into_iter().filter_map(policy).collect();
    found.sort();
    found.dedup();
    found
}

/// Name and exit latency in microseconds of the deepest idle state that a CPU may enter.
pub fn deepest_idle_state(root: &Root) -> Option<(String, u64)> {
    let states = folders(root).into_iter().flat_map(|cpu| {
        let folder = format!("{cpu}/cpuidle");
        root.numbered(&folder, "state").into_iter().filter_map(move |(_, state)| {
            let of = |file| root.line(&format!("{folder}/{state}/{file}"));
            (of("disable")? == "0").then_some((of("name")?, of("latency")?.parse::<u64>().ok()?))
        })
    });
    states.max_by_key(|(_, us)| *us)
}

/// Thermal throttling events of all CPUs since boot. `None` if the kernel does not report them, as on Arm.
pub fn throttle_count(root: &Root) -> Option<u64> {
    let count = |cpu: &str, which: &str| root.count(&format!("{cpu}/thermal_throttle/{which}_throttle_count"));
    let of = |cpu: String| Some(count(&cpu, "core")?.saturating_add(count(&cpu, "package").unwrap_or(0)));
    folders(root).into_iter().filter_map(of).reduce(u64::saturating_add)
}
