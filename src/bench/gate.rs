//! The verdict tested in simulated time: a healthy pipeline passes, and each kind of fault fails
//! with its stage named.

use super::attribution::FailureMode;
use super::monitor::Conditions;
use super::profile::DeadlineProfile;
use super::record::{BenchLayer, BenchRun, LatencyStage};
use super::report::distributions;
use super::schedule::RunPlan;
use super::simulation::simulate_plan;
use super::stall::Faults;
use super::verdict::{judge, Judgement, Verdict};

const MS: u64 = 1_000_000;

/// 30 Hz, 33.3 ms, miss ratio 0.001, at most two misses in a row.
fn profile() -> DeadlineProfile {
    DeadlineProfile::load("car_30hz").unwrap()
}

/// A pipeline of 1, 10 and 1 ms with faults, run by the same plan, worker loop and verdict as a
/// real run.
fn run(profile: &DeadlineProfile, faults: &[&str]) -> (BenchRun, Judgement) {
    let mut faults = Faults::new(faults.iter().map(|fault| fault.parse().unwrap()).collect());
    let plan = RunPlan { dropped_from: faults.dropped_from(), ..RunPlan::fixed(BenchLayer::Pipeline, profile) };
    let healthy = [MS, 10 * MS, MS];
    let run = simulate_plan(&plan, |frame| {
        let pauses = faults.pauses(frame);
        Some(std::array::from_fn(|stage| healthy[stage].saturating_add(pauses[stage])))
    });
    let judgement = judge(&run, profile, &Conditions::default(), true);
    (run, judgement)
}

fn stage_and_mode(judgement: &Judgement) -> (LatencyStage, FailureMode) {
    let attribution = judgement.attribution.as_ref().unwrap();
    (attribution.stage, attribution.failure_mode)
}

#[test]
fn a_healthy_pipeline_passes_with_exit_code_0() {
    let (run, judgement) = run(&profile(), &[]);
    assert_eq!(judgement.verdict.exit_code(), 0, "{:?}", judgement.reasons);
    assert_eq!((run.tally().due, run.tally().counts.on_time), (4800, 4800));
}

/// A profile that allows no miss, so that a single fault fails it.
fn strict() -> DeadlineProfile {
    DeadlineProfile { max_miss_run: 0, ..profile() }
}

#[test]
fn a_stall_of_40_ms_is_missed_whatever_its_stage() {
    for stage in ["preprocess", "inference", "decode"] {
        let (_, judgement) = run(&strict(), &[&format!("40@1000:{stage}")]);
        assert_eq!(judgement.verdict.exit_code(), 1);
        let (found, mode) = stage_and_mode(&judgement);
        assert_eq!((found.name(), mode), (stage, FailureMode::Stalls));
        assert!(judgement.reasons[1].contains(stage), "{:?}", judgement.reasons);
    }
}

#[test]
fn a_stall_every_500_frames_is_missed_by_its_ratio() {
    let (_, judgement) = run(&profile(), &["40/500:decode"]);
    // Frames 500, 1000, … 4500; the frame after each is in time.
    assert_eq!((judgement.verdict.exit_code(), judgement.misses), (1, 9));
    assert_eq!(stage_and_mode(&judgement), (LatencyStage::Decode, FailureMode::Stalls));
}

#[test]
fn a_slow_drift_fails_before_any_deadline_is_missed() {
    // 12 to 28 ms: no deadline is missed yet.
    let (_, judgement) = run(&profile(), &["drift:16/4800:preprocess"]);
    assert_eq!((judgement.verdict.exit_code(), judgement.misses), (1, 0));
    assert!(
        judgement.reasons[0].contains("drifted by 15.") && judgement.reasons[0].contains("preprocess"),
        "{:?}",
        judgement.reasons
    );
}

#[test]
fn a_stuck_worker_fails_and_its_stage_is_named() {
    for stage in ["preprocess", "inference", "decode"] {
        let (run, judgement) = run(&profile(), &[&format!("stuck@2000:{stage}")]);
        assert_eq!(judgement.verdict.exit_code(), 1);
        let (found, mode) = stage_and_mode(&judgement);
        assert_eq!((found.name(), mode), (stage, FailureMode::Stuck));
        assert_eq!((run.tally().counts.in_flight, run.tally().counts.superseded), (1, 2799));
    }
}

#[test]
fn a_silent_camera_fails_and_is_named() {
    let (run, judgement) = run(&profile(), &["dropped@4000"]);
    assert_eq!((judgement.verdict.exit_code(), judgement.longest_miss_run), (1, 800));
    assert_eq!(stage_and_mode(&judgement), (LatencyStage::Arrival, FailureMode::Loses));
    assert_eq!((run.tally().counts.arrived, run.tally().lost), (4000, 800));
}

#[test]
fn a_stall_of_known_size_is_reported_within_a_tenth_of_a_millisecond() {
    for ms in [0.7, 13.37, 40.0, 123.4] {
        let (run, _) = run(&profile(), &[&format!("{ms}@700:inference")]);
        let expected = 10.0 + ms;
        let all = distributions(&run);
        let (_, inference) = all.iter().find(|(name, _)| *name == "inference").unwrap();
        let found = inference.max().unwrap() as f64 / 1e6;
        assert!((found - expected).abs() < 0.1, "{found}, not {expected}");
        // A percentile is read from the histogram's buckets.
        let found = inference.quantile(1.0).unwrap() as f64 / 1e6;
        assert!((found - expected).abs() < 0.1, "{found}, not {expected}");
    }
}

#[test]
fn no_fault_is_excused_by_a_busy_machine() {
    use super::machine::CpuLoad;
    let busy = Conditions { load: Some(CpuLoad { own: 0.1, others: 0.5, steal: 0.2 }), ..Conditions::default() };
    let profile = strict();
    let (run, _) = run(&profile, &["40@1000"]);
    assert_eq!(judge(&run, &profile, &busy, true).verdict, Verdict::Missed);
    assert_eq!(judge(&run, &profile, &busy, false).verdict, Verdict::NotProvable);
}
