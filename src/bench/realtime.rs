//! `--realtime`: a place before all other programs, and memory that stays.

/// Puts this thread, and those that it starts from then on, at `priority` of SCHED_FIFO, and locks all memory.
///
/// # Errors
/// When the system does not permit it: a sentence with the remedy.
#[cfg(target_os = "linux")]
pub fn enter(priority: i32) -> anyhow::Result<()> {
    let remedy =
        "run as root, give the right with `sudo setcap cap_sys_nice,cap_ipc_lock+ep target/release/latency_bench`, \
                  or set rtprio and memlock in /etc/security/limits.conf";
    // SAFETY: all bytes of a sched_param may be zero.
    let mut parameters = unsafe { std::mem::zeroed::<libc::sched_param>() };
    parameters.sched_priority = priority;
    // SAFETY: 0 is the calling thread, and the parameters outlive the call.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &parameters) } != 0 {
        let why = std::io::Error::last_os_error();
        anyhow::bail!("--realtime: no permission for real-time priority {priority} ({why}): {remedy}");
    }
    // SAFETY: takes no memory from us.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        let why = std::io::Error::last_os_error();
        anyhow::bail!("--realtime: no permission to lock memory ({why}): {remedy}");
    }
    Ok(())
}

/// Puts this thread back among those of ordinary priority: for what accompanies a measurement, and must not be in its way.
/// A right to do that is not needed.
pub fn leave() {
    #[cfg(target_os = "linux")]
    // SAFETY: all bytes of a sched_param may be zero; 0 is the calling thread, and the parameters outlive the call.
    unsafe {
        libc::sched_setscheduler(0, libc::SCHED_OTHER, &std::mem::zeroed::<libc::sched_param>());
    }
}

/// Not known on this system.
///
/// # Errors
/// Always.
#[cfg(not(target_os = "linux"))]
pub fn enter(_: i32) -> anyhow::Result<()> {
    anyhow::bail!("--realtime: real-time priority is set on Linux only")
}
