//! Which stage the misses are attributed to.

use serde::Serialize;

use super::profile::DeadlineProfile;
use super::record::{BenchOutcome, BenchRun, FrameRecord, LatencyStage, STAGES};
use super::stats::Distribution;

/// The stage that most misses are attributed to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attribution {
    pub stage: LatencyStage,
    /// Misses attributed to it.
    pub misses: usize,
    /// The stage's median duration, in milliseconds.
    #[serde(rename = "usual_ms")]
    pub median_ms: f64,
    /// The stage's longest duration in a frame that caused a miss, in milliseconds.
    pub worst_ms: f64,
    #[serde(rename = "manner")]
    pub failure_mode: FailureMode,
}

/// How a stage failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureMode {
    /// Single frames took far longer than the median.
    Stalls,
    /// The median is too long for the deadline or the period.
    Always,
    /// It never returned.
    Stuck,
    /// Frames entered it and were lost.
    Loses,
}

/// Attributes the misses of a run to a stage. `None` if there is no miss, or no frame was
/// processed.
///
/// A late frame is attributed to the stage that exceeded its median the most. If a frame waited, or
/// was superseded, because the worker was busy with an earlier frame, its miss is attributed to
/// that frame's stage: a stall counts for every frame that it delayed. If the medians alone add up
/// to more than the deadline or the period, all misses are attributed to the longest stage.
pub fn attribute(run: &BenchRun, profile: &DeadlineProfile) -> Option<Attribution> {
    let misses = run.records.iter().filter(|r| r.missed()).count();
    if misses == 0 || run.records.iter().all(|r| r.timestamps.is_none() && r.outcome == BenchOutcome::Superseded) {
        return None;
    }
    let medians = LatencyStage::ALL.map(|stage| {
        let durations = run.records.iter().filter_map(|r| r.stage(stage)).map(Some);
        Distribution::new(durations).quantile(0.5).unwrap_or(0)
    });
    let work = |stage: &LatencyStage| stage.is_work();
    let working: u64 = LatencyStage::ALL.into_iter().filter(work).map(|s| medians[s as usize]).sum();
    if working as f64 > profile.period_ns().min(profile.deadline_ns() as f64) {
        let slowest = LatencyStage::ALL.into_iter().filter(work).max_by_key(|&s| medians[s as usize])?;
        let duration = run.records.iter().filter_map(|r| r.stage(slowest)).max()?;
        let cause = MissCause { stage: slowest, duration, failure_mode: FailureMode::Always };
        return Some(summarise(cause, misses, &medians));
    }
    let causes: Vec<_> =
        run.cameras().flat_map(|records| cause_of_each_miss(records, run.layer.stages(), &medians)).collect();
    let of = |stage: LatencyStage| causes.iter().filter(move |b| b.stage == stage);
    let stage = LatencyStage::ALL.into_iter().max_by_key(|&stage| of(stage).count())?;
    let worst = *of(stage).max_by_key(|b| (b.failure_mode == FailureMode::Stuck, b.duration))?;
    Some(summarise(worst, of(stage).count(), &medians))
}

fn summarise(worst: MissCause, misses: usize, medians: &[u64; STAGES]) -> Attribution {
    let MissCause { stage, duration, failure_mode } = worst;
    Attribution {
        stage,
        misses,
        median_ms: medians[stage as usize] as f64 / 1e6,
        worst_ms: duration as f64 / 1e6,
        failure_mode,
    }
}

/// What one miss is attributed to: a stage, and its duration in the frame that caused the miss.
#[derive(Debug, Clone, Copy)]
struct MissCause {
    stage: LatencyStage,
    duration: u64,
    failure_mode: FailureMode,
}

fn cause_of_each_miss(records: &[FrameRecord], stages: &[LatencyStage], medians: &[u64; STAGES]) -> Vec<MissCause> {
    let mut causes = Vec::new();
    // The cause in the frame that the worker processed last, and when it finished that frame.
    let mut last: Option<(MissCause, u64)> = None;
    for record in records {
        if let Some(timestamps) = record.timestamps {
            let mut cause = most_above_median(record, stages, medians);
            if let (LatencyStage::Wait, Some((before, busy_until))) = (cause.stage, last) {
                if busy_until > timestamps.arrived() {
                    cause = before;
                }
            }
            last = Some((cause, timestamps.work_ended()));
        }
        if let (BenchOutcome::Unfinished, Some(stage)) = (record.outcome, record.ended_in) {
            last = Some((MissCause { stage, duration: 0, failure_mode: FailureMode::Stuck }, u64::MAX));
        }
        if record.outcome == BenchOutcome::Unanswered {
            causes.push(MissCause { stage: LatencyStage::Node, duration: 0, failure_mode: FailureMode::Loses });
        } else if record.outcome == BenchOutcome::Lost {
            // The camera did not send it, or the middleware dropped it.
            let stage =
                if stages.contains(&LatencyStage::Transport) { LatencyStage::Transport } else { LatencyStage::Arrival };
            let stage = record.ended_in.unwrap_or(stage);
            causes.push(MissCause { stage, duration: 0, failure_mode: FailureMode::Loses });
        } else if let (true, Some((cause, _))) = (record.missed(), last) {
            causes.push(cause);
        }
    }
    causes
}

fn most_above_median(record: &FrameRecord, stages: &[LatencyStage], medians: &[u64; STAGES]) -> MissCause {
    let duration = |stage: LatencyStage| record.stage(stage).unwrap_or(0);
    let excess = |stage: LatencyStage| duration(stage).saturating_sub(medians[stage as usize]);
    let stage = stages.iter().copied().max_by_key(|&stage| excess(stage)).unwrap_or(LatencyStage::Inference);
    MissCause { stage, duration: duration(stage), failure_mode: FailureMode::Stalls }
}

impl Attribution {
    /// As a sentence for the report.
    pub fn sentence(&self) -> String {
        let Self { stage, misses, median_ms, worst_ms, failure_mode } = *self;
        let stage_name = stage.name();
        match failure_mode {
            FailureMode::Always => format!(
                "the stages' medians exceed the deadline or the period; longest: {stage_name}, median \
                 {median_ms:.2} ms, worst {worst_ms:.2} ms"
            ),
            FailureMode::Stalls => {
                format!("{misses} misses attributed to {stage_name}: median {median_ms:.2} ms, worst {worst_ms:.2} ms")
            }
            FailureMode::Stuck => {
                format!("{misses} misses attributed to {stage_name}: the worker got stuck in it")
            }
            FailureMode::Loses if stage == LatencyStage::Arrival => {
                format!(
                    "{misses} misses attributed to {stage_name}: the camera sent no image when these frames were due"
                )
            }
            FailureMode::Loses if stage == LatencyStage::Node => {
                format!("{misses} misses attributed to the node: it published no detections with these images' stamps")
            }
            FailureMode::Loses => {
                format!("{misses} misses attributed to {stage_name}: these frames were sent and never arrived")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{profile, simulate, Durations};

    fn attribution_of(durations: impl FnMut(usize) -> Option<Durations>) -> Option<Attribution> {
        let profile = profile(100);
        attribute(&simulate(&profile, durations), &profile)
    }

    #[test]
    fn without_a_miss_nothing_is_attributed() {
        assert_eq!(attribution_of(|_| Some([1, 5, 1])), None);
    }

    #[test]
    fn a_stall_is_attributed_with_every_frame_that_it_delayed() {
        for (i, stage) in
            [LatencyStage::Preprocess, LatencyStage::Inference, LatencyStage::Decode].into_iter().enumerate()
        {
            let attribution = attribution_of(|frame| {
                let mut durations = [1, 5, 1];
                durations[i] += if frame == 20 { 54 } else { 0 };
                Some(durations)
            })
            .unwrap();
            // From 200 to 261 ms: frame 20 is late, 21 to 25 superseded, and 26, begun 1 ms late,
            // is in time.
            assert_eq!(
                (attribution.stage, attribution.misses, attribution.failure_mode),
                (stage, 6, FailureMode::Stalls)
            );
            assert_eq!(attribution.worst_ms, [55.0, 59.0, 55.0][i]);
        }
    }

    #[test]
    fn a_stage_that_is_always_too_slow_is_not_called_a_stall() {
        let attribution = attribution_of(|_| Some([4, 1, 7])).unwrap();
        assert_eq!(
            (attribution.stage, attribution.failure_mode, attribution.misses),
            (LatencyStage::Decode, FailureMode::Always, 100)
        );
    }
}
