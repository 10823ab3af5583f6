//! The stage to which misses are due.

use serde::Serialize;

use super::profile::Profile;
use super::record::{Fate, FrameRecord, Run, Stage, STAGES};
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
    pub manner: Manner,
}

/// How a stage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Manner {
    /// It took long now and then.
    Stalls,
    /// It is too slow on every frame.
    Always,
    /// It never ended.
    Stuck,
    /// Frames did not come out of it at all.
    Loses,
}

/// Finds the stage behind most misses; none where there is no miss, or no frame to learn from.
///
/// A frame is late because of the stage that took most above its usual time. One that waited, or was superseded, because
/// the worker was busy with an earlier frame is laid at the door of that frame's stage, so that a stall counts for all
/// that it delayed. Where the stages' usual times already exceed the deadline or the period, it is the longest of them.
pub fn find(run: &Run, profile: &Profile) -> Option<Culprit> {
    let misses = run.records.iter().filter(|r| r.missed()).count();
    if misses == 0 || run.records.iter().all(|r| r.passage.is_none() && r.fate == Fate::Superseded) {
        return None;
    }
    let usual = Stage::ALL.map(|stage| {
        let durations = run.records.iter().filter_map(|r| r.stage(stage)).map(Some);
        Distribution::new(durations).quantile(0.5).unwrap_or(0)
    });
    let work = |stage: &Stage| stage.is_work();
    let working: u64 = Stage::ALL.into_iter().filter(work).map(|s| usual[s as usize]).sum();
    if working as f64 > profile.period_ns().min(profile.deadline_ns() as f64) {
        let slowest = Stage::ALL.into_iter().filter(work).max_by_key(|&s| usual[s as usize])?;
        let duration = run.records.iter().filter_map(|r| r.stage(slowest)).max()?;
        let blame = Blame { stage: slowest, duration, manner: Manner::Always };
        return Some(culprit(blame, misses, &usual));
    }
    let blames: Vec<_> =
        run.cameras().flat_map(|records| blame_each_miss(records, run.layer.stages(), &usual)).collect();
    let of = |stage: Stage| blames.iter().filter(move |b| b.stage == stage);
    let stage = Stage::ALL.into_iter().max_by_key(|&stage| of(stage).count())?;
    let worst = *of(stage).max_by_key(|b| (b.manner == Manner::Stuck, b.duration))?;
    Some(culprit(worst, of(stage).count(), &usual))
}

fn culprit(worst: Blame, misses: usize, usual: &[u64; STAGES]) -> Culprit {
    let Blame { stage, duration, manner } = worst;
    Culprit { stage, misses, usual_ms: usual[stage as usize] as f64 / 1e6, worst_ms: duration as f64 / 1e6, manner }
}

/// A stage, and how long it took when it did harm.
#[derive(Debug, Clone, Copy)]
struct Blame {
    stage: Stage,
    duration: u64,
    manner: Manner,
}

fn blame_each_miss(records: &[FrameRecord], stages: &[Stage], usual: &[u64; STAGES]) -> Vec<Blame> {
    let mut blames = Vec::new();
    // What held the worker last, and until when.
    let mut last: Option<(Blame, u64)> = None;
    for record in records {
        if let Some(passage) = record.passage {
            let mut blame = most_above_usual(record, stages, usual);
            if let (Stage::Wait, Some((before, busy_until))) = (blame.stage, last) {
                if busy_until > passage.arrived() {
                    blame = before;
                }
            }
            last = Some((blame, passage.worked()));
        }
        if let (Fate::Unfinished, Some(stage)) = (record.fate, record.ended_in) {
            last = Some((Blame { stage, duration: 0, manner: Manner::Stuck }, u64::MAX));
        }
        if record.fate == Fate::Lost {
            // It got as far as the camera, or into the middleware.
            let stage = if stages.contains(&Stage::Transport) { Stage::Transport } else { Stage::Arrival };
            let stage = record.ended_in.unwrap_or(stage);
            blames.push(Blame { stage, duration: 0, manner: Manner::Loses });
        } else if let (true, Some((blame, _))) = (record.missed(), last) {
            blames.push(blame);
        }
    }
    blames
}

fn most_above_usual(record: &FrameRecord, stages: &[Stage], usual: &[u64; STAGES]) -> Blame {
    let duration = |stage: Stage| record.stage(stage).unwrap_or(0);
    let excess = |stage: Stage| duration(stage).saturating_sub(usual[stage as usize]);
    let stage = stages.iter().copied().max_by_key(|&stage| excess(stage)).unwrap_or(Stage::Inference);
    Blame { stage, duration: duration(stage), manner: Manner::Stalls }
}

/// In a sentence.
pub fn describe(c: &Culprit) -> String {
    let (stage, usual, worst, misses) = (c.stage.name(), c.usual_ms, c.worst_ms, c.misses);
    match c.manner {
        Manner::Always => format!(
            "the stages usually take longer than deadline or period allow, {stage} the longest: usually {usual:.2} ms, \
             {worst:.2} ms at worst"
        ),
        Manner::Stalls => {
            format!("{misses} of the misses go back to {stage}: usually {usual:.2} ms, {worst:.2} ms at worst")
        }
        Manner::Stuck => format!("{misses} of the misses go back to {stage}, in which the worker got stuck for good"),
        Manner::Loses if c.stage == Stage::Arrival => {
            format!("{misses} of the misses go back to {stage}: the camera sent nothing when these frames were due")
        }
        Manner::Loses => format!("{misses} of the misses go back to {stage}: these frames were sent and never arrived"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{profile, simulate, Durations};

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
            assert_eq!((culprit.stage, culprit.misses, culprit.manner), (stage, 6, Manner::Stalls));
            assert_eq!(culprit.worst_ms, [55.0, 59.0, 55.0][i]);
        }
    }

    #[test]
    fn stages_that_are_always_too_slow_are_told_from_stalls() {
        let culprit = culprit_of(|_| Some([4, 1, 7])).unwrap();
        assert_eq!((culprit.stage, culprit.manner, culprit.misses), (Stage::Decode, Manner::Always, 100));
    }
}
