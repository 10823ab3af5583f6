//! `--doctor`: what about this machine makes latency worse or figures doubtful, each with a remedy in one line.

use std::thread;
use std::time::{Duration, Instant};

use super::machine::{meminfo_mib, read_line, realtime_kernel, CpuTime, Fingerprint, Load};
use super::monitor::throttle_count;
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
        throttling(throttle_count()),
        memory(meminfo_mib("MemAvailable")),
        load(measure_load()),
        wake_ups(measure_wake_ups()),
        kernel(realtime_kernel()),
        idle_states(deepest_idle_state()),
        realtime_permission(realtime_limit()),
        memory_lock(memory_lock_limit()),
        swap(meminfo_mib("SwapTotal").zip(meminfo_mib("SwapFree")).map(|(total, free)| total.saturating_sub(free))),
        isolation(machine.cpus, machine.isolated_cpus.as_deref()),
        siblings(read_line("/sys/devices/system/cpu/smt/active")),
        socket_buffers(read_line("/proc/sys/net/core/rmem_max").and_then(|bytes| bytes.parse().ok())),
        shared_memory(machine.ros_distro.is_some(), profile_is_set()),
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

fn throttling(count: Option<u64>) -> Check {
    match count {
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

fn kernel(realtime: bool) -> Check {
    match realtime {
        true => check("kernel", Health::Good, "PREEMPT_RT", ""),
        false => check(
            "kernel",
            Health::Doubtful,
            "not patched for real time: it may hold a thread up for milliseconds",
            "sudo apt-get install linux-image-rt-amd64 (Debian), or `sudo pro enable realtime-kernel` (Ubuntu), and reboot",
        ),
    }
}

/// Name and wake-up time in microseconds of the deepest idle state that the first CPU may enter.
fn deepest_idle_state() -> Option<(String, u64)> {
    let states = (0..16).map_while(|i| {
        let of = |file| read_line(&format!("/sys/devices/system/cpu/cpu0/cpuidle/state{i}/{file}"));
        Some((of("name")?, of("latency")?.parse().ok()?, of("disable")?))
    });
    states.filter(|(.., disabled)| disabled == "0").map(|(name, latency, _)| (name, latency)).max_by_key(|(_, us)| *us)
}

fn idle_states(deepest: Option<(String, u64)>) -> Check {
    match deepest {
        None => check("idle states", Health::Good, "not visible here, as on most virtual machines", ""),
        Some((name, us)) if us <= 50 => {
            check("idle states", Health::Good, format!("{name} at most, {us} µs to wake"), "")
        }
        Some((name, us)) => check(
            "idle states",
            Health::Doubtful,
            format!("an idle CPU may sleep as deep as {name}, and takes {us} µs to wake"),
            "sudo cpupower idle-set -D 50",
        ),
    }
}

#[cfg(target_os = "linux")]
fn limit_of(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: writes to what it is given.
    let status = unsafe { libc::getrlimit(resource, &mut limit) };
    (status == 0).then_some(limit.rlim_max)
}

/// The highest priority that this user may take.
#[cfg(target_os = "linux")]
fn realtime_limit() -> Option<u64> {
    // SAFETY: asks for a number.
    let root = unsafe { libc::geteuid() } == 0;
    if root {
        return Some(99);
    }
    limit_of(libc::RLIMIT_RTPRIO)
}

/// Bytes that this user may lock.
#[cfg(target_os = "linux")]
fn memory_lock_limit() -> Option<u64> {
    limit_of(libc::RLIMIT_MEMLOCK)
}

#[cfg(not(target_os = "linux"))]
fn realtime_limit() -> Option<u64> {
    None
}

#[cfg(not(target_os = "linux"))]
fn memory_lock_limit() -> Option<u64> {
    None
}

fn realtime_permission(limit: Option<u64>) -> Check {
    const NAME: &str = "real time";
    match limit {
        None => check(NAME, Health::Good, "not known", ""),
        Some(0) => check(
            NAME,
            Health::Doubtful,
            "no permission for real-time priority",
            "echo \"$USER - rtprio 98\" | sudo tee /etc/security/limits.d/peregrine.conf, and log in again",
        ),
        Some(priority) => check(NAME, Health::Good, format!("priorities up to {priority} are permitted"), ""),
    }
}

fn memory_lock(limit: Option<u64>) -> Check {
    const NAME: &str = "memory lock";
    match limit {
        None => check(NAME, Health::Good, "not known", ""),
        Some(bytes) if bytes >= 256 << 20 => check(NAME, Health::Good, "enough memory may be locked", ""),
        Some(bytes) => check(
            NAME,
            Health::Doubtful,
            format!("{} MiB may be locked, so that pages of the program may be dropped", bytes >> 20),
            "echo \"$USER - memlock unlimited\" | sudo tee -a /etc/security/limits.d/peregrine.conf, and log in again",
        ),
    }
}

fn swap(used_mib: Option<u64>) -> Check {
    match used_mib {
        None | Some(0) => check("swap", Health::Good, "none in use", ""),
        Some(mib) => {
            let finding = format!("{mib} MiB in use: a page that is out takes milliseconds to come back");
            check("swap", Health::Doubtful, finding, "sudo swapoff -a, or stop what needs so much memory")
        }
    }
}

fn isolation(cpus: usize, isolated: Option<&str>) -> Check {
    match isolated {
        Some(isolated) => check("isolation", Health::Good, format!("CPUs {isolated} are kept for those who ask"), ""),
        None if cpus < 4 => check("isolation", Health::Good, "all CPUs are shared, and too few to set some apart", ""),
        None => check(
            "isolation",
            Health::Doubtful,
            "all CPUs are shared with other programs and interrupts",
            "boot with isolcpus=2-3 nohz_full=2-3 rcu_nocbs=2-3, and run under `taskset -c 2-3`",
        ),
    }
}

fn siblings(active: Option<String>) -> Check {
    match active.as_deref() {
        Some("1") => check(
            "hyper-threads",
            Health::Doubtful,
            "two threads share each core, and slow each other",
            "echo off | sudo tee /sys/devices/system/cpu/smt/control",
        ),
        _ => check("hyper-threads", Health::Good, "no core is shared by two threads, as far as is visible here", ""),
    }
}

/// Images over the network come as many packets at once; 2 MiB is less than one 1080p image.
fn socket_buffers(bytes: Option<u64>) -> Check {
    const NAME: &str = "DDS buffers";
    match bytes {
        None => check(NAME, Health::Good, "not known", ""),
        Some(bytes) if bytes >= 8 << 20 => {
            check(NAME, Health::Good, format!("sockets may hold {} MiB", bytes >> 20), "")
        }
        Some(bytes) => check(
            NAME,
            Health::Doubtful,
            format!(
                "a socket holds {} KiB at most (net.core.rmem_max): images from another computer get lost",
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
        (false, _) => check(NAME, Health::Good, "no ROS 2 environment is set up here", ""),
        (true, true) => check(NAME, Health::Good, "a profile of the middleware is set", ""),
        (true, false) => check(
            NAME,
            Health::Doubtful,
            "Fast DDS as it comes holds less than one 640x480 image in shared memory, and loses a third of them",
            "export FASTRTPS_DEFAULT_PROFILES_FILE=launch/fastdds.xml, for the camera above all",
        ),
    }
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
            throttling(Some(3)),
            memory(Some(100)),
            load(Some(Load { own: 0.0, others: 0.5, steal: 0.0 })),
            load(Some(Load { own: 0.0, others: 0.0, steal: 0.2 })),
            wake_ups(3_000_000),
            kernel(false),
            idle_states(Some(("C6".into(), 133))),
            realtime_permission(Some(0)),
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
            realtime_permission(Some(99)),
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
    fn a_remedy_stands_below_its_finding() {
        let text = text(&[build(false)]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("BAD       build") && lines[1].trim().starts_with("-> cargo run"), "{text}");
    }
}
