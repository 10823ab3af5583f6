//! The stage to which misses are due.

use serde::Serialize;

use super::profile::Profile;
use super::schedule::{FrameRecord, Run, Stage};
use super::stats::Distribution;

/// The stage that explains most misses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Culprit {
    pub stage: Stage,
    /// Misses laid at its door.
    pub misses: usize,
    /// What the stage usually takes (its median), in milliseconds.
    pub usual_ms: f64,
    /// What it took at worst in a frame that caused a miss, in milliseconds.
    pub worst_ms: f64,
    /// Whether the stages are too slow on every frame, rather than now and then.
    pub always: bool,
}

/// Finds the stage behind most misses; none where there is no miss, or no frame to learn from.
///
/// A frame is late because of the stage that took most above its usual time. One that waited, or was superseded, because
/// the worker was busy with an earlier frame is laid at the door of that frame's stage, so that a stall counts for all
/// that it delayed. Where the stages' usual times already exceed the deadline or the period, it is the longest of them.
pub fn find(run: &Run, profile: &Profile) -> Option<Culprit> {
    let misses = run.records.iter().filter(|r| r.missed()).count();
    if misses == 0 || run.records.iter().all(|r| r.passage.is_none()) {
        return None;
    }
    let usual = Stage::ALL.map(|stage| {
        let durations = run.records.iter().filter_map(|r| r.stage(stage)).map(Some);
        Distribution::new(durations).quantile(0.5).unwrap_or(0)
    });
    let work = &usual[Stage::Preprocess as usize..];
    if work.iter().sum::<u64>() as f64 > profile.period_ns().min(profile.deadline_ns() as f64) {
        let slowest = Stage::ALL.into_iter().skip(Stage::Preprocess as usize).max_by_key(|&s| usual[s as usize])?;
        let worst = run.records.iter().filter_map(|r| r.stage(slowest)).max()?;
        return Some(culprit(slowest, misses, &usual, worst, true));
    }
    let blame = blame_each_miss(&run.records, &usual);
    let of = |stage: Stage| blame.iter().filter(move |b| b.stage == stage);
    let stage = Stage::ALL.into_iter().max_by_key(|&stage| of(stage).count())?;
    let worst = of(stage).map(|b| b.duration).max()?;
    Some(culprit(stage, of(stage).count(), &usual, worst, false))
}

fn culprit(stage: Stage, misses: usize, usual: &[u64; 5], worst: u64, always: bool) -> Culprit {
    Culprit { stage, misses, usual_ms: usual[stage as usize] as f64 / 1e6, worst_ms: worst as f64 / 1e6, always }
}

/// A stage, and how long it took when it did harm.
#[derive(Debug, Clone, Copy)]
struct Blame {
    stage: Stage,
    duration: u64,
}

fn blame_each_miss(records: &[FrameRecord], usual: &[u64; 5]) -> Vec<Blame> {
    let mut blames = Vec::new();
    // What held the worker last, and until when.
    let mut last: Option<(Blame, u64)> = None;
    for record in records {
        if let Some(passage) = record.passage {
            let mut blame = most_above_usual(record, usual);
            if let (Stage::Wait, Some((before, busy_until))) = (blame.stage, last) {
                if busy_until > passage.arrived {
                    blame = before;
                }
            }
            last = Some((blame, passage.stages.decode_end));
        }
        if let (true, Some((blame, _))) = (record.missed(), last) {
            blames.push(blame);
        }
    }
    blames
}

fn most_above_usual(record: &FrameRecord, usual: &[u64; 5]) -> Blame {
    let duration = |stage: Stage| record.stage(stage).unwrap_or(0);
    let excess = |stage: Stage| duration(stage).saturating_sub(usual[stage as usize]);
    let stage = Stage::ALL.into_iter().max_by_key(|&stage| excess(stage)).unwrap_or(Stage::Inference);
    Blame { stage, duration: duration(stage) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::simulation::{profile, simulate, Durations};

    fn culprit_of(durations: impl FnMut(usize) -> Option<Durations>) -> Option<Culprit> {
        let profile = profile(100);
        find(&simulate(&profile, durations), &profile)
    }

    #[test]
    fn without_a_miss_there_is_no_culprit() {
        assert_eq!(culprit_of(|_| Some([1, 5, 1])), None);
    }

    #[test]
    fn a_stall_is_found_in_whichever_stage_it_happened_with_all_that_it_delayed() {
        for (i, stage) in [Stage::Preprocess, Stage::Inference, Stage::Decode].into_iter().enumerate() {
            let culprit = culprit_of(|frame| {
                let mut durations = [1, 5, 1];
                durations[i] += if frame == 20 { 54 } else { 0 };
                Some(durations)
            })
            .unwrap();
            // From 200 to 261 ms: frame 20 is late, 21 to 25 superseded, and 26, begun 1 ms late, is in time.
            assert_eq!((culprit.stage, culprit.misses, culprit.always), (stage, 6, false));
            assert_eq!(culprit.worst_ms, [55.0, 59.0, 55.0][i]);
        }
    }

    #[test]
    fn stages_that_are_always_too_slow_are_told_from_stalls() {
        let culprit = culprit_of(|_| Some([4, 1, 7])).unwrap();
        assert_eq!((culprit.stage, culprit.always, culprit.misses), (Stage::Decode, true, 100));
    }
}
