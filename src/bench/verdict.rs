//! Met, missed, or not provable.

use serde::Serialize;

use super::culprit::{self, Culprit};
use super::machine::Load;
use super::profile::Profile;
use super::schedule::{FrameRecord, Run};
use super::stats::{frames_needed, longest_run, miss_ratio_bound};

/// The answer to whether the deadline is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The allowed miss ratio is shown to be kept, and no run of misses was too long.
    Met,
    /// More frames missed, or more in a row, than are allowed.
    Missed,
    /// Neither: too few frames for the claim, or a machine busy with other things.
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

    /// In capitals, for people.
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

/// A verdict with the figures that it rests on.
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
    pub longest_miss_run: usize,
    /// Frames with which as many misses would have been shown to be few enough.
    pub frames_needed: usize,
    pub culprit: Option<Culprit>,
}

/// Judges a run. `load` is what else used the machine meanwhile, where that is known; it excuses misses unless
/// `stalls_injected`, whose misses have a known cause.
pub fn judge(run: &Run, profile: &Profile, load: Option<Load>, stalls_injected: bool) -> Judgement {
    let frames = run.records.len();
    let misses = run.records.iter().filter(|r| r.missed()).count();
    let miss_ratio = misses as f64 / frames as f64;
    let bound = miss_ratio_bound(misses, frames, profile.confidence);
    let longest = longest_run(run.records.iter().map(FrameRecord::missed));
    let needed = frames_needed(misses, profile.max_miss_ratio, profile.confidence);
    let culprit = culprit::find(run, profile);

    let mut reasons = Vec::new();
    if miss_ratio > profile.max_miss_ratio {
        let allowed = percent(profile.max_miss_ratio);
        reasons.push(format!("{misses} of {frames} frames missed ({}), but {allowed} may", percent(miss_ratio)));
    }
    if longest > profile.max_miss_run {
        reasons.push(format!("{longest} frames in a row missed, but {} may", profile.max_miss_run));
    }
    let foreign = load.map_or(0.0, |load| load.foreign_percent());
    let unfit = foreign > profile.max_foreign_load_percent;
    let verdict = if !reasons.is_empty() && unfit && !stalls_injected {
        let limit = profile.max_foreign_load_percent;
        reasons.insert(
            0,
            format!(
            "other programs or the hypervisor took {foreign:.1} % of the CPU time (up to {limit} % is taken as fit): \
             quiet the machine and run again"
        ),
        );
        Verdict::NotProvable
    } else if !reasons.is_empty() {
        Verdict::Missed
    } else if bound > profile.max_miss_ratio {
        reasons.push(format!(
            "with {misses} misses in {frames} frames the miss ratio may still be {}, above {}: {needed} frames would show it",
            percent(bound),
            percent(profile.max_miss_ratio)
        ));
        Verdict::NotProvable
    } else {
        reasons.push(format!(
            "with {} % confidence the miss ratio is at most {}, within {}",
            profile.confidence * 100.0,
            percent(bound),
            percent(profile.max_miss_ratio)
        ));
        Verdict::Met
    };
    reasons.extend(culprit.as_ref().map(describe));
    Judgement {
        verdict,
        reasons,
        frames,
        misses,
        miss_ratio,
        miss_ratio_bound: bound,
        longest_miss_run: longest,
        frames_needed: needed,
        culprit,
    }
}

fn describe(c: &Culprit) -> String {
    let (stage, usual, worst, misses) = (c.stage.name(), c.usual_ms, c.worst_ms, c.misses);
    if c.always {
        return format!(
            "the stages usually take longer than deadline or period allow, {stage} the longest: usually {usual:.2} ms, \
             {worst:.2} ms at worst"
        );
    }
    format!("{misses} of the misses go back to {stage}: usually {usual:.2} ms, {worst:.2} ms at worst")
}

/// Of a share of one, with three significant digits.
pub fn percent(share: f64) -> String {
    let value = share * 100.0;
    let digits = if value == 0.0 { 0 } else { (2 - value.log10().floor() as i32).clamp(0, 6) as usize };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::schedule::Stage;
    use crate::bench::simulation::{profile, simulate};

    const QUIET: Load = Load { own: 0.5, others: 0.0, steal: 0.0 };
    const BUSY: Load = Load { own: 0.5, others: 0.2, steal: 0.3 };

    fn judge_stalls(frames: usize, stall_ms: u64, stalled: &[usize], load: Load, injected: bool) -> Judgement {
        let mut profile = profile(frames);
        (profile.max_miss_ratio, profile.max_miss_run) = (0.02, 3);
        let run = simulate(&profile, |frame| Some([1, if stalled.contains(&frame) { stall_ms } else { 5 }, 1]));
        judge(&run, &profile, Some(load), injected)
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
        assert!(judgement.reasons[0].contains("228 frames would show it"), "{:?}", judgement.reasons);
    }

    #[test]
    fn a_long_stall_is_missed_by_its_run_and_names_its_stage() {
        // Frame 500 ends after 47 ms, 504 after 54 and 505 after 61; each is late, and those between are superseded.
        let judgement = judge_stalls(1000, 45, &[500], QUIET, false);
        assert_eq!((judgement.verdict, judgement.misses, judgement.longest_miss_run), (Verdict::Missed, 6, 6));
        assert_eq!(judgement.culprit.as_ref().unwrap().stage, Stage::Inference);
        assert!(judgement.reasons[0].contains("in a row") && judgement.reasons[1].contains("inference"));
    }

    #[test]
    fn scattered_stalls_are_missed_by_their_share() {
        // Each of 14 ms, and the frame after it ends 11 ms after its instant.
        let judgement = judge_stalls(100, 12, &[10, 30, 50], QUIET, false);
        assert_eq!(judgement.verdict, Verdict::Missed);
        assert!(judgement.reasons[0].contains("(6 %), but 2 %"));
    }

    #[test]
    fn a_busy_machine_excuses_misses_but_not_injected_ones() {
        assert_eq!(judge_stalls(1000, 45, &[500], BUSY, false).verdict, Verdict::NotProvable);
        assert_eq!(judge_stalls(1000, 45, &[500], BUSY, true).verdict, Verdict::Missed);
    }

    #[test]
    fn a_deadline_kept_on_a_busy_machine_is_kept() {
        assert_eq!(judge_stalls(228, 0, &[], BUSY, false).verdict, Verdict::Met);
    }

    #[test]
    fn percents_have_three_significant_digits() {
        for (share, expected) in [
            (0.0, "0 %"),
            (0.001, "0.1 %"),
            (0.0009999, "0.1 %"),
            (0.45678, "45.7 %"),
            (1.0, "100 %"),
            (0.000123, "0.0123 %"),
        ] {
            assert_eq!(percent(share), expected);
        }
    }
}
