//! What lies between the turns of engines that are measured beside one another.

use std::time::{Duration, Instant};

use anyhow::ensure;

/// How long the rivals must have been asleep.
const PAUSE: Duration = Duration::from_millis(8);

/// What their threads may use of that, as timers do: a twentieth.
const AT_MOST: u64 = PAUSE.as_nanos() as u64 / 20;

/// How long a rival may go on looking for work after its frame: longer than OpenMP's threads, which look 300,000 times.
const LONGEST: Duration = Duration::from_millis(500);

/// Waits until no thread of `rivals`, processes by their IDs, works any more. One that looks for work after its frame would
/// take a core from the engine whose turn is next.
///
/// # Errors
/// When one works still after half a second.
pub fn wait_for_quiet(rivals: &[u32]) -> anyhow::Result<()> {
    let used = || rivals.iter().map(|&process| cpu_ns_of(process)).sum::<u64>();
    let begun = Instant::now();
    let mut before = used();
    loop {
        std::thread::sleep(PAUSE);
        let now = used();
        if now.saturating_sub(before) <= AT_MOST {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < LONGEST,
            "a peer works still {} ms after its frame, and would take a core from the others; let its threads sleep \
             (OMP_WAIT_POLICY=passive, where it uses OpenMP)",
            LONGEST.as_millis()
        );
        before = now;
    }
}

/// CPU time of all threads of a process; 0 once it has ended, and where the system does not tell.
#[cfg(target_os = "linux")]
fn cpu_ns_of(process: u32) -> u64 {
    let mut clock = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: either writes to what it is given, and to nothing else; where it fails that is left as it was.
    unsafe {
        if libc::clock_getcpuclockid(process as libc::pid_t, &mut clock) == 0 {
            libc::clock_gettime(clock, &mut time);
        }
    }
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(not(target_os = "linux"))]
fn cpu_ns_of(_: u32) -> u64 {
    0
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    /// Ends with the test, whatever becomes of that.
    struct Rival(Child);

    impl Rival {
        fn start(script: &str) -> Self {
            Self(Command::new("sh").args(["-c", script]).spawn().unwrap())
        }
    }

    impl Drop for Rival {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn rivals_that_sleep_or_have_ended_are_quiet() {
        let asleep = Rival::start("exec sleep 600");
        let mut ended = Rival::start("exit 0");
        ended.0.wait().unwrap();
        wait_for_quiet(&[asleep.0.id(), ended.0.id()]).unwrap();
        assert_eq!(cpu_ns_of(ended.0.id()), 0);
    }

    #[test]
    fn what_a_rival_works_is_seen() {
        let busy = Rival::start("while :; do :; done");
        let before = cpu_ns_of(busy.0.id());
        while cpu_ns_of(busy.0.id()) <= before + AT_MOST {
            std::thread::sleep(PAUSE);
        }
    }
}
