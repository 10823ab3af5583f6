//! `--max-rate`: the highest rate at which the profile still holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use anyhow::{ensure, Context as _};
use peregrine_core::files::write_atomically;

use super::in_process::{plan_at, works};
use super::live::Live;
use super::output::say;
use super::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::rate::{best, search};
use crate::report::SCHEMA_VERSION;
use crate::schedule::{closed_loop, open_loop};
use crate::stats::Distribution;
use crate::stress;
use crate::timetable::Schedule;
use crate::verdict::{judge, Verdict};

/// Frames of the closed loop by which the search's upper end is found.
const PILOT: usize = 30;

/// Searches from a tenth of the profile's rate up to what the closed loop reaches; prints each rate as it was tried.
///
/// # Errors
/// As [`super::in_process::run`]; and for a trace, whose rate is what it is.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let trace = matches!(setup.arguments.schedule, Schedule::Trace { .. });
    ensure!(!trace, "--max-rate: a trace has a rate of its own; use another schedule");
    let mut pilot = setup.plan()?;
    pilot.timetable = crate::timetable::Timetable::new(&Schedule::Fixed, PILOT, 1.0)?;
    let load = stress::Running::start(&setup.arguments.stress).context("--stress")?;
    let run = closed_loop(&pilot, &mut works(setup)?.0.remove(0), &mut ());
    let usual = Distribution::new(run.records.iter().map(|r| r.latency())).quantile(0.5).unwrap_or(100_000_000);
    // The fastest half of the frames could still keep up with a rate somewhat above that of the median.
    let high = (1.2e9 / usual.max(1) as f64).min(1000.0);
    let low = (setup.profile.rate_hz / 10.0).min(high / 10.0).max(0.1);
    say(&format!("profile   {}; rates from {low:.1} to {high:.1} Hz\n", setup.profile.name));
    let probes = search(low, high, |rate_hz| {
        let mut plan = plan_at(setup, rate_hz)?;
        // A probe that gets stuck ends itself, and not the search.
        plan.stop = Arc::new(AtomicBool::new(false));
        let (works, _) = works(setup)?;
        let monitor = Monitor::start(vec!["self".into()]);
        let mut live = Live::new(plan.timetable.len() * works.len());
        let run = open_loop(&plan, works, &mut Until { live: &mut live, from: &setup.stop, to: &plan.stop });
        drop(live);
        let judgement = judge(&run, &plan.profile, &monitor.stop(), !setup.faults.is_empty());
        let (verdict, misses, frames) = (judgement.verdict, judgement.misses, judgement.frames);
        say(&format!("{rate_hz:7.1} Hz  {:13} {misses} of {frames} missed\n", verdict.title()));
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
            say(&format!("rate      {rate:.1} Hz is the highest that holds, to 2 %\n"));
            Verdict::Met.exit_code()
        }
        None if probes.iter().any(|p| p.verdict == Verdict::Missed) => {
            say("rate      none of them holds\n");
            Verdict::Missed.exit_code()
        }
        None => {
            say("rate      none of them could be proved: more frames, or a quieter machine\n");
            Verdict::NotProvable.exit_code()
        }
    })
}

/// Hands an interruption on to the run.
struct Until<'a> {
    live: &'a mut Live,
    from: &'a AtomicBool,
    to: &'a AtomicBool,
}

impl crate::schedule::Observer for Until<'_> {
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
