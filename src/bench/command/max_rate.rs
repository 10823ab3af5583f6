//! `--max-rate`: the highest frame rate at which the profile is met.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{ensure, Context as _};
use peregrine_core::files::write_atomically;

use super::in_process::{plan_at, workloads};
use super::live::ProgressView;
use super::output::print;
use super::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::rate::{best, search};
use crate::report::SCHEMA_VERSION;
use crate::schedule::{closed_loop, open_loop};
use crate::stats::Distribution;
use crate::stress;
use crate::timetable::FrameSchedule;
use crate::verdict::{judge, Verdict};

/// Frames of the closed loop that gives the upper end of the search.
const PILOT_FRAMES: usize = 30;

/// Searches from a tenth of the profile's rate up to the closed loop's rate; prints each rate that
/// it tries.
///
/// # Errors
/// As [`super::in_process::run`]; and for a trace, whose rate is fixed.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let has_own_rate =
        |schedule: &FrameSchedule| matches!(schedule, FrameSchedule::Trace { .. } | FrameSchedule::Recorded);
    let trace = setup.arguments.schedule.iter().any(has_own_rate);
    ensure!(!trace, "--max-rate: the rate of a trace is fixed; use another schedule");
    let mut pilot = setup.plan()?;
    pilot.timetable = crate::timetable::Timetable::new(&FrameSchedule::Fixed, PILOT_FRAMES, 1.0)?;
    let load = stress::StressLoad::start(&setup.arguments.stress).context("--stress")?;
    let run = closed_loop(&pilot, &mut workloads(setup)?.0.remove(0), &mut ());
    let median = Distribution::new(run.records.iter().map(|r| r.latency())).quantile(0.5).unwrap_or(100_000_000);
    // Half of the frames are faster than the median and allow a somewhat higher rate.
    let high = (1.2e9 / median.max(1) as f64).min(1000.0);
    let low = (setup.profile.rate_hz / 10.0).min(high / 10.0).max(0.1);
    print(&format!("profile   {}; rates from {low:.1} to {high:.1} Hz\n", setup.profile.name));
    let probes = search(low, high, |rate_hz| {
        let mut plan = plan_at(setup, rate_hz)?;
        // A stuck probe ends itself and not the search.
        plan.stop = Arc::new(AtomicBool::new(false));
        let (workloads, _) = workloads(setup)?;
        let monitor = Monitor::start(vec![std::process::id()]);
        let mut live = ProgressView::new(plan.timetable.len() * workloads.len());
        let run =
            open_loop(&plan, workloads, &mut ForwardInterrupt { live: &mut live, from: &setup.stop, to: &plan.stop });
        drop(live);
        let judgement = judge(&run, &plan.profile, &monitor.stop(), !setup.faults.is_empty());
        let (verdict, misses, frames) = (judgement.verdict, judgement.misses, judgement.frames);
        print(&format!("{rate_hz:7.1} Hz  {:13} {misses} of {frames} missed\n", verdict.title()));
        ensure!(!setup.stop.load(Ordering::Relaxed), "interrupted");
        Ok(verdict)
    })?;
    drop(load);
    if let Some(path) = &setup.arguments.json {
        let context = setup.context(Conditions::default(), setup.profile.warmup_frames);
        let found = serde_json::json!({
            "schema_version": SCHEMA_VERSION, "profile": context.profile, "machine": context.machine,
            "subject": context.subject, "stress": context.stress, "probes": probes, "rate_hz": best(&probes),
        });
        write_atomically(path, format!("{found:#}\n").as_bytes())?;
    }
    Ok(match best(&probes) {
        Some(rate) => {
            print(&format!("rate      {rate:.1} Hz is the highest that meets the profile, within 2 %\n"));
            Verdict::Met.exit_code()
        }
        None if probes.iter().any(|p| p.verdict == Verdict::Missed) => {
            print("rate      none of them meets the profile\n");
            Verdict::Missed.exit_code()
        }
        None => {
            print("rate      none of them is provable: use more frames or a quieter machine\n");
            Verdict::NotProvable.exit_code()
        }
    })
}

/// Forwards an interrupt to the run.
struct ForwardInterrupt<'a> {
    live: &'a mut ProgressView,
    from: &'a AtomicBool,
    to: &'a AtomicBool,
}

impl crate::schedule::Observer for ForwardInterrupt<'_> {
    fn frame(&mut self, record: &crate::FrameRecord) {
        self.live.frame(record);
    }

    fn tick(&mut self) {
        self.live.tick();
        if self.from.load(Ordering::Relaxed) {
            self.to.store(true, Ordering::Relaxed);
        }
    }
}
