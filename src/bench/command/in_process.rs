//! Runs of the layers engine and pipeline, in this process.

use std::io::{self, IsTerminal};

use anyhow::Context as _;
use peregrine_pipeline::DeviceChoice;

use super::live::ProgressView;
use super::output;
use super::setup::Setup;
use crate::monitor::{Conditions, Monitor};
use crate::record::BenchRun;
use crate::schedule::{BoxedWorkload, RunPlan};
use crate::stats::frames_needed;
use crate::verdict::judge;
use crate::{schedule, stress, worker, BenchReport, DeadlineProfile};

/// Measures, judges and writes the report. Returns the exit code.
///
/// # Errors
/// If the student, an option or an output file cannot be used.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let arguments = setup.arguments;
    let plan = setup.plan()?;
    let (mut workloads, warmed_up) = workloads(setup)?;
    if !arguments.closed_loop {
        announce(&setup.profile);
    }
    let load = stress::StressLoad::start(&arguments.stress).context("--stress")?;
    let monitor = Monitor::start(vec![std::process::id()]);
    let mut live = ProgressView::new(plan.timetable.len() * usize::from(arguments.cameras));
    let run = if arguments.closed_loop {
        schedule::closed_loop(&plan, &mut workloads.remove(0), &mut live)
    } else {
        schedule::open_loop(&plan, workloads, &mut live)
    };
    drop(live);
    let conditions = monitor.stop();
    drop(load);
    let report = report(setup, &run, &plan.profile, (conditions, warmed_up));
    output::write(arguments, &report, &run)
}

/// A warmed-up workload for each camera, and the largest number of warm-up frames.
///
/// # Errors
/// If the student does not fit the options.
pub fn workloads(setup: &Setup) -> anyhow::Result<(Vec<BoxedWorkload>, usize)> {
    let Setup { arguments, student, options, frames, faults, profile, .. } = setup;
    let device = if setup.gpu.is_some() { DeviceChoice::Cuda } else { DeviceChoice::Cpu };
    let workload = |camera| {
        let camera = (usize::from(camera), profile.warmup_frames);
        worker::prepare(arguments.layer, student, options, frames, faults, camera, device)
    };
    let workloads = (0..arguments.cameras).map(workload).collect::<Result<Vec<_>, _>>()?;
    let (workloads, warmed_up): (_, Vec<_>) = workloads.into_iter().unzip();
    Ok((workloads, warmed_up.into_iter().max().unwrap_or(0)))
}

/// Judges a run and reports it.
pub fn report(
    setup: &Setup,
    run: &BenchRun,
    profile: &DeadlineProfile,
    (conditions, warmed_up): (Conditions, usize),
) -> BenchReport {
    let judgement = (!setup.arguments.closed_loop).then(|| judge(run, profile, &conditions, !setup.faults.is_empty()));
    BenchReport::new(run, judgement, setup.context(conditions, warmed_up))
}

/// Warns if the frames are too few to prove the profile, and announces the duration if there is no
/// progress bar.
pub fn announce(profile: &DeadlineProfile) {
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    if profile.frames < needed {
        tracing::info!("{} frames cannot prove this profile: it takes {needed} without a miss", profile.frames);
    }
    if !io::stderr().is_terminal() {
        let seconds = profile.frames as f64 / profile.rate_hz;
        tracing::info!("measuring {} frames at {} Hz takes {seconds:.0} s", profile.frames, profile.rate_hz);
    }
}

/// The plan at another frame rate.
///
/// # Errors
/// If a trace cannot be used.
pub fn plan_at(setup: &Setup, rate_hz: f64) -> anyhow::Result<RunPlan> {
    let mut plan = setup.plan()?;
    plan.profile.rate_hz = rate_hz;
    plan.timetable = setup.timetable(&plan.profile)?;
    Ok(plan)
}
