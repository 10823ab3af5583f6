//! The real-time profile: priority, cores, locked memory, a stack that is mapped in advance. What
//! the system does not permit is reported, and the node runs without it.

mod threads;

use peregrine_core::scheduling::{self, Scheduling, ThreadId, MAX_CORES};

use super::parameters::{ParameterError, Parameters};
pub use threads::{raise_threads, ProcessProfile};
#[cfg(test)]
pub(crate) use threads::{scheduling_of, PRIORITIES};

/// What the parameters ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RealtimeProfile {
    /// Of `SCHED_FIFO`, 1 to 99; 0 leaves scheduling as it is.
    pub priority: i32,
    /// Cores that the threads may use; empty leaves them as they are.
    pub cores: Vec<usize>,
    pub lock_memory: bool,
    /// Bytes of the frame thread's stack to touch before the first frame.
    pub prefault_stack: usize,
}

/// The outcome of one part of the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileReport {
    /// The parameter, or `middleware_priority`.
    pub what: &'static str,
    /// What holds now, or why the profile's part does not, with the remedy.
    pub outcome: Result<String, String>,
}

impl RealtimeProfile {
    /// # Errors
    /// When `cpu_affinity` is not a list of cores.
    pub fn new(parameters: &Parameters) -> Result<Self, ParameterError> {
        let text = parameters.text("cpu_affinity");
        let cores = parse_cores(text).ok_or_else(|| ParameterError::NotPermitted {
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

/// Cores of a list such as `2,4-6`; `None` if it is invalid.
fn parse_cores(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.trim().parse::<usize>().ok()?, last.trim().parse::<usize>().ok()?);
        if first > last || last >= MAX_CORES {
            return None;
        }
        cores.extend(first..=last);
    }
    Some(cores)
}

/// Gives the calling thread its cores and its priority; threads that it starts from then on inherit
/// both.
pub fn apply_to_thread(profile: &RealtimeProfile) -> Vec<ProfileReport> {
    let mut reports = Vec::new();
    if !profile.cores.is_empty() {
        reports.push(ProfileReport { what: "cpu_affinity", outcome: set_cores(&profile.cores) });
    }
    if profile.priority > 0 {
        reports.push(ProfileReport {
            what: "realtime_priority",
            outcome: set_priority(ThreadId::CURRENT, profile.priority),
        });
    }
    reports
}

/// Gives the priority to the middleware's threads: those that others have started in this process
/// by now. An image reaches the node only after one of them has run.
///
/// They keep their cores, since one core for the node's own threads need not be enough for them
/// too. Threads of the node that no frame waits for are left out by their names, `background`.
pub fn apply_to_middleware(profile: &RealtimeProfile, background: &[&str]) -> Vec<ProfileReport> {
    if profile.priority == 0 {
        return Vec::new();
    }
    let raised = raise_threads(profile, |name| !background.contains(&name));
    let text = |raised| format!("SCHED_FIFO {} for {raised} threads, the middleware's among them", profile.priority);
    vec![ProfileReport { what: "middleware_priority", outcome: raised.map(text) }]
}

fn set_cores(cores: &[usize]) -> Result<String, String> {
    match scheduling::set_affinity(ThreadId::CURRENT, cores) {
        Ok(()) => Ok(format!("on cores {cores:?}")),
        Err(error) => Err(format!("cores {cores:?}: {error}; this process may use cores {:?}", permitted_cores())),
    }
}

/// The cores that the calling thread may use; empty if the system call fails.
fn permitted_cores() -> Vec<usize> {
    scheduling::affinity(ThreadId::CURRENT).unwrap_or_default()
}

fn set_priority(thread: ThreadId, priority: i32) -> Result<String, String> {
    let wanted = Scheduling::fifo(priority);
    match wanted.apply_to(thread) {
        Ok(()) => Ok(wanted.to_string()),
        Err(error) => Err(format!(
            "{wanted}: {error}; it takes CAP_SYS_NICE, or rtprio {priority} in /etc/security/limits.conf, or \
             LimitRTPRIO={priority} in a systemd unit, or --ulimit rtprio={priority} --cap-add sys_nice for Docker"
        )),
    }
}

/// Keeps all memory of the process, present and future, from being paged out. To be called before
/// anything large is allocated.
pub fn lock_memory() -> ProfileReport {
    const REMEDY: &str = "it takes CAP_IPC_LOCK, or memlock unlimited in /etc/security/limits.conf, or \
                          LimitMEMLOCK=infinity in a systemd unit, or --ulimit memlock=-1 for Docker";
    let outcome = match scheduling::locked_memory_limit() {
        // The call might succeed and a later allocation fail because of the limit: the end of the
        // process.
        Some(bytes) => Err(format!("the limit of locked memory is {} KiB; {REMEDY}", bytes / 1024)),
        None => scheduling::lock_memory().map_err(|error| format!("{error}; {REMEDY}")),
    };
    ProfileReport { what: "lock_memory", outcome: outcome.map(|()| "all memory is locked".into()) }
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
        // After the call, so that it is not a tail call, which would use one page again and again.
        std::hint::black_box(&page);
    }
    if bytes > 0 {
        touch(bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use super::*;

    #[test]
    fn lists_of_cores_are_read_and_invalid_ones_refused() {
        assert_eq!(parse_cores(""), Some(vec![]));
        assert_eq!(parse_cores("3"), Some(vec![3]));
        assert_eq!(parse_cores(" 2, 4-6 "), Some(vec![2, 4, 5, 6]));
        for invalid in ["a", "4-2", "-1", "1-", "99999", "1;2"] {
            assert_eq!(parse_cores(invalid), None, "{invalid}");
        }
    }

    #[test]
    fn a_thread_is_put_on_the_cores_asked_for() {
        std::thread::spawn(|| {
            let first = permitted_cores()[0];
            let profile = RealtimeProfile { cores: vec![first], ..RealtimeProfile::default() };
            let reports = apply_to_thread(&profile);
            assert!(matches!(&reports[..], [ProfileReport { what: "cpu_affinity", outcome: Ok(_) }]), "{reports:?}");
            assert_eq!(permitted_cores(), [first]);
            // What such a thread starts is on the same core: so the engine's threads follow the
            // frame thread.
            assert_eq!(std::thread::spawn(permitted_cores).join().unwrap(), [first]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn absent_cores_are_refused_with_those_that_exist() {
        std::thread::spawn(|| {
            let profile = RealtimeProfile { cores: vec![1000], ..RealtimeProfile::default() };
            let [ProfileReport { outcome: Err(why), .. }] = &apply_to_thread(&profile)[..] else { panic!("refused") };
            assert!(why.contains("[1000]") && why.contains("may use cores"), "{why}");
        })
        .join()
        .unwrap();
    }

    #[test]
    fn priority_is_applied_or_refused_with_the_remedy() {
        let _alone = PRIORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::spawn(|| {
            let profile = RealtimeProfile { priority: 10, ..RealtimeProfile::default() };
            match &apply_to_thread(&profile)[..] {
                [ProfileReport { outcome: Ok(what), .. }] => {
                    assert_eq!(what, "SCHED_FIFO 10");
                    assert_eq!(Scheduling::of(ThreadId::CURRENT).unwrap(), Scheduling::fifo(10));
                }
                [ProfileReport { outcome: Err(why), .. }] => assert!(why.contains("CAP_SYS_NICE"), "{why}"),
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
