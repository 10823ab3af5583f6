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
use crate::timetable::Timetable;
use crate::verdict::judge;
use crate::{schedule, stress, worker, BenchReport, DeadlineProfile};

/// A wait without a frame that nobody expects, seconds.
const LONGEST_GAP_S: f64 = 10.0;

/// How many times as long a schedule may take as the profile's rate says.
const SLOW_FACTOR: f64 = 5.0;

/// Measures, judges and writes the report. Returns the exit code.
///
/// # Errors
/// If the student, an option or an output file cannot be used.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    let arguments = setup.arguments;
    let plan = setup.plan()?;
    let (mut workloads, warmed_up) = workloads(setup)?;
    if !arguments.closed_loop {
        announce(&setup.profile, &plan.timetable);
    }
    let load = stress::StressLoad::start(&arguments.stress).context("--stress")?;
    let monitor = Monitor::start(vec![std::process::id()]);
    let mut live = ProgressView::new(plan.timetable.len() * arguments.camera_count());
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
    let Setup { arguments, student, options, faults, profile, .. } = setup;
    let number = setup.arguments.device.cuda_device().filter(|_| setup.gpu.is_some());
    let device = number.map_or(DeviceChoice::Cpu, DeviceChoice::Cuda);
    let workload = |camera| {
        let (frames, camera) = (setup.frames_of(camera), (camera, profile.warmup_frames));
        worker::prepare(arguments.layer, student, options, frames, faults, camera, device)
    };
    let workloads = (0..arguments.camera_count()).map(workload).collect::<Result<Vec<_>, _>>()?;
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

/// Warns if the frames are too few to prove the profile, or take much longer than the profile's rate lets expect, and
/// announces the duration if there is no progress bar.
pub fn announce(profile: &DeadlineProfile, timetable: &Timetable) {
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    if profile.frames < needed {
        tracing::info!("{} frames cannot prove this profile: it takes {needed} without a miss", profile.frames);
    }
    if let Some(warning) = unexpected_wait(profile, timetable) {
        tracing::warn!("{warning}");
    }
    if !io::stderr().is_terminal() {
        let (frames, seconds) = (timetable.len(), timetable.duration_s() + profile.period_ns() / 1e9);
        tracing::info!(
            "measuring {frames} frames takes {seconds:.0} s, at {:.3} Hz on average",
            frames as f64 / seconds
        );
    }
}

/// A wait that the profile's rate does not let expect: frames that are on average much further apart, as those of a
/// trace that is read in the wrong unit, or one long gap, as in a recording with a pause.
fn unexpected_wait(profile: &DeadlineProfile, timetable: &Timetable) -> Option<String> {
    let period_s = profile.period_ns() / 1e9;
    let (seconds, frames) = (timetable.duration_s(), timetable.len());
    let (gap_s, after) = timetable.longest_gap()?;
    if gap_s > LONGEST_GAP_S.max(10.0 * period_s) && gap_s > seconds / 10.0 {
        return Some(format!(
            "the schedule has no frame for {gap_s:.0} s before frame {after}, and takes {seconds:.0} s"
        ));
    }
    let factor = seconds / (period_s * frames as f64);
    (factor > SLOW_FACTOR && seconds > LONGEST_GAP_S).then(|| {
        format!(
            "the schedule takes {seconds:.0} s, {factor:.0} times as long as {frames} frames at {} Hz; if its \
             timestamps are in another unit, name it with trace:FILE:UNIT",
            profile.rate_hz
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_in_the_wrong_unit_and_a_long_pause_are_told_before_the_wait() {
        let profile = DeadlineProfile::load("car_30hz").unwrap();
        let warning =
            |times: &[u64]| unexpected_wait(&profile, &Timetable::recorded(times, times[0], times.len()).unwrap());
        let every = |period: u64, frames: u64| (0..frames).map(|i| i * period).collect::<Vec<_>>();
        assert_eq!(warning(&every(33_333_333, 9000)), None);
        assert_eq!(warning(&every(100_000_000, 9000)), None);
        // Milliseconds of a camera at 250 Hz, read as seconds.
        let slow = warning(&every(4_000_000_000, 600)).unwrap();
        assert!(slow.starts_with("the schedule takes 2396 s, 120 times as long as 600 frames at 30 Hz"), "{slow}");
        let mut paused = every(33_333_333, 300);
        paused.extend(every(33_333_333, 300).iter().map(|time| time + 1_800_000_000_000));
        let pause = warning(&paused).unwrap();
        assert!(pause.starts_with("the schedule has no frame for 1790 s before frame 300"), "{pause}");
    }
}
