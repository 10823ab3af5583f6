//! The process's threads one by one, and what held for them before any profile.

use peregrine_core::scheduling::{self, threads, Scheduling, ThreadId};

use super::{
    apply_to_middleware, apply_to_thread, lock_memory, permitted_cores, set_priority, ProfileReport, RealtimeProfile,
};

/// Gives the profile's priority, if there is one, to the threads of this process whose names are
/// `wanted`. Returns their number, or why it is refused.
pub fn raise_threads(profile: &RealtimeProfile, wanted: impl Fn(&str) -> bool) -> Result<usize, String> {
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

/// How the threads of that name are scheduled.
#[cfg(test)]
pub(crate) fn scheduling_of(name: &str) -> Vec<Scheduling> {
    let named = threads().into_iter().filter(|(_, n)| n == name);
    named.map(|(thread, _)| Scheduling::of(thread).unwrap()).collect()
}

/// Held by a test that changes the priorities of threads by their names, or looks at them: such a
/// change reaches the threads that other tests have started meanwhile.
#[cfg(test)]
pub(crate) static PRIORITIES: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// The profile that holds for the process, and what held before the first one, to which the next
/// one resets.
pub struct ProcessProfile {
    scheduling: Scheduling,
    cores: Vec<usize>,
    applied: RealtimeProfile,
}

impl ProcessProfile {
    /// With no profile applied yet, and the calling thread's scheduling and cores to reset to.
    pub fn of_caller() -> Self {
        Self {
            scheduling: Scheduling::of(ThreadId::CURRENT).unwrap_or(Scheduling::DEFAULT),
            cores: permitted_cores(),
            applied: RealtimeProfile::default(),
        }
    }

    /// Undoes what was applied last, and applies `profile` to the process, to the calling thread,
    /// and to the middleware's threads.
    ///
    /// To be called before anything large is allocated. What the calling thread is refused is not
    /// reported: the frame thread will be refused the same.
    pub fn apply(&mut self, profile: &RealtimeProfile, background: &[&str]) -> Vec<ProfileReport> {
        self.reset(profile, background);
        let mut reports = Vec::new();
        if profile.lock_memory {
            reports.push(lock_memory());
        }
        apply_to_thread(profile);
        reports.extend(apply_to_middleware(profile, background));
        reports
    }

    /// Undoes what was applied last, and remembers that `next` is to be applied. What cannot be
    /// undone holds on, as after any refusal.
    fn reset(&mut self, next: &RealtimeProfile, background: &[&str]) {
        let before = std::mem::replace(&mut self.applied, next.clone());
        if before.priority > 0 {
            for (thread, _) in threads().into_iter().filter(|(_, name)| !background.contains(&name.as_str())) {
                let _ = self.scheduling.apply_to(thread);
            }
        }
        if !before.cores.is_empty() && !self.cores.is_empty() {
            let _ = scheduling::set_affinity(ThreadId::CURRENT, &self.cores);
        }
        if before.lock_memory && !next.lock_memory {
            let _ = scheduling::unlock_memory();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{mpsc, Arc, Mutex, PoisonError};

    use super::*;

    /// A profile with no more than a priority.
    fn priority() -> RealtimeProfile {
        RealtimeProfile { priority: 10, ..RealtimeProfile::default() }
    }

    #[test]
    fn only_the_middlewares_threads_get_the_priority() {
        let _alone = PRIORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, numbers) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let thread = |name: &str| {
            let (number, ended) = (number.clone(), Arc::clone(&ended));
            let run = move || {
                number.send(ThreadId::here()).unwrap();
                let _ = ended.lock().map(|ended| ended.recv());
            };
            let thread = std::thread::Builder::new().name(name.into()).spawn(run).unwrap();
            (thread, numbers.recv().unwrap())
        };
        let (middleware, background) = (thread("dds.shm.7000"), thread("background"));
        // Every other thread of this process is of the background here: they are tests that run
        // beside this one.
        let names: Vec<_> = threads().into_iter().map(|(_, name)| name).filter(|name| name != "dds.shm.7000").collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let reports = apply_to_middleware(&priority(), &names);
        match &reports[..] {
            [ProfileReport { outcome: Ok(_), .. }] => {
                assert_eq!(Scheduling::of(middleware.1).unwrap(), Scheduling::fifo(10));
            }
            [ProfileReport { outcome: Err(why), .. }] => assert!(why.contains("CAP_SYS_NICE"), "{why}"),
            other => panic!("{other:?}"),
        }
        assert_eq!(Scheduling::of(background.1).unwrap(), Scheduling::DEFAULT);
        drop(end);
        middleware.0.join().unwrap();
        background.0.join().unwrap();
    }

    #[test]
    fn a_thread_can_give_up_a_priority_that_it_inherited() {
        let _alone = PRIORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::spawn(|| {
            apply_to_thread(&priority());
            scheduling::use_default_scheduling();
            assert_eq!(Scheduling::of(ThreadId::CURRENT).unwrap(), Scheduling::DEFAULT);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn the_next_profile_resets_what_it_does_not_ask_for() {
        let _alone = PRIORITIES.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || {
            let mut process = ProcessProfile::of_caller();
            let cores = permitted_cores();
            let profile = RealtimeProfile { cores: vec![cores[0]], ..priority() };
            // Threads of other tests are left alone.
            let names: Vec<_> = threads().into_iter().map(|(_, name)| name).filter(|name| name != "restored").collect();
            let others: Vec<_> = names.iter().map(String::as_str).collect();
            for profile in [&profile, &RealtimeProfile::default()] {
                process.reset(profile, &others);
                apply_to_thread(profile);
            }
            assert_eq!(permitted_cores(), cores);
            assert_eq!(scheduling_of("restored"), [Scheduling::DEFAULT]);
        };
        std::thread::Builder::new().name("restored".into()).spawn(run).unwrap().join().unwrap();
    }
}
