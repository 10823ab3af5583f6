//! The gate tested on a fake clock: a healthy pipeline is let through, and each kind of fault is not, with its stage named.

use super::culprit::Manner;
use super::monitor::Conditions;
use super::profile::Profile;
use super::record::{Layer, Run, Stage};
use super::report::distributions;
use super::schedule::Plan;
use super::simulation::simulate_plan;
use super::stall::Faults;
use super::verdict::{judge, Judgement, Verdict};

const MS: u64 = 1_000_000;

/// 30 Hz, 33.3 ms, one miss in a thousand, runs of two: the car's profile.
fn profile() -> Profile {
    Profile::load("car_30hz").unwrap()
}

/// A pipeline of 1, 10 and 1 ms with faults, through the same plan, faults, worker's loop and verdict as a real run.
fn run(profile: &Profile, faults: &[&str]) -> (Run, Judgement) {
    let mut faults = Faults::new(faults.iter().map(|fault| fault.parse().unwrap()).collect());
    let plan = Plan { dropped_from: faults.dropped_from(), ..Plan::fixed(Layer::Pipeline, profile) };
    let healthy = [MS, 10 * MS, MS];
    let run = simulate_plan(&plan, |frame| {
        let pauses = faults.pauses(frame);
        Some(std::array::from_fn(|stage| healthy[stage].saturating_add(pauses[stage])))
    });
    let judgement = judge(&run, profile, &Conditions::default(), true);
    (run, judgement)
}

fn stage_and_manner(judgement: &Judgement) -> (Stage, Manner) {
    let culprit = judgement.culprit.as_ref().unwrap();
    (culprit.stage, culprit.manner)
}

#[test]
fn a_healthy_pipeline_passes_with_exit_code_0() {
    let (run, judgement) = run(&profile(), &[]);
    assert_eq!(judgement.verdict.exit_code(), 0, "{:?}", judgement.reasons);
    assert_eq!((run.tally().due, run.tally().counts.on_time), (4800, 4800));
}

/// A profile that excuses no miss: it takes no more frames than the one fault needs.
fn strict() -> Profile {
    Profile { max_miss_run: 0, ..profile() }
}

#[test]
fn one_frame_of_40_ms_more_is_missed_in_whichever_stage_it_was() {
    for stage in ["preprocess", "inference", "decode"] {
        let (_, judgement) = run(&strict(), &[&format!("40@1000:{stage}")]);
        assert_eq!(judgement.verdict.exit_code(), 1);
        let (found, manner) = stage_and_manner(&judgement);
        assert_eq!((found.name(), manner), (stage, Manner::Stalls));
        assert!(judgement.reasons[1].contains(stage), "{:?}", judgement.reasons);
    }
}

#[test]
fn a_stall_in_every_five_hundredth_frame_is_missed_by_its_share() {
    let (_, judgement) = run(&profile(), &["40/500:decode"]);
    // Frames 500, 1000, … 4500; the next one still makes it.
    assert_eq!((judgement.verdict.exit_code(), judgement.misses), (1, 9));
    assert_eq!(stage_and_manner(&judgement), (Stage::Decode, Manner::Stalls));
}

#[test]
fn a_slow_drift_is_missed_before_any_frame_is() {
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
fn a_stuck_thread_is_missed_and_its_stage_named() {
    for stage in ["preprocess", "inference", "decode"] {
        let (run, judgement) = run(&profile(), &[&format!("stuck@2000:{stage}")]);
        assert_eq!(judgement.verdict.exit_code(), 1);
        let (found, manner) = stage_and_manner(&judgement);
        assert_eq!((found.name(), manner), (stage, Manner::Stuck));
        assert_eq!((run.tally().counts.in_flight, run.tally().counts.superseded), (1, 2799));
    }
}

#[test]
fn a_camera_that_falls_silent_is_missed_and_named() {
    let (run, judgement) = run(&profile(), &["dropped@4000"]);
    assert_eq!((judgement.verdict.exit_code(), judgement.longest_miss_run), (1, 800));
    assert_eq!(stage_and_manner(&judgement), (Stage::Arrival, Manner::Loses));
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
        // As a percentile it comes out of the histogram's buckets.
        let found = inference.quantile(1.0).unwrap() as f64 / 1e6;
        assert!((found - expected).abs() < 0.1, "{found}, not {expected}");
    }
}

#[test]
fn no_fault_is_excused_by_a_busy_machine() {
    use super::machine::Load;
    let busy = Conditions { load: Some(Load { own: 0.1, others: 0.5, steal: 0.2 }), ..Conditions::default() };
    let profile = strict();
    let (run, _) = run(&profile, &["40@1000"]);
    assert_eq!(judge(&run, &profile, &busy, true).verdict, Verdict::Missed);
    assert_eq!(judge(&run, &profile, &busy, false).verdict, Verdict::NotProvable);
}
