//! The threads of this process one by one, and what held for them before.

use std::io;

use super::{apply_to_middleware, apply_to_thread, last_error, lock_memory, set_priority, Profile, Report};

/// Gives the priority, if there is one, to the threads of this process whose names are `wanted`, and tells how many they
/// are, or why it is refused.
pub fn raise_threads(profile: &Profile, wanted: impl Fn(&str) -> bool) -> Result<usize, String> {
    if profile.priority == 0 {
        return Ok(0);
    }
    let (mut raised, mut refused) = (0, None);
    for (thread, _) in threads().into_iter().filter(|(_, name)| wanted(name)) {
        match set_priority(thread, profile.priority) {
            Ok(_) => raised += 1,
            Err(why) => refused = Some(why),
        }
    }
    refused.map_or(Ok(raised), Err)
}

/// The threads of this process, with their names.
fn threads() -> Vec<(libc::pid_t, String)> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let thread = |task: std::fs::DirEntry| {
        // One that has ended since is no fault.
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        Some((task.file_name().to_str()?.parse().ok()?, name.trim().to_owned()))
    };
    tasks.filter_map(thread).collect()
}

/// How the threads of that name are scheduled.
#[cfg(test)]
pub(crate) fn policies(name: &str) -> Vec<libc::c_int> {
    let named = threads().into_iter().filter(|(_, n)| n == name);
    // SAFETY: asks for numbers.
    named.map(|(thread, _)| unsafe { libc::sched_getscheduler(thread) }).collect()
}

/// What held for the process before any profile was applied, so that the next one begins from there.
pub struct Origin {
    policy: libc::c_int,
    priority: libc::c_int,
    cores: libc::cpu_set_t,
    applied: Profile,
}

impl Origin {
    /// As it is for the calling thread.
    pub fn here() -> Self {
        // SAFETY: both structures are plain numbers, and are filled by the calls.
        unsafe {
            let (mut parameters, mut cores): (libc::sched_param, libc::cpu_set_t) = std::mem::zeroed();
            libc::sched_getparam(0, &mut parameters);
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut cores);
            let (policy, priority) = (libc::sched_getscheduler(0), parameters.sched_priority);
            Self { policy, priority, cores, applied: Profile::default() }
        }
    }

    /// Undoes what was applied last, and applies `profile` to the process, to the calling thread, and to the middleware's.
    /// To be called before anything large is allocated. What the calling thread is refused is not reported: the frame
    /// thread will be refused the same.
    pub fn apply(&mut self, profile: &Profile, patient: &[&str]) -> Vec<Report> {
        self.restore(profile, patient);
        let mut reports = Vec::new();
        if profile.lock_memory {
            reports.push(lock_memory());
        }
        apply_to_thread(profile);
        reports.extend(apply_to_middleware(profile, patient));
        reports
    }

    /// Undoes what was applied last, and remembers that `profile` is to be applied next.
    fn restore(&mut self, profile: &Profile, patient: &[&str]) {
        let before = std::mem::replace(&mut self.applied, profile.clone());
        if before.priority > 0 {
            for (thread, _) in threads().into_iter().filter(|(_, name)| !patient.contains(&name.as_str())) {
                // What cannot be undone holds, as after any refusal.
                let _ = set_scheduling(thread, self.policy, self.priority);
            }
        }
        // SAFETY: the set is whole, and unlocking changes nothing that the program can see but its speed.
        unsafe {
            if !before.cores.is_empty() {
                libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.cores);
            }
            if before.lock_memory && !profile.lock_memory {
                libc::munlockall();
            }
        }
    }
}

/// Puts the calling thread, which no frame waits for, among the ordinary ones, whatever it inherited.
pub fn be_patient() {
    // There is nothing to be done should it fail: the thread goes on as it is.
    let _ = set_scheduling(0, libc::SCHED_OTHER, 0);
}

/// Of the thread with that number; 0 is the calling one.
pub(super) fn set_scheduling(thread: libc::pid_t, policy: libc::c_int, priority: libc::c_int) -> io::Result<()> {
    // SAFETY: the structure is plain numbers, of which Linux knows the priority alone.
    let status = unsafe {
        let mut parameters: libc::sched_param = std::mem::zeroed();
        parameters.sched_priority = priority;
        libc::sched_setscheduler(thread, policy, &parameters)
    };
    if status == 0 {
        Ok(())
    } else {
        Err(last_error())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse_cores, permitted_cores};
    use super::*;

    #[test]
    fn threads_of_the_middleware_get_the_priority_and_patient_ones_do_not() {
        let profile = Profile { priority: 10, ..Profile::default() };
        let (number, numbers) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = std::sync::Arc::new(std::sync::Mutex::new(ended));
        let thread = |name: &str| {
            let (number, ended) = (number.clone(), std::sync::Arc::clone(&ended));
            let run = move || {
                // SAFETY: asks for a number.
                number.send(unsafe { libc::gettid() }).unwrap();
                let _ = ended.lock().map(|ended| ended.recv());
            };
            let thread = std::thread::Builder::new().name(name.into()).spawn(run).unwrap();
            (thread, numbers.recv().unwrap())
        };
        let (others, patient) = (thread("dds.shm.7000"), thread("for people"));
        // Every other thread of this process is "patient" here: they are tests that run beside this one.
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names: Vec<_> = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("comm")).ok()).collect();
        let names: Vec<_> = names.iter().map(|name| name.trim()).filter(|name| *name != "dds.shm.7000").collect();
        let reports = apply_to_middleware(&profile, &names);
        // SAFETY: asks for numbers.
        let policy = |thread| unsafe { libc::sched_getscheduler(thread) };
        match &reports[..] {
            [Report { outcome: Ok(_), .. }] => assert_eq!(policy(others.1), libc::SCHED_FIFO),
            [Report { outcome: Err(why), .. }] => assert!(why.contains("CAP_SYS_NICE"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(policy(patient.1), libc::SCHED_OTHER);
        drop(end);
        others.0.join().unwrap();
        patient.0.join().unwrap();
    }

    #[test]
    fn a_thread_that_inherited_a_priority_can_do_without() {
        std::thread::spawn(|| {
            apply_to_thread(&Profile { priority: 10, ..Profile::default() });
            be_patient();
            // SAFETY: asks for a number.
            assert_eq!(unsafe { libc::sched_getscheduler(0) }, libc::SCHED_OTHER);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_the_next_profile_does_not_ask_for_is_as_it_was_before_the_first() {
        let run = || {
            let mut origin = Origin::here();
            let cores = permitted_cores();
            let first = cores.split([',', '-']).next().unwrap();
            let profile = Profile { priority: 10, cores: parse_cores(first).unwrap(), ..Profile::default() };
            // Threads of other tests are none of ours.
            let names: Vec<_> = threads().into_iter().map(|(_, name)| name).filter(|name| name != "restored").collect();
            let others: Vec<_> = names.iter().map(String::as_str).collect();
            for profile in [&profile, &Profile::default()] {
                origin.restore(profile, &others);
                apply_to_thread(profile);
            }
            assert_eq!(permitted_cores(), cores);
            assert_eq!(policies("restored"), [libc::SCHED_OTHER]);
        };
        std::thread::Builder::new().name("restored".into()).spawn(run).unwrap().join().unwrap();
    }
}
