//! What is measured: the load by other programs, and how late timers are.

use std::thread;
use std::time::{Duration, Instant};

use super::check::{Check, Topic};
use crate::machine::{CpuLoad, CpuTime};
use crate::stats::Distribution;

const LOAD: Topic = Topic { name: "load", why: "a frame waits while other programs have its CPU" };

const WAKE_UPS: Topic = Topic { name: "wake-ups", why: "each frame begins with a thread that is woken up" };

/// Takes about 1.5 s.
pub fn checks() -> Vec<Check> {
    vec![load(measure_load()), wake_ups(measure_wake_ups())]
}

fn measure_load() -> Option<CpuLoad> {
    let own = [std::process::id()];
    let before = CpuTime::read(&own)?;
    thread::sleep(Duration::from_secs(1));
    before.load_until(&CpuTime::read(&own)?)
}

fn load(load: Option<CpuLoad>) -> Check {
    let Some(load) = load else { return LOAD.good("not reported") };
    let (others, steal) = (load.others * 100.0, load.steal * 100.0);
    let finding = format!("other programs take {others:.1} % of the CPU time, the hypervisor {steal:.1} %");
    let remedy = if load.steal > load.others {
        "use a machine with dedicated CPUs: time stolen by the hypervisor cannot be regained"
    } else {
        "stop them (see `top`), or move them to other CPUs and run under `taskset`"
    };
    match load.foreign_percent() {
        p if p <= 5.0 => LOAD.good(finding),
        p if p <= 25.0 => LOAD.doubtful(finding, remedy),
        _ => LOAD.bad(finding, remedy),
    }
}

/// 99th percentile of the wake-up latency after sleeps of 1 ms, in nanoseconds.
fn measure_wake_ups() -> u64 {
    let late = (0..200).map(|_| {
        let due = Instant::now() + Duration::from_millis(1);
        thread::sleep(Duration::from_millis(1));
        Some(due.elapsed().as_nanos() as u64)
    });
    Distribution::new(late).quantile(0.99).unwrap_or(0)
}

fn wake_ups(late_ns: u64) -> Check {
    let finding = format!("timer wake-ups are {:.2} ms late at p99", late_ns as f64 / 1e6);
    if late_ns < 1_000_000 {
        return WAKE_UPS.good(finding);
    }
    WAKE_UPS.doubtful(finding, "run under `chrt -f 50` (takes the permission for real-time priority)")
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn load_and_late_timers_are_told_with_their_remedy() {
        let busy = |others, steal| load(Some(CpuLoad { own: 0.0, others, steal }));
        assert!(busy(0.0, 0.2).health == Health::Doubtful && busy(0.0, 0.2).remedy.contains("dedicated"));
        assert!(busy(0.5, 0.0).health == Health::Bad && busy(0.5, 0.0).remedy.contains("top"));
        assert_eq!((busy(0.01, 0.0).health, load(None).health), (Health::Good, Health::Good));
        assert_eq!((wake_ups(3_000_000).health, wake_ups(60_000).health), (Health::Doubtful, Health::Good));
    }
}
