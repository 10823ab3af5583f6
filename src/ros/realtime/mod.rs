//! The real-time profile: priority, cores, locked memory, a stack that is there. Applied where the system permits it,
//! and reported where it does not; the node runs either way.

mod threads;

use std::io;

use super::parameters::{Parameters, Refusal};
#[cfg(test)]
pub(crate) use threads::policies;
use threads::set_scheduling;
pub use threads::{be_patient, raise_threads, Origin};

/// What the parameters ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Of SCHED_FIFO, 1 to 99; 0 leaves scheduling as it is.
    pub priority: i32,
    /// Cores that the threads may use; empty leaves them as they are.
    pub cores: Vec<usize>,
    pub lock_memory: bool,
    /// Bytes of the frame thread's stack to touch before the first frame.
    pub prefault_stack: usize,
}

/// What became of one part of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub what: &'static str,
    /// What holds, or why it does not, with the remedy.
    pub outcome: Result<String, String>,
}

impl Profile {
    /// # Errors
    /// When `cpu_affinity` is no list of cores.
    pub fn new(parameters: &Parameters) -> Result<Self, Refusal> {
        let text = parameters.text("cpu_affinity");
        let cores = parse_cores(text).ok_or_else(|| Refusal::NotPermitted {
            name: "cpu_affinity".into(),
            expected: "a list of cores such as 2,4-6".into(),
            found: format!("'{text}'"),
        })?;
        Ok(Self {
            priority: parameters.count("realtime_priority") as i32,
            cores,
            lock_memory: parameters.flag("lock_memory"),
            prefault_stack: parameters.count("prefault_stack_kib") * 1024,
        })
    }
}

/// Cores of a list such as `2,4-6`; none if it is not one.
fn parse_cores(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= libc::CPU_SETSIZE as usize {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Gives the calling thread its cores and its priority; threads that it starts from then on inherit both.
pub fn apply_to_thread(profile: &Profile) -> Vec<Report> {
    let mut reports = Vec::new();
    if !profile.cores.is_empty() {
        reports.push(Report { what: "cpu_affinity", outcome: set_cores(&profile.cores) });
    }
    if profile.priority > 0 {
        reports.push(Report { what: "realtime_priority", outcome: set_priority(0, profile.priority) });
    }
    reports
}

/// Gives the priority to the threads that others have started in this process by now, which are the middleware's: an image
/// reaches the node only after one of them has run. (They stay on the cores that they are on: one core for the node's own
/// threads is not for them too.) Threads of ours that may wait are left out by their names, `patient`.
pub fn apply_to_middleware(profile: &Profile, patient: &[&str]) -> Vec<Report> {
    if profile.priority == 0 {
        return Vec::new();
    }
    let raised = raise_threads(profile, |name| !patient.contains(&name));
    let told = |raised| format!("SCHED_FIFO {} for {raised} threads, the middleware's among them", profile.priority);
    vec![Report { what: "middleware_priority", outcome: raised.map(told) }]
}

fn set_cores(cores: &[usize]) -> Result<String, String> {
    // SAFETY: a set of bits, for which all zero is the empty set; `parse_cores` keeps every core below its size.
    let status = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().for_each(|&core| libc::CPU_SET(core, &mut set));
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    match status {
        0 => Ok(format!("on cores {cores:?}")),
        _ => Err(format!("cores {cores:?}: {}; this process may use cores {}", last_error(), permitted_cores())),
    }
}

/// The cores that the calling thread may use, as the kernel lists them.
fn permitted_cores() -> String {
    status_line("Cpus_allowed_list:").unwrap_or_else(|| "unknown".into())
}

/// Of the thread with that number; 0 is the calling one.
fn set_priority(thread: libc::pid_t, priority: i32) -> Result<String, String> {
    match set_scheduling(thread, libc::SCHED_FIFO, priority) {
        Ok(()) => Ok(format!("SCHED_FIFO {priority}")),
        Err(error) => Err(format!(
            "SCHED_FIFO {priority}: {error}; it takes CAP_SYS_NICE, or rtprio {priority} in /etc/security/limits.conf, or \
             LimitRTPRIO={priority} in a systemd unit, or --ulimit rtprio={priority} --cap-add sys_nice for Docker"
        )),
    }
}

/// Keeps all memory of the process, present and to come, from being paged out. To be called before the node is warm.
pub fn lock_memory() -> Report {
    let outcome = lock_all().map(|()| "all memory is locked".into());
    Report { what: "lock_memory", outcome }
}

fn lock_all() -> Result<(), String> {
    const REMEDY: &str = "it takes CAP_IPC_LOCK, or memlock unlimited in /etc/security/limits.conf, or \
                          LimitMEMLOCK=infinity in a systemd unit, or --ulimit memlock=-1 for Docker";
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills the structure that it is given.
    let known = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) } == 0;
    // With a limit, the call might succeed and a later allocation fail for it: the end of the process.
    let unlimited = known && limit.rlim_cur == libc::RLIM_INFINITY;
    if !unlimited && !may_lock() {
        return Err(format!("the limit of locked memory is {} KiB; {REMEDY}", limit.rlim_cur / 1024));
    }
    // SAFETY: changes nothing that the program can see but its speed.
    match unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } {
        0 => Ok(()),
        _ => Err(format!("{}; {REMEDY}", last_error())),
    }
}

/// Whether the process has CAP_IPC_LOCK, which lifts the limit.
fn may_lock() -> bool {
    const CAP_IPC_LOCK: u32 = 14;
    let effective = status_line("CapEff:").and_then(|set| u64::from_str_radix(&set, 16).ok());
    effective.is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// A line of /proc/thread-self/status, without its name.
fn status_line(name: &str) -> Option<String> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

/// Touches `bytes` of the calling thread's stack, so that no page of it is missing later.
pub fn prefault_stack(bytes: usize) {
    const PAGE: usize = 4096;
    #[inline(never)]
    fn touch(bytes: usize) {
        let mut page = [0u8; PAGE];
        std::hint::black_box(&mut page);
        if bytes > PAGE {
            touch(bytes - PAGE);
        }
        // After the call, so that it is no tail call, which would use one page again and again.
        std::hint::black_box(&page);
    }
    if bytes > 0 {
        touch(bytes);
    }
}

fn last_error() -> io::Error {
    io::Error::last_os_error()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_nonsense_is_not() {
        assert_eq!(parse_cores(""), Some(vec![]));
        assert_eq!(parse_cores("3"), Some(vec![3]));
        assert_eq!(parse_cores(" 2, 4-6 "), Some(vec![2, 4, 5, 6]));
        for nonsense in ["a", "4-2", "-1", "1-", "99999", "1;2"] {
            assert_eq!(parse_cores(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_thread_is_put_on_the_cores_asked_for() {
        std::thread::spawn(|| {
            let first = permitted_cores().split([',', '-']).next().unwrap().to_owned();
            let profile = Profile { cores: parse_cores(&first).unwrap(), ..Profile::default() };
            let reports = apply_to_thread(&profile);
            assert!(matches!(&reports[..], [Report { what: "cpu_affinity", outcome: Ok(_) }]), "{reports:?}");
            assert_eq!(permitted_cores(), first);
            // What such a thread starts is on the same core: so the engine's threads follow the frame thread.
            assert_eq!(std::thread::spawn(permitted_cores).join().unwrap(), first);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn cores_that_are_not_there_are_refused_with_those_that_are() {
        std::thread::spawn(|| {
            let profile = Profile { cores: vec![1000], ..Profile::default() };
            let [Report { outcome: Err(why), .. }] = &apply_to_thread(&profile)[..] else { panic!("refused") };
            assert!(why.contains("[1000]") && why.contains("may use cores"), "{why}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn priority_is_applied_or_refused_with_the_remedy() {
        std::thread::spawn(|| {
            let profile = Profile { priority: 10, ..Profile::default() };
            match &apply_to_thread(&profile)[..] {
                [Report { outcome: Ok(what), .. }] => {
                    assert_eq!(what, "SCHED_FIFO 10");
                    // SAFETY: asks for a number.
                    assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_FIFO);
                }
                [Report { outcome: Err(why), .. }] => assert!(why.contains("CAP_SYS_NICE"), "{why}"),
                other => panic!("{other:?}"),
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_stack_can_be_touched_to_its_depth() {
        let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(|| prefault_stack(4 << 20));
        thread.unwrap().join().unwrap();
    }
}
