//! `--realtime`: SCHED_FIFO and locked memory for the measured threads.

#[cfg(target_os = "linux")]
pub use peregrine_core::scheduling::use_default_scheduling;

/// Puts this thread, and those that it starts from then on, at `priority` of SCHED_FIFO, and locks
/// all memory.
///
/// # Errors
/// If the process lacks the permission; the message names the remedy.
#[cfg(target_os = "linux")]
pub fn enter(priority: i32) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use peregrine_core::scheduling::{lock_memory, Scheduling, ThreadId};

    const REMEDY: &str = "run as root, grant it with `sudo setcap cap_sys_nice,cap_ipc_lock+ep \
                          target/release/latency_bench`, or set rtprio and memlock in /etc/security/limits.conf";
    Scheduling::fifo(priority)
        .apply_to(ThreadId::CURRENT)
        .with_context(|| format!("--realtime: no permission for SCHED_FIFO priority {priority}: {REMEDY}"))?;
    lock_memory().with_context(|| format!("--realtime: no permission to lock memory: {REMEDY}"))
}

/// # Errors
/// Always: not supported on this system.
#[cfg(not(target_os = "linux"))]
pub fn enter(_: i32) -> anyhow::Result<()> {
    anyhow::bail!("--realtime: real-time priority is supported on Linux only")
}

/// Threads have no real-time priority on this system.
#[cfg(not(target_os = "linux"))]
pub fn use_default_scheduling() {}
