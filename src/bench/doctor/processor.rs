//! The clocks of the CPUs, their idle states, and hyper-threads.

use super::check::{Check, Topic};
use crate::sysfs::cpu::{self, ClockPolicy};
use crate::sysfs::{jetson, Root};

const GOVERNOR: Topic = Topic {
    name: "governor",
    why: "between frames the clock falls, and the first milliseconds of the next frame run at the lowest",
};

const IDLE_STATES: Topic =
    Topic { name: "idle states", why: "a CPU that sleeps deeply between frames wakes up late for the next" };

const HYPER_THREADS: Topic =
    Topic { name: "hyper-threads", why: "two threads share each core and slow each other down when both work" };

/// Longest exit latency of an idle state that a frame does not notice, µs.
const LONGEST_EXIT_US: u64 = 50;

pub fn checks(root: &Root) -> Vec<Check> {
    let is_jetson = jetson::board(root).is_some();
    vec![
        governor(&cpu::clock_policies(root), is_jetson),
        idle_states(cpu::deepest_idle_state(root), is_jetson),
        siblings(root.line("sys/devices/system/cpu/smt/active").as_deref()),
    ]
}

fn governor(policies: &[ClockPolicy], is_jetson: bool) -> Check {
    let remedy = if is_jetson { "sudo jetson_clocks" } else { "sudo cpupower frequency-set -g performance" };
    let Some(free) = policies.iter().find(|policy| !policy.is_locked()).or(policies.first()) else {
        return GOVERNOR.good("not reported, as on most virtual machines");
    };
    if !free.is_locked() {
        let (low, high) = (free.lowest, free.highest);
        return GOVERNOR.doubtful(format!("{}: {low} to {high} MHz, rises only under load", free.governor), remedy);
    }
    match policies.iter().find(|policy| policy.highest < policy.possible) {
        // On a Jetson the power mode limits it, which has a check of its own.
        Some(limited) if !is_jetson => GOVERNOR.doubtful(
            format!("{}, but limited to {} of {} MHz", limited.governor, limited.highest, limited.possible),
            format!("sudo cpupower frequency-set -u {}MHz", limited.possible),
        ),
        _ => GOVERNOR.good(format!("{}, at the highest clock", free.governor)),
    }
}

fn idle_states(deepest: Option<(String, u64)>, is_jetson: bool) -> Check {
    let Some((name, us)) = deepest else {
        return IDLE_STATES.good("not reported, as on most virtual machines");
    };
    let finding = format!("deepest: {name}, exit latency {us} µs");
    if us <= LONGEST_EXIT_US {
        return IDLE_STATES.good(finding);
    }
    let remedy = if is_jetson {
        "sudo jetson_clocks".to_owned()
    } else {
        format!("sudo cpupower idle-set -D {LONGEST_EXIT_US}")
    };
    IDLE_STATES.doubtful(finding, remedy)
}

fn siblings(active: Option<&str>) -> Check {
    match active {
        Some("1") => HYPER_THREADS.doubtful("on", "echo off | sudo tee /sys/devices/system/cpu/smt/control"),
        Some(_) => HYPER_THREADS.good("off"),
        None => HYPER_THREADS.good("not reported"),
    }
}
