//! This program: how it was built, and what it may do.

use super::check::{Check, Topic};
use crate::machine::Fingerprint;

const BUILD: Topic =
    Topic { name: "build", why: "a debug build is many times slower, so that its figures say nothing" };

const CPUS: Topic =
    Topic { name: "CPUs", why: "on a single CPU the camera's thread waits for the worker, and frames arrive late" };

const INSTRUCTIONS: Topic =
    Topic { name: "instructions", why: "the network takes several times as long without vector instructions" };

const REAL_TIME: Topic = Topic {
    name: "real time",
    why: "at default priority any program may take the CPU for milliseconds in the middle of a frame",
};

const MEMORY_LOCK: Topic =
    Topic { name: "memory lock", why: "what is paged out costs milliseconds of disk when the next frame needs it" };

/// Bytes that are locked by the node with the largest shipped student, with room to spare.
const LOCKED: u64 = 256 << 20;

pub fn checks(machine: &Fingerprint) -> Vec<Check> {
    vec![
        build(machine.optimised_build),
        cpus(machine.cpus),
        instructions(),
        realtime_permission(highest_fifo_priority()),
        memory_lock(memory_lock_limit()),
    ]
}

fn build(optimised: bool) -> Check {
    if optimised {
        return BUILD.good("optimised");
    }
    BUILD.bad("a debug build", "cargo run --release --bin latency_bench")
}

fn cpus(cpus: usize) -> Check {
    let finding = format!("{cpus} available to this process");
    if cpus >= 2 {
        return CPUS.good(finding);
    }
    CPUS.doubtful(finding, "give the process a second CPU (taskset, or --cpuset-cpus of its container)")
}

#[cfg(target_arch = "x86_64")]
fn instructions() -> Check {
    if is_x86_feature_detected!("avx512f") {
        INSTRUCTIONS.good("AVX-512")
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        INSTRUCTIONS.good("AVX2 with FMA")
    } else {
        INSTRUCTIONS.doubtful("no AVX2 or no FMA", "on a virtual machine, set the CPU model to `host`")
    }
}

#[cfg(target_arch = "aarch64")]
fn instructions() -> Check {
    let products = if std::arch::is_aarch64_feature_detected!("dotprod") { ", with dot products of int8" } else { "" };
    INSTRUCTIONS.good(format!("NEON{products}"))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn instructions() -> Check {
    INSTRUCTIONS.doubtful(
        format!("none of {}: the engine runs its portable code", std::env::consts::ARCH),
        "use a processor with AVX2, AVX-512 or NEON",
    )
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
    if highest > 0 {
        return REAL_TIME.good(format!("SCHED_FIFO priorities up to {highest} are permitted"));
    }
    REAL_TIME.doubtful(
        "no permission for real-time priority",
        "echo \"$USER - rtprio 98\" | sudo tee /etc/security/limits.d/peregrine.conf, and log in again",
    )
}

fn memory_lock(limit: Option<u64>) -> Check {
    match limit {
        None => MEMORY_LOCK.good("no limit"),
        Some(bytes) if bytes >= LOCKED => MEMORY_LOCK.good(format!("{} MiB can be locked", bytes >> 20)),
        Some(bytes) => MEMORY_LOCK.doubtful(
            format!("only {} MiB can be locked", bytes >> 20),
            "echo \"$USER - memlock unlimited\" | sudo tee -a /etc/security/limits.d/peregrine.conf, and log in again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn a_build_and_a_process_without_permissions_are_told() {
        assert_eq!((build(false).health, build(true).health), (Health::Bad, Health::Good));
        for fault in [cpus(1), realtime_permission(0), memory_lock(Some(64 << 10))] {
            assert!(fault.health == Health::Doubtful && !fault.remedy.is_empty(), "{fault:?}");
        }
        for good in [cpus(8), realtime_permission(99), memory_lock(None), memory_lock(Some(1 << 30))] {
            assert!(good.health == Health::Good && good.remedy.is_empty(), "{good:?}");
        }
    }
}
