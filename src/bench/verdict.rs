//! The verdict of a run: met, missed, or not provable.

use serde::{Deserialize, Serialize};

use super::attribution::{attribute, Attribution};
use super::bursts::{bursts, without_bursts, Bursts};
use super::monitor::Conditions;
use super::profile::DeadlineProfile;
use super::record::{BenchRun, FrameRecord, LatencyStage};
use super::stats::{frames_needed, longest_run, miss_ratio_bound, miss_ratio_bound_of};
use super::trend::{self, Trend};

/// The answer to whether the deadline is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The allowed miss ratio is shown to be kept, and no run of misses was too long.
    Met,
    /// More frames missed, or more in a row, than are allowed.
    Missed,
    /// Neither: too few frames for the claim, or the machine was unfit (busy, throttled).
    NotProvable,
}

impl Verdict {
    /// The exit code of `latency_bench`. A usage error exits with [`USAGE_ERROR`].
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Met => 0,
            Self::Missed => 1,
            Self::NotProvable => 2,
        }
    }

    /// Human-readable, in capitals.
    pub fn title(self) -> &'static str {
        match self {
            Self::Met => "MET",
            Self::Missed => "MISSED",
            Self::NotProvable => "NOT PROVABLE",
        }
    }
}

/// Exit code for options, profiles, models or images that cannot be used.
pub const USAGE_ERROR: u8 = 3;

/// A verdict with the figures that it is based on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub verdict: Verdict,
    /// Sentences, the decisive one first.
    pub reasons: Vec<String>,
    pub frames: usize,
    /// Frames without a result in time: late, superseded, dropped or rejected.
    pub misses: usize,
    pub miss_ratio: f64,
    /// Upper bound on the long-run miss ratio at the profile's confidence.
    pub miss_ratio_bound: f64,
    /// The independent frames that the bound is of: all, unless misses or slow frames come in bursts.
    pub effective_frames: f64,
    /// Why those are fewer than all.
    pub bursts: Option<Bursts>,
    pub longest_miss_run: usize,
    /// Frames with which this number of misses would have met the allowed miss ratio.
    pub frames_needed: usize,
    /// Rise of the median latency over the run, of the camera in which it is the largest. `None` if
    /// the run is too short to tell.
    pub drift_ms: Option<f64>,
    /// Growth of the resident memory of the process under test.
    pub memory_growth_mib: Option<f64>,
    #[serde(rename = "culprit")]
    pub attribution: Option<Attribution>,
}

/// Judges a run. On a machine that was unfit meanwhile, misses, drift and memory growth give
/// `NotProvable` instead of `Missed`, unless faults were `injected`: those have a known cause. A
/// deadline that was met stays met, since load, heat and a falling clock only add latency.
pub fn judge(run: &BenchRun, profile: &DeadlineProfile, conditions: &Conditions, injected: bool) -> Judgement {
    let frames = run.records.len();
    let misses = run.records.iter().filter(|r| r.missed()).count();
    let miss_ratio = misses as f64 / frames.max(1) as f64;
    let bursts = bursts(run);
    let bound = match bursts {
        None => miss_ratio_bound(misses, frames, profile.confidence),
        Some(b) => miss_ratio_bound_of(b.effective(misses), b.effective(frames), profile.confidence),
    };
    let longest = run.cameras().map(|c| longest_run(c.iter().map(FrameRecord::missed))).max().unwrap_or(0);
    let needed = frames_needed_among(bursts, misses, profile);
    let attribution = attribute(run, profile);
    let drift = run.cameras().filter_map(drift_of).max_by(|(_, a), (_, b)| a.change.total_cmp(&b.change));

    let mut reasons = Vec::new();
    if miss_ratio > profile.max_miss_ratio {
        reasons.push(too_many_missed(misses, frames, profile));
    }
    if longest > profile.max_miss_run {
        reasons.push(format!("{longest} frames in a row missed; at most {} may", profile.max_miss_run));
    }
    reasons.extend(attribution.as_ref().map(Attribution::sentence).filter(|_| !reasons.is_empty()));
    let allowed = profile.max_drift_percent / 100.0 * profile.deadline_ms;
    if let Some((stage, drift)) = drift.filter(|(_, drift)| drift.exceeds(allowed)) {
        let rise = drift.change;
        reasons.push(format!(
            "the median latency drifted by {rise:.2} ms over the run, most of it in {}; at most {allowed:.2} ms may",
            stage.name()
        ));
    }
    if let Some(growth) = conditions.memory.filter(|m| m.exceeds(profile.max_memory_growth_mib)) {
        let allowed = profile.max_memory_growth_mib;
        reasons.push(format!("memory grew by {:.1} MiB over the run; at most {allowed} MiB may", growth.change));
    }
    let assumption = bursts.map_or_else(|| without_bursts(frames), |bursts| bursts.sentence(frames));
    let unfit = unfitness(conditions, profile);
    let verdict = if let Some(planned) = run.interrupted {
        reasons.insert(0, format!("interrupted after {frames} of {planned} frames; let it run to the end"));
        Verdict::NotProvable
    } else if !reasons.is_empty() && !unfit.is_empty() && !injected {
        reasons.splice(0..0, unfit);
        Verdict::NotProvable
    } else if !reasons.is_empty() {
        Verdict::Missed
    } else if bound > profile.max_miss_ratio {
        reasons.push(format!(
            "with {misses} misses in {frames} frames the miss ratio may be up to {}, above {}; it takes {needed} frames",
            percent(bound),
            percent(profile.max_miss_ratio)
        ));
        reasons.push(assumption);
        reasons.extend(attribution.as_ref().map(Attribution::sentence));
        Verdict::NotProvable
    } else {
        reasons.push(bound_is_within(bound, profile));
        reasons.push(assumption);
        reasons.extend(attribution.as_ref().map(Attribution::sentence));
        Verdict::Met
    };
    Judgement {
        verdict,
        reasons,
        frames,
        misses,
        miss_ratio,
        miss_ratio_bound: bound,
        effective_frames: bursts.map_or(frames as f64, |bursts| bursts.effective(frames)),
        bursts,
        longest_miss_run: longest,
        frames_needed: needed,
        drift_ms: drift.map(|(_, drift)| drift.change),
        memory_growth_mib: conditions.memory.map(|m| m.change),
        attribution,
    }
}

/// That more frames missed than the profile allows.
pub fn too_many_missed(misses: usize, frames: usize, profile: &DeadlineProfile) -> String {
    let (ratio, allowed) = (percent(misses as f64 / frames.max(1) as f64), percent(profile.max_miss_ratio));
    format!("{misses} of {frames} frames missed ({ratio}); at most {allowed} may")
}

/// That the bound on the miss ratio is within what the profile allows.
pub fn bound_is_within(bound: f64, profile: &DeadlineProfile) -> String {
    let (confidence, allowed) = (profile.confidence * 100.0, percent(profile.max_miss_ratio));
    format!("with {confidence} % confidence the miss ratio is at most {}, within {allowed}", percent(bound))
}

/// The frames that it takes if they cluster as those of this run do.
fn frames_needed_among(bursts: Option<Bursts>, misses: usize, profile: &DeadlineProfile) -> usize {
    let independent = |misses| frames_needed(misses, profile.max_miss_ratio, profile.confidence);
    let effective = |b: Bursts| independent(b.effective(misses).ceil() as usize) as f64 * b.dispersion;
    bursts.map_or_else(|| independent(misses), |b| effective(b).ceil() as usize)
}

/// The drift of one camera's latency in ms, and the stage that drifted most.
fn drift_of(records: &[FrameRecord]) -> Option<(LatencyStage, Trend)> {
    let ms = |of: &dyn Fn(&FrameRecord) -> Option<u64>| -> Vec<_> {
        records.iter().filter_map(|r| Some(of(r)? as f64 / 1e6)).collect()
    };
    let all = trend::of_many(&ms(&FrameRecord::until_done))?;
    let change = |stage: LatencyStage| trend::of_many(&ms(&|r| r.stage(stage))).map_or(0.0, |trend| trend.change);
    let stage = LatencyStage::ALL.into_iter().max_by(|&a, &b| change(a).total_cmp(&change(b)))?;
    Some((stage, all))
}

/// Why misses cannot be attributed to the student: each condition of the machine as a sentence with
/// its remedy.
fn unfitness(conditions: &Conditions, profile: &DeadlineProfile) -> Vec<String> {
    let mut found = vec![];
    let (foreign, limit) =
        (conditions.load.map_or(0.0, |load| load.foreign_percent()), profile.max_foreign_load_percent);
    if foreign > limit {
        found.push(format!(
            "other programs or the hypervisor took {foreign:.1} % of the CPU time (limit {limit} %): stop other \
             programs and run again"
        ));
    }
    if let Some(times) = conditions.throttled.filter(|&times| times > 0) {
        found.push(format!("a CPU was thermally throttled {times} times: cool the machine and run again"));
    }
    let board = &conditions.board;
    if !board.slowed_by.is_empty() {
        let by = board.slowed_by_names();
        found.push(format!("clocks were lowered because of heat ({by}): cool the machine and run again"));
    }
    if let Some(times) = board.over_current.filter(|&times| times > 0) {
        found.push(format!(
            "the supply's current or voltage passed a limit {times} times, at which the hardware lowers clocks: use a \
             stronger supply or a lower power mode and run again"
        ));
    }
    if conditions.gpu_throttled() {
        found.push(
            "the GPU was throttled by heat or its power limit: cool it, or raise the limit, and run again".into(),
        );
    }
    let limit = profile.max_clock_change_percent;
    if let Some(change) = conditions.clock_change_percent().filter(|&change| change > limit) {
        found.push(format!(
            "the CPU clock fell by {change:.0} % from its maximum (limit {limit} %): set the governor to performance \
             and run again"
        ));
    }
    found
}

/// A ratio of 0 to 1 as a percentage with three significant digits.
pub fn percent(ratio: f64) -> String {
    let value = ratio * 100.0;
    let digits = if value == 0.0 { 0 } else { (2 - value.log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::BoardConditions;
    use crate::machine::CpuLoad;
    use crate::simulation::{profile, simulate};

    const QUIET: CpuLoad = CpuLoad { own: 0.5, others: 0.0, steal: 0.0 };
    const BUSY: CpuLoad = CpuLoad { own: 0.5, others: 0.2, steal: 0.3 };

    fn judge_stalls(frames: usize, stall_ms: u64, stalled: &[usize], load: CpuLoad, injected: bool) -> Judgement {
        let mut profile = profile(frames);
        (profile.max_miss_ratio, profile.max_miss_run) = (0.02, 3);
        let run = simulate(&profile, |frame| Some([1, if stalled.contains(&frame) { stall_ms } else { 5 }, 1]));
        judge(&run, &profile, &Conditions { load: Some(load), ..Conditions::default() }, injected)
    }

    #[test]
    fn no_miss_in_enough_frames_is_met() {
        let judgement = judge_stalls(228, 0, &[], QUIET, false);
        assert_eq!((judgement.verdict, judgement.frames_needed), (Verdict::Met, 228));
    }

    #[test]
    fn no_miss_in_one_frame_too_few_is_not_provable() {
        let judgement = judge_stalls(227, 0, &[], QUIET, false);
        assert_eq!(judgement.verdict, Verdict::NotProvable);
        assert!(judgement.reasons[0].contains("it takes 228 frames"), "{:?}", judgement.reasons);
    }

    #[test]
    fn a_long_stall_is_missed_by_its_run_and_names_its_stage() {
        // Frame 500 ends after 47 ms, 504 after 54 and 505 after 61; each is late, and those
        // between are superseded.
        let judgement = judge_stalls(1000, 45, &[500], QUIET, false);
        assert_eq!((judgement.verdict, judgement.misses, judgement.longest_miss_run), (Verdict::Missed, 6, 6));
        assert_eq!(judgement.attribution.as_ref().unwrap().stage, LatencyStage::Inference);
        assert!(judgement.reasons[0].contains("in a row") && judgement.reasons[1].contains("inference"));
    }

    #[test]
    fn scattered_stalls_are_missed_by_their_ratio() {
        // Each of 14 ms, and the frame after it ends 11 ms after its instant.
        let judgement = judge_stalls(100, 12, &[10, 30, 50], QUIET, false);
        assert_eq!(judgement.verdict, Verdict::Missed);
        assert!(judgement.reasons[0].contains("(6 %); at most 2 %"));
    }

    #[test]
    fn a_busy_machine_excuses_misses_but_not_injected_ones() {
        assert_eq!(judge_stalls(1000, 45, &[500], BUSY, false).verdict, Verdict::NotProvable);
        assert_eq!(judge_stalls(1000, 45, &[500], BUSY, true).verdict, Verdict::Missed);
    }

    #[test]
    fn a_deadline_that_a_busy_machine_meets_is_met() {
        assert_eq!(judge_stalls(228, 0, &[], BUSY, false).verdict, Verdict::Met);
    }

    #[test]
    fn throttling_excuses_misses_and_names_the_remedy() {
        let mut profile = profile(300);
        profile.max_miss_ratio = 0.01;
        let run = simulate(&profile, |frame| Some([1, if frame % 20 == 0 { 12 } else { 5 }, 1]));
        let heat = Conditions { throttled: Some(3), ..Conditions::default() };
        let clock = Conditions { cpu_mhz: Some((1000.0, 3000.0)), ..Conditions::default() };
        let of_board = |board| Conditions { board, ..Conditions::default() };
        let slowed =
            BoardConditions { slowed_by: vec![("cpu-throttle-alert".into(), 2)], ..BoardConditions::default() };
        let supply = BoardConditions { over_current: Some(2), ..BoardConditions::default() };
        for (conditions, expected) in [
            (heat, "cool"),
            (clock, "governor"),
            (of_board(slowed), "because of heat (cpu-throttle-alert): cool"),
            (of_board(supply), "passed a limit 2 times"),
        ] {
            let judgement = judge(&run, &profile, &conditions, false);
            assert_eq!(judgement.verdict, Verdict::NotProvable);
            assert!(judgement.reasons[0].contains(expected), "{:?}", judgement.reasons);
        }
    }

    #[test]
    fn memory_that_grows_beyond_the_profile_is_missed() {
        let (mut profile, steady) = (profile(400), |_| Some([1, 5, 1]));
        profile.max_miss_ratio = 0.02;
        let run = simulate(&profile, steady);
        let grown = |change| Conditions { memory: Some(Trend { change, p_value: 1e-6 }), ..Conditions::default() };
        assert_eq!(judge(&run, &profile, &grown(1.0), false).verdict, Verdict::Met);
        let judgement = judge(&run, &profile, &grown(profile.max_memory_growth_mib + 1.0), false);
        assert_eq!(judgement.verdict, Verdict::Missed);
        assert!(judgement.reasons[0].contains("memory grew by"), "{:?}", judgement.reasons);
    }

    #[test]
    fn an_interrupted_run_is_not_provable() {
        let profile = profile(400);
        let run = BenchRun { interrupted: Some(1000), ..simulate(&profile, |_| Some([1, 5, 1])) };
        let judgement = judge(&run, &profile, &Conditions::default(), false);
        assert_eq!(judgement.verdict, Verdict::NotProvable);
        assert!(judgement.reasons[0].contains("interrupted after 400 of 1000"), "{:?}", judgement.reasons);
    }

    #[test]
    fn percents_have_three_significant_digits() {
        for (ratio, expected) in [
            (0.0, "0 %"),
            (0.001, "0.1 %"),
            (0.0009999, "0.1 %"),
            (0.45678, "45.7 %"),
            (1.0, "100 %"),
            (0.000123, "0.0123 %"),
        ] {
            assert_eq!(percent(ratio), expected);
        }
    }
}
