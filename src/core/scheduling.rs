//! How Linux schedules the threads of this process, and whether its memory can be paged out.
//!
//! Affinity, memory locking, limits and capabilities are rustix's. Two calls go to libc: neither
//! rustix nor thread-priority can set the policy of a thread that is known by its number alone,
//! which is how the middleware's threads are known here.

use std::fmt;
use std::io;

use rustix::mm::MlockAllFlags;
use rustix::process::{getrlimit, Resource};
use rustix::thread::{CapabilitySet, CpuSet, Pid};

/// A scheduling policy with its priority, as in sched(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduling {
    policy: libc::c_int,
    priority: libc::c_int,
}

impl Scheduling {
    /// `SCHED_OTHER`, the time-sharing policy of ordinary threads.
    pub const DEFAULT: Self = Self { policy: libc::SCHED_OTHER, priority: 0 };

    /// `SCHED_FIFO`: before all ordinary threads. The kernel permits priorities from 1 to 99.
    pub const fn fifo(priority: i32) -> Self {
        Self { policy: libc::SCHED_FIFO, priority }
    }

    /// That of `thread`.
    ///
    /// # Errors
    /// When there is no such thread.
    pub fn of(thread: ThreadId) -> io::Result<Self> {
        // SAFETY: fills the structure that it is given, for which all zero is a value.
        unsafe {
            let mut parameters: libc::sched_param = std::mem::zeroed();
            let policy = check(libc::sched_getscheduler(thread.raw()))?;
            check(libc::sched_getparam(thread.raw(), &mut parameters))?;
            Ok(Self { policy: policy & !libc::SCHED_RESET_ON_FORK, priority: parameters.sched_priority })
        }
    }

    /// Schedules `thread` so; threads that it starts from then on inherit it.
    ///
    /// # Errors
    /// When the process may not: it takes CAP_SYS_NICE, or a limit of RLIMIT_RTPRIO that is high
    /// enough.
    pub fn apply_to(self, thread: ThreadId) -> io::Result<()> {
        // SAFETY: reads the structure, of which Linux knows the priority alone.
        unsafe {
            let mut parameters: libc::sched_param = std::mem::zeroed();
            parameters.sched_priority = self.priority;
            check(libc::sched_setscheduler(thread.raw(), self.policy, &parameters)).map(drop)
        }
    }
}

impl fmt::Display for Scheduling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.policy {
            libc::SCHED_OTHER => f.write_str("SCHED_OTHER"),
            libc::SCHED_FIFO => write!(f, "SCHED_FIFO {}", self.priority),
            policy => write!(f, "policy {policy} at priority {}", self.priority),
        }
    }
}

/// Puts the calling thread back under the time-sharing policy, whatever it inherited: for threads
/// that no frame waits for. No right is needed for that, and where it fails the thread goes on as
/// it is.
pub fn use_default_scheduling() {
    let _ = Scheduling::DEFAULT.apply_to(ThreadId::CURRENT);
}

/// A thread of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadId(Option<Pid>);

impl ThreadId {
    /// The calling thread, whichever it is.
    pub const CURRENT: Self = Self(None);

    /// The number of the calling thread, by which other threads can refer to it.
    pub fn here() -> Self {
        Self(Some(rustix::thread::gettid()))
    }

    fn raw(self) -> libc::pid_t {
        Pid::as_raw(self.0)
    }
}

/// The threads of this process with their names, of 15 bytes at most (comm in proc(5)).
pub fn threads() -> Vec<(ThreadId, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let thread = |task: std::fs::DirEntry| {
        // A thread that has ended since has no name any more.
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let id = Pid::from_raw(task.file_name().to_str()?.parse().ok()?)?;
        Some((ThreadId(Some(id)), name.trim().to_owned()))
    };
    tasks.filter_map(thread).collect()
}

/// Most cores that an affinity can name: they are numbered from 0 to one less.
pub const MAX_CORES: usize = CpuSet::MAX_CPU;

/// The cores that `thread` may run on, in ascending order.
///
/// # Errors
/// When there is no such thread.
pub fn affinity(thread: ThreadId) -> io::Result<Vec<usize>> {
    let set = rustix::thread::sched_getaffinity(thread.0)?;
    Ok((0..MAX_CORES).filter(|&core| set.is_set(core)).collect())
}

/// Keeps `thread` on the cores; threads that it starts from then on inherit them.
///
/// # Errors
/// When the process may use none of the cores.
pub fn set_affinity(thread: ThreadId, cores: &[usize]) -> io::Result<()> {
    let mut set = CpuSet::new();
    if let Some(core) = cores.iter().find(|&&core| core >= MAX_CORES) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("there is no core {core}")));
    }
    cores.iter().for_each(|&core| set.set(core));
    Ok(rustix::thread::sched_setaffinity(thread.0, &set)?)
}

/// Keeps all memory of the process, present and future, from being paged out.
///
/// # Errors
/// When the process may not: see [`locked_memory_limit`].
pub fn lock_memory() -> io::Result<()> {
    Ok(rustix::mm::mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE)?)
}

/// Undoes [`lock_memory`].
///
/// # Errors
/// Those of munlockall(2); none is expected.
pub fn unlock_memory() -> io::Result<()> {
    Ok(rustix::mm::munlockall()?)
}

/// Bytes of memory that the process may lock: its RLIMIT_MEMLOCK, and `None`, no limit, with
/// CAP_IPC_LOCK.
///
/// Where there is a limit, [`lock_memory`] may succeed and a later allocation fail because of it.
pub fn locked_memory_limit() -> Option<u64> {
    let sets = rustix::thread::capabilities(None);
    if sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::IPC_LOCK)) {
        return None;
    }
    getrlimit(Resource::Memlock).current
}

/// Highest priority of `SCHED_FIFO` that the process may give to its threads; 0 means none.
pub fn highest_fifo_priority() -> i32 {
    let sets = rustix::thread::capabilities(None);
    if sets.is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_NICE)) {
        return 99;
    }
    getrlimit(Resource::Rtprio).current.map_or(99, |limit| limit.min(99) as i32)
}

fn check(status: libc::c_int) -> io::Result<libc::c_int> {
    if status < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// In a thread of its own, since what is changed belongs to the thread.
    fn apart(test: impl FnOnce() + Send + 'static) {
        thread::spawn(test).join().unwrap();
    }

    #[test]
    fn a_thread_stays_on_its_core_and_so_do_those_it_starts() {
        apart(|| {
            let first = affinity(ThreadId::CURRENT).unwrap()[0];
            set_affinity(ThreadId::CURRENT, &[first]).unwrap();
            assert_eq!(affinity(ThreadId::CURRENT).unwrap(), [first]);
            assert_eq!(thread::spawn(|| affinity(ThreadId::CURRENT).unwrap()).join().unwrap(), [first]);
        });
    }

    #[test]
    fn cores_that_do_not_exist_are_refused() {
        apart(|| {
            assert!(set_affinity(ThreadId::CURRENT, &[MAX_CORES - 1]).is_err());
            assert!(set_affinity(ThreadId::CURRENT, &[MAX_CORES]).is_err());
            assert!(set_affinity(ThreadId::CURRENT, &[]).is_err());
        });
    }

    #[test]
    fn real_time_priority_is_granted_as_far_as_the_limit_says() {
        apart(|| {
            let granted = Scheduling::fifo(10).apply_to(ThreadId::CURRENT);
            assert_eq!(granted.is_ok(), highest_fifo_priority() >= 10, "{granted:?}");
            if granted.is_ok() {
                let now = Scheduling::of(ThreadId::here()).unwrap();
                assert_eq!((now, now.to_string()), (Scheduling::fifo(10), "SCHED_FIFO 10".to_owned()));
            }
            use_default_scheduling();
            assert_eq!(Scheduling::of(ThreadId::CURRENT).unwrap(), Scheduling::DEFAULT);
        });
    }

    #[test]
    fn threads_are_found_by_their_names() {
        let (name, end) = (thread::Builder::new().name("looked-for".into()), std::sync::mpsc::channel::<()>());
        let (told, number) = std::sync::mpsc::channel();
        let thread = name.spawn(move || {
            told.send(ThreadId::here()).unwrap();
            let _ = end.1.recv();
        });
        let number = number.recv().unwrap();
        assert!(threads().contains(&(number, "looked-for".to_owned())));
        drop(end.0);
        thread.unwrap().join().unwrap();
    }
}
