//! Layers engine and pipeline: measured in this process.

use std::io::{self, IsTerminal};

use anyhow::Context as _;
use peregrine_pipeline::DeviceChoice;

use super::live::Live;
use super::output;
use super::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::record::Run;
use crate::schedule::{BoxedWork, Plan};
use crate::stats::frames_needed;
use crate::verdict::judge;
use crate::{schedule, stress, worker, Profile, Report};

/// Measures, judges and writes; the exit code.
///
/// # Errors
/// When the student, an option or an output file cannot be used.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let arguments = setup.arguments;
    let plan = setup.plan()?;
    let (mut works, warmed_up) = works(setup)?;
    if !arguments.closed_loop {
        announce(&setup.profile);
    }
    let load = stress::Running::start(&arguments.stress).context("--stress")?;
    let monitor = Monitor::start(vec!["self".into()]);
    let mut live = Live::new(plan.timetable.len() * usize::from(arguments.cameras));
    let run = match arguments.closed_loop {
        true => schedule::closed_loop(&plan, &mut works.remove(0), &mut live),
        false => schedule::open_loop(&plan, works, &mut live),
    };
    drop(live);
    let conditions = monitor.stop();
    drop(load);
    let report = report(setup, &run, &plan.profile, (conditions, warmed_up));
    output::write(arguments, &report, &run)
}

/// A warmed-up worker for each camera, and the most frames that one of them was warmed up with.
///
/// # Errors
/// When the student does not suit the options.
pub fn works(setup: &Setup) -> anyhow::Result<(Vec<BoxedWork>, usize)> {
    let Setup { arguments, student, options, frames, faults, profile, .. } = setup;
    let device = if setup.gpu.is_some() { DeviceChoice::Cuda } else { DeviceChoice::Cpu };
    let work = |camera| {
        let camera = (usize::from(camera), profile.warmup_frames);
        worker::prepare(arguments.layer, student, options, frames, faults, camera, device)
    };
    let works = (0..arguments.cameras).map(work).collect::<Result<Vec<_>, _>>()?;
    let (works, warmed_up): (_, Vec<_>) = works.into_iter().unzip();
    Ok((works, warmed_up.into_iter().max().unwrap_or(0)))
}

/// Sums up and judges a run.
pub fn report(setup: &Setup, run: &Run, profile: &Profile, (conditions, warmed_up): (Conditions, usize)) -> Report {
    let judgement = (!setup.arguments.closed_loop).then(|| judge(run, profile, &conditions, !setup.faults.is_empty()));
    Report::new(run, judgement, setup.context(conditions, warmed_up))
}

/// Says beforehand that a measurement could not prove anything, and how long it takes where no progress bar tells.
pub fn announce(profile: &Profile) {
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    if profile.frames < needed {
        eprintln!("note: {} frames cannot prove this profile: it takes {needed} without a miss", profile.frames);
    }
    if !io::stderr().is_terminal() {
        let seconds = profile.frames as f64 / profile.rate_hz;
        eprintln!("note: measuring {} frames at {} Hz takes {seconds:.0} s", profile.frames, profile.rate_hz);
    }
}

/// A plan at another rate.
///
/// # Errors
/// When a trace cannot be used.
pub fn plan_at(setup: &Setup, rate_hz: f64) -> anyhow::Result<Plan> {
    let mut plan = setup.plan()?;
    plan.profile.rate_hz = rate_hz;
    plan.timetable =
        crate::timetable::Timetable::new(&setup.arguments.schedule, plan.profile.frames, plan.profile.period_ns())?;
    Ok(plan)
}
