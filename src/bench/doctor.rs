//! `--doctor`: what about this machine makes latency worse or figures doubtful, each with a remedy in one line.

use std::thread;
use std::time::{Duration, Instant};

use super::machine::{meminfo_mib, read_line, CpuTime, Fingerprint, Load};
use super::stats::Distribution;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Good,
    /// Figures may be worse than they need be.
    Doubtful,
    /// Figures would mean little.
    Bad,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub health: Health,
    pub finding: String,
    /// What to do about it; empty where nothing need be done.
    pub remedy: &'static str,
}

/// Looks at everything; takes about a second and a half. Stop other programs first, or see them reported.
pub fn examine() -> Vec<Check> {
    let machine = Fingerprint::read();
    vec![
        build(machine.optimised_build),
        cpus(machine.cpus),
        instructions(),
        governor(machine.cpu_governor.as_deref()),
        throttling(read_line("/sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")),
        memory(meminfo_mib("MemAvailable")),
        load(measure_load()),
        wake_ups(measure_wake_ups()),
        kernel(read_line("/proc/version"), read_line("/sys/kernel/realtime")),
    ]
}

/// Whether nothing is bad.
pub fn is_fit(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.health != Health::Bad)
}

/// A line for each check, and one more for its remedy.
pub fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = match check.health {
            Health::Good => "good    ",
            Health::Doubtful => "doubtful",
            Health::Bad => "BAD     ",
        };
        let remedy = if check.remedy.is_empty() { String::new() } else { format!("{:23}-> {}\n", "", check.remedy) };
        format!("{mark}  {:12} {}\n{remedy}", check.name, check.finding)
    };
    checks.iter().map(line).collect()
}

fn check(name: &'static str, health: Health, finding: impl Into<String>, remedy: &'static str) -> Check {
    let remedy = if health == Health::Good { "" } else { remedy };
    Check { name, health, finding: finding.into(), remedy }
}

fn build(optimised: bool) -> Check {
    let (health, finding) =
        if optimised { (Health::Good, "optimised") } else { (Health::Bad, "a debug build, many times slower") };
    check("build", health, finding, "cargo run --release --bin latency_bench")
}

fn cpus(cpus: usize) -> Check {
    let health = if cpus >= 2 { Health::Good } else { Health::Doubtful };
    let remedy = "give the process a second CPU, so that the camera's thread need not wait for the worker's";
    check("CPUs", health, format!("{cpus} may be used"), remedy)
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Check {
    let fast = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let (health, finding) = match fast {
        true if is_x86_feature_detected!("avx512f") => (Health::Good, "AVX-512"),
        true => (Health::Good, "AVX2 with FMA"),
        false => (Health::Doubtful, "neither AVX2 nor FMA"),
    };
    check("instructions", health, finding, "on a virtual machine, choose the CPU model `host` in its settings")
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Check {
    check("instructions", Health::Good, std::env::consts::ARCH, "")
}

fn governor(governor: Option<&str>) -> Check {
    let remedy = "sudo cpupower frequency-set -g performance";
    match governor {
        Some("performance") => check("governor", Health::Good, "performance", ""),
        Some(other) => check("governor", Health::Doubtful, format!("{other}: clocks rise only under load"), remedy),
        None => check("governor", Health::Good, "not visible here, as on most virtual machines", ""),
    }
}

fn throttling(count: Option<String>) -> Check {
    match count.and_then(|count| count.parse::<u64>().ok()) {
        None => check("heat", Health::Good, "throttling is not reported here", ""),
        Some(0) => check("heat", Health::Good, "not throttled since boot", ""),
        Some(n) => check(
            "heat",
            Health::Doubtful,
            format!("throttled {n} times since boot"),
            "cool it, or lower the rate or input size",
        ),
    }
}

fn memory(available_mib: Option<u64>) -> Check {
    match available_mib {
        Some(mib) if mib < 256 => {
            check("memory", Health::Bad, format!("{mib} MiB available"), "stop other programs: 256 MiB should be free")
        }
        Some(mib) => check("memory", Health::Good, format!("{mib} MiB available"), ""),
        None => check("memory", Health::Good, "not known", ""),
    }
}

fn measure_load() -> Option<Load> {
    let before = CpuTime::read()?;
    thread::sleep(Duration::from_secs(1));
    before.load_until(&CpuTime::read()?)
}

fn load(load: Option<Load>) -> Check {
    let Some(load) = load else { return check("load", Health::Good, "not known", "") };
    let health = match load.foreign_percent() {
        p if p <= 5.0 => Health::Good,
        p if p <= 25.0 => Health::Doubtful,
        _ => Health::Bad,
    };
    let (others, steal) = (load.others * 100.0, load.steal * 100.0);
    let finding = format!("other programs take {others:.1} % of the CPU time, the hypervisor {steal:.1} %");
    let remedy = if load.steal > load.others {
        "use a machine with CPUs of its own: what a hypervisor takes away cannot be won back"
    } else {
        "stop them (see `top`), or keep them off some CPUs and run under `taskset`"
    };
    check("load", health, finding, remedy)
}

/// Nanoseconds by which sleeps of a millisecond end late, of which the 99th percentile.
fn measure_wake_ups() -> u64 {
    let late = (0..200).map(|_| {
        let due = Instant::now() + Duration::from_millis(1);
        thread::sleep(Duration::from_millis(1));
        Some(due.elapsed().as_nanos() as u64)
    });
    Distribution::new(late).quantile(0.99).unwrap_or(0)
}

fn wake_ups(late_ns: u64) -> Check {
    let health = if late_ns < 1_000_000 { Health::Good } else { Health::Doubtful };
    let finding = format!("1 in 100 sleeps ends {:.2} ms late or more", late_ns as f64 / 1e6);
    check("wake-ups", health, finding, "run under `chrt -f 50` (needs the right to real-time priority)")
}

fn kernel(version: Option<String>, realtime: Option<String>) -> Check {
    let version = version.unwrap_or_default();
    if realtime.as_deref() == Some("1") || version.contains("PREEMPT_RT") {
        return check("kernel", Health::Good, "PREEMPT_RT", "");
    }
    let finding = if version.contains("PREEMPT") { "preemptible, not PREEMPT_RT" } else { "without full preemption" };
    check("kernel", Health::Good, finding, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_remedy_and_what_is_good_needs_none() {
        let faults = [
            build(false),
            cpus(1),
            governor(Some("powersave")),
            throttling(Some("3".into())),
            memory(Some(100)),
            load(Some(Load { own: 0.0, others: 0.5, steal: 0.0 })),
            load(Some(Load { own: 0.0, others: 0.0, steal: 0.2 })),
            wake_ups(3_000_000),
        ];
        for fault in faults {
            assert!(fault.health != Health::Good && !fault.remedy.is_empty(), "{fault:?}");
        }
        let goods = [build(true), cpus(8), governor(Some("performance")), memory(Some(9000)), wake_ups(60_000)];
        for good in goods {
            assert!(good.health == Health::Good && good.remedy.is_empty(), "{good:?}");
        }
    }

    #[test]
    fn only_bad_checks_make_a_machine_unfit() {
        assert!(is_fit(&[cpus(1), governor(None)]));
        assert!(!is_fit(&[cpus(4), build(false)]));
    }

    #[test]
    fn a_remedy_stands_below_its_finding() {
        let text = text(&[build(false)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("BAD       build") && lines[1].trim().starts_with("-> cargo run"), "{text}");
    }
}
