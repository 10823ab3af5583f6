//! `--doctor`: checks whether the machine is fit for latency measurements, with a remedy for each
//! finding.

use std::thread;
use std::time::{Duration, Instant};

use super::machine::{read_line, realtime_kernel, CpuLoad, CpuTime, Fingerprint};
use super::monitor::throttle_count;
use super::stats::Distribution;
use super::system;

/// Result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    Good,
    /// Latency may be higher than necessary.
    Doubtful,
    /// The machine is unfit: figures would mean little.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    pub name: &'static str,
    pub health: Health,
    pub finding: String,
    /// What to do about it; empty if the check is good.
    pub remedy: &'static str,
}

/// Runs all checks, in about 1.5 s. Other programs that run meanwhile are reported.
pub fn examine() -> Vec<Check> {
    let (machine, memory_now) = (Fingerprint::read(), system::memory());
    vec![
        build(machine.optimised_build),
        cpus(machine.cpus),
        instructions(),
        governor(machine.cpu_governor.as_deref()),
        throttling(throttle_count()),
        memory(memory_now.and_then(|memory| memory.available)),
        load(measure_load()),
        wake_ups(measure_wake_ups()),
        kernel(realtime_kernel()),
        idle_states(deepest_idle_state()),
        realtime_permission(highest_fifo_priority()),
        memory_lock(memory_lock_limit()),
        swap(memory_now.map(|memory| memory.swap_used)),
        isolation(machine.cpus, machine.isolated_cpus.as_deref()),
        siblings(read_line("/sys/devices/system/cpu/smt/active")),
        socket_buffers(read_line("/proc/sys/net/core/rmem_max").and_then(|bytes| bytes.parse().ok())),
        shared_memory(machine.ros_distro.is_some(), profile_is_set()),
    ]
}

/// Whether no check is bad.
pub fn is_fit(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.health != Health::Bad)
}

/// A line for each check, followed by a line for its remedy.
pub fn text(checks: &[Check]) -> String {
    let line = |check: &Check| {
        let mark = match check.health {
            Health::Good => "good    ",
            Health::Doubtful => "doubtful",
            Health::Bad => "BAD     ",
        };
        let remedy = if check.remedy.is_empty() { String::new() } else { format!("{:24}-> {}\n", "", check.remedy) };
        format!("{mark}  {:13} {}\n{remedy}", check.name, check.finding)
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
    let remedy = "give the process a second CPU, so that the camera thread does not wait for the worker";
    check("CPUs", health, format!("{cpus} available to this process"), remedy)
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Check {
    let (health, finding) = if is_x86_feature_detected!("avx512f") {
        (Health::Good, "AVX-512")
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        (Health::Good, "AVX2 with FMA")
    } else {
        (Health::Doubtful, "no AVX2 or no FMA: the engine runs without vector instructions")
    };
    check("instructions", health, finding, "on a virtual machine, set the CPU model to `host`")
}

#[cfg(not(target_arch = "x86_64"))]
fn instructions() -> Check {
    check("instructions", Health::Good, std::env::consts::ARCH, "")
}

fn governor(governor: Option<&str>) -> Check {
    let remedy = "sudo cpupower frequency-set -g performance";
    match governor {
        Some("performance") => check("governor", Health::Good, "performance", ""),
        Some(other) => check("governor", Health::Doubtful, format!("{other}: the clock rises only under load"), remedy),
        None => check("governor", Health::Good, "not reported, as on most virtual machines", ""),
    }
}

fn throttling(count: Option<u64>) -> Check {
    match count {
        None => check("heat", Health::Good, "throttling is not reported", ""),
        Some(0) => check("heat", Health::Good, "no throttling since boot", ""),
        Some(n) => check(
            "heat",
            Health::Doubtful,
            format!("throttled {n} times since boot"),
            "improve the cooling, or lower the frame rate or input size",
        ),
    }
}

fn memory(available_mib: Option<u64>) -> Check {
    match available_mib {
        Some(mib) if mib < 256 => {
            check("memory", Health::Bad, format!("{mib} MiB available"), "stop other programs until 256 MiB are free")
        }
        Some(mib) => check("memory", Health::Good, format!("{mib} MiB available"), ""),
        None => check("memory", Health::Good, "not reported", ""),
    }
}

fn measure_load() -> Option<CpuLoad> {
    let own = [std::process::id()];
    let before = CpuTime::read(&own)?;
    thread::sleep(Duration::from_secs(1));
    before.load_until(&CpuTime::read(&own)?)
}

fn load(load: Option<CpuLoad>) -> Check {
    let Some(load) = load else { return check("load", Health::Good, "not reported", "") };
    let health = match load.foreign_percent() {
        p if p <= 5.0 => Health::Good,
        p if p <= 25.0 => Health::Doubtful,
        _ => Health::Bad,
    };
    let (others, steal) = (load.others * 100.0, load.steal * 100.0);
    let finding = format!("other programs take {others:.1} % of the CPU time, the hypervisor {steal:.1} %");
    let remedy = if load.steal > load.others {
        "use a machine with dedicated CPUs: time stolen by the hypervisor cannot be regained"
    } else {
        "stop them (see `top`), or move them to other CPUs and run under `taskset`"
    };
    check("load", health, finding, remedy)
}

/// 99th percentile of the wake-up latency after sleeps of 1 ms, in nanoseconds.
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
    let finding = format!("timer wake-ups are {:.2} ms late at p99", late_ns as f64 / 1e6);
    check("wake-ups", health, finding, "run under `chrt -f 50` (takes the permission for real-time priority)")
}

fn kernel(realtime: bool) -> Check {
    let (health, finding) = if realtime {
        (Health::Good, "PREEMPT_RT")
    } else {
        (Health::Doubtful, "without PREEMPT_RT: it can delay a thread by milliseconds")
    };
    let remedy =
        "sudo apt-get install linux-image-rt-amd64 (Debian), or `sudo pro enable realtime-kernel` (Ubuntu), and reboot";
    check("kernel", health, finding, remedy)
}

/// Name and exit latency in microseconds of the deepest enabled idle state of the first CPU.
fn deepest_idle_state() -> Option<(String, u64)> {
    let states = (0..16).map_while(|i| {
        let of = |file| read_line(&format!("/sys/devices/system/cpu/cpu0/cpuidle/state{i}/{file}"));
        Some((of("name")?, of("latency")?.parse().ok()?, of("disable")?))
    });
    states.filter(|(.., disabled)| disabled == "0").map(|(name, latency, _)| (name, latency)).max_by_key(|(_, us)| *us)
}

fn idle_states(deepest: Option<(String, u64)>) -> Check {
    match deepest {
        None => check("idle states", Health::Good, "not reported, as on most virtual machines", ""),
        Some((name, us)) if us <= 50 => {
            check("idle states", Health::Good, format!("deepest: {name}, exit latency {us} µs"), "")
        }
        Some((name, us)) => check(
            "idle states",
            Health::Doubtful,
            format!("deepest: {name}, exit latency {us} µs"),
            "sudo cpupower idle-set -D 50",
        ),
    }
}

#[cfg(target_os = "linux")]
fn highest_fifo_priority() -> i32 {
    peregrine_core::scheduling::highest_fifo_priority()
}

/// Bytes that this process can lock. `None` if there is no limit.
#[cfg(target_os = "linux")]
fn memory_lock_limit() -> Option<u64> {
    peregrine_core::scheduling::locked_memory_limit()
}

#[cfg(not(target_os = "linux"))]
fn highest_fifo_priority() -> i32 {
    0
}

#[cfg(not(target_os = "linux"))]
fn memory_lock_limit() -> Option<u64> {
    None
}

fn realtime_permission(highest: i32) -> Check {
    const NAME: &str = "real time";
    if highest > 0 {
        return check(NAME, Health::Good, format!("SCHED_FIFO priorities up to {highest} are permitted"), "");
    }
    check(
        NAME,
        Health::Doubtful,
        "no permission for real-time priority",
        "echo \"$USER - rtprio 98\" | sudo tee /etc/security/limits.d/peregrine.conf, and log in again",
    )
}

fn memory_lock(limit: Option<u64>) -> Check {
    const NAME: &str = "memory lock";
    match limit {
        None => check(NAME, Health::Good, "no limit", ""),
        Some(bytes) if bytes >= 256 << 20 => check(NAME, Health::Good, "the limit is high enough", ""),
        Some(bytes) => check(
            NAME,
            Health::Doubtful,
            format!("only {} MiB can be locked, so that the program can be paged out", bytes >> 20),
            "echo \"$USER - memlock unlimited\" | sudo tee -a /etc/security/limits.d/peregrine.conf, and log in again",
        ),
    }
}

fn swap(used_mib: Option<u64>) -> Check {
    match used_mib {
        None | Some(0) => check("swap", Health::Good, "none in use", ""),
        Some(mib) => {
            let finding = format!("{mib} MiB in use: a page fault from swap takes milliseconds");
            check("swap", Health::Doubtful, finding, "sudo swapoff -a, or stop the programs that use so much memory")
        }
    }
}

fn isolation(cpus: usize, isolated: Option<&str>) -> Check {
    match isolated {
        Some(isolated) => check("isolation", Health::Good, format!("CPUs {isolated} are isolated"), ""),
        None if cpus < 4 => check("isolation", Health::Good, "no isolated CPUs, and too few to isolate any", ""),
        None => check(
            "isolation",
            Health::Doubtful,
            "no isolated CPUs: all are shared with other programs and interrupts",
            "boot with isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3, and run under `taskset -c 2-3`",
        ),
    }
}

fn siblings(active: Option<String>) -> Check {
    match active.as_deref() {
        Some("1") => check(
            "hyper-threads",
            Health::Doubtful,
            "on: two threads share each core and slow each other down",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        ),
        _ => check("hyper-threads", Health::Good, "off, or not reported", ""),
    }
}

/// An image from the network arrives as a burst of packets; a 1080p image in rgb8 is 6 MiB.
fn socket_buffers(bytes: Option<u64>) -> Check {
    const NAME: &str = "DDS buffers";
    match bytes {
        None => check(NAME, Health::Good, "not reported", ""),
        Some(bytes) if bytes >= 8 << 20 => {
            check(NAME, Health::Good, format!("sockets buffer up to {} MiB", bytes >> 20), "")
        }
        Some(bytes) => check(
            NAME,
            Health::Doubtful,
            format!(
                "sockets buffer at most {} KiB (net.core.rmem_max): images from another computer are lost",
                bytes >> 10
            ),
            "sudo sysctl -w net.core.rmem_max=33554432 net.ipv4.ipfrag_high_thresh=134217728",
        ),
    }
}

fn profile_is_set() -> bool {
    let variables = ["FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"];
    let other = std::env::var("RMW_IMPLEMENTATION").is_ok_and(|name| !name.contains("fastrtps"));
    other || variables.iter().any(|name| std::env::var_os(name).is_some())
}

fn shared_memory(ros: bool, profile: bool) -> Check {
    const NAME: &str = "DDS memory";
    match (ros, profile) {
        (false, _) => check(NAME, Health::Good, "not applicable: no ROS 2 environment", ""),
        (true, true) => check(NAME, Health::Good, "a middleware profile is set", ""),
        (true, false) => check(
            NAME,
            Health::Doubtful,
            "Fast DDS by default holds less than one 640x480 image in shared memory, and loses a third of the images",
            "export FASTRTPS_DEFAULT_PROFILES_FILE=launch/fastdds.xml, above all for the camera driver",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_has_a_remedy_and_a_good_check_has_none() {
        let faults = [
            build(false),
            cpus(1),
            governor(Some("powersave")),
            throttling(Some(3)),
            memory(Some(100)),
            load(Some(CpuLoad { own: 0.0, others: 0.5, steal: 0.0 })),
            load(Some(CpuLoad { own: 0.0, others: 0.0, steal: 0.2 })),
            wake_ups(3_000_000),
            kernel(false),
            idle_states(Some(("C6".into(), 133))),
            realtime_permission(0),
            memory_lock(Some(64 << 10)),
            swap(Some(12)),
            isolation(8, None),
            siblings(Some("1".into())),
            socket_buffers(Some(212_992)),
            shared_memory(true, false),
        ];
        for fault in faults {
            assert!(fault.health != Health::Good && !fault.remedy.is_empty(), "{fault:?}");
        }
        let goods = [
            build(true),
            cpus(8),
            governor(Some("performance")),
            memory(Some(9000)),
            wake_ups(60_000),
            idle_states(Some(("C1".into(), 2))),
            realtime_permission(99),
            swap(Some(0)),
            isolation(8, Some("2-3")),
            socket_buffers(Some(32 << 20)),
            shared_memory(true, true),
        ];
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
    fn a_remedy_follows_its_finding() {
        let text = text(&[build(false)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("BAD       build") && lines[1].trim().starts_with("-> cargo run"), "{text}");
    }
}
