//! From images sent, detections received and the node's `FrameTiming` to a record of each frame.

use crate::record::{BenchOutcome, FrameCost, FrameRecord, LatencyStage, StageTimestamps, STAGES};
use crate::LatePolicy;

/// A frame's `FrameTiming`: ROS time in nanoseconds, 0 for a step not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeTiming {
    /// Number of the frame among those that arrived at the node.
    pub sequence: u64,
    pub arrival: i64,
    pub preprocess_start: i64,
    pub preprocess_end: i64,
    pub inference_end: i64,
    pub decode_end: i64,
    pub track_end: i64,
    pub publish: i64,
    /// Whether it was dropped as late, so that no detections follow.
    pub dropped_late: bool,
}

/// One frame as this process sees it. Instants by [`peregrine_core::now_ns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchange {
    pub scheduled: u64,
    /// The image's timestamp, by which frames are matched: ROS time of the scheduled instant,
    /// nanoseconds.
    pub stamp: i64,
    /// When it was published. `None` if it was not sent.
    pub sent: Option<u64>,
    pub timing: Option<NodeTiming>,
    /// When its detections were received.
    pub received: Option<u64>,
    /// Number of detections.
    pub detections: usize,
}

/// A record of each frame. The deadline, in nanoseconds, is from the scheduled instant to the
/// received detections.
///
/// A frame without `FrameTiming` was superseded in the node or lost on the way. The node's
/// `sequence` counts arrivals and so gives the number of each; the earlier ones count as lost.
pub fn records(exchanges: &[Exchange], deadline: u64, late: LatePolicy) -> Vec<FrameRecord> {
    let mut records: Vec<_> =
        exchanges.iter().enumerate().map(|(index, exchange)| record(index, exchange, deadline, late)).collect();
    separate_superseded_from_lost(&mut records, exchanges);
    records
}

/// A record of each frame of a node that publishes no `FrameTiming`: what happened between image and detections is one
/// stage, and whether a frame without detections was skipped or lost cannot be told.
pub fn records_without_timing(exchanges: &[Exchange], deadline: u64) -> Vec<FrameRecord> {
    let record = |(index, exchange): (usize, &Exchange)| {
        let record = record(index, &Exchange { timing: None, ..*exchange }, deadline, LatePolicy::Publish);
        let timestamps = exchange.sent.zip(exchange.received).map(|(sent, received)| {
            let mut ends = [sent; STAGES];
            ends[LatencyStage::Node as usize] = received;
            StageTimestamps { ends }
        });
        let unanswered = exchange.sent.is_some() && exchange.received.is_none();
        let outcome = if unanswered { BenchOutcome::Unanswered } else { record.outcome };
        FrameRecord { timestamps, outcome, ..record }
    };
    exchanges.iter().enumerate().map(record).collect()
}

fn record(index: usize, exchange: &Exchange, deadline: u64, late: LatePolicy) -> FrameRecord {
    let scheduled = exchange.scheduled;
    let Some(sent) = exchange.sent else {
        let lost = FrameRecord::unprocessed(0, index, scheduled, BenchOutcome::Lost);
        return FrameRecord { ended_in: Some(LatencyStage::Arrival), ..lost };
    };
    let timestamps = exchange.timing.map(|timing| timestamps(exchange, sent, &timing));
    let outcome = match (exchange.received, exchange.timing) {
        (Some(received), _) if received.saturating_sub(scheduled) <= deadline => BenchOutcome::OnTime,
        (Some(_), _) => BenchOutcome::Late,
        (None, Some(timing)) if timing.dropped_late && late == LatePolicy::Drop => BenchOutcome::DroppedLate,
        // Published by the node and never received.
        (None, _) => BenchOutcome::Lost,
    };
    let ended_in = (outcome == BenchOutcome::Lost && timestamps.is_some()).then_some(LatencyStage::Delivery);
    // Received without a FrameTiming: all of its time counts as delivery.
    let timestamps = timestamps.or(exchange.received.map(|received| {
        let mut ends = [sent; STAGES];
        ends[LatencyStage::Delivery as usize..].fill(received);
        StageTimestamps { ends }
    }));
    FrameRecord { camera: 0, index, scheduled, outcome, timestamps, ended_in, cost: FrameCost::default() }
}

fn timestamps(exchange: &Exchange, sent: u64, timing: &NodeTiming) -> StageTimestamps {
    let here = |ros: i64| if ros == 0 { 0 } else { exchange.scheduled.saturating_add_signed(ros - exchange.stamp) };
    let mut ends = [
        sent,
        here(timing.arrival),
        here(timing.preprocess_start),
        here(timing.preprocess_end),
        here(timing.inference_end),
        here(timing.decode_end),
        here(timing.track_end),
        // The subscriber may have the detections before the publisher's call returns.
        here(timing.publish).min(exchange.received.unwrap_or(u64::MAX)),
        exchange.received.unwrap_or(0),
        0,
    ];
    // A step that was not reached, or is before the previous one by another clock, takes no time.
    for stage in 1..STAGES {
        ends[stage] = ends[stage].max(ends[stage - 1]);
    }
    StageTimestamps { ends }
}

fn separate_superseded_from_lost(records: &mut [FrameRecord], exchanges: &[Exchange]) {
    let mut previous: Option<u64> = None;
    let mut unanswered = vec![];
    for (index, exchange) in exchanges.iter().enumerate() {
        match exchange.timing {
            Some(timing) => {
                let arrived = match previous {
                    Some(previous) => timing.sequence.saturating_sub(previous + 1) as usize,
                    // Before the first timing the number of arrivals is unknown: all count as
                    // arrived.
                    None => unanswered.len(),
                };
                mark_superseded(records, &mut unanswered, arrived);
                previous = Some(timing.sequence);
            }
            None if exchange.sent.is_some() && exchange.received.is_none() => unanswered.push(index),
            None => {}
        }
    }
}

/// The last `arrived` of the unanswered frames arrived, and were superseded.
fn mark_superseded(records: &mut [FrameRecord], unanswered: &mut Vec<usize>, arrived: usize) {
    let first = unanswered.len().saturating_sub(arrived);
    unanswered.drain(..).skip(first).for_each(|index| records[index].outcome = BenchOutcome::Superseded);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const EPOCH: i64 = 1_700_000_000_000_000_000;

    /// Frame `index` of a 10 Hz camera: 1 ms late from the camera, 2 in the middleware, 1 waiting,
    /// 3, 5, 2, 0 and 1 in the node, 2 on the way back.
    fn exchange(index: u64, sequence: u64) -> Exchange {
        let (scheduled, stamp) = (1000 * MS + index * 100 * MS, EPOCH + (index * 100 * MS) as i64);
        let at = |ms: u64| stamp + (ms * MS) as i64;
        let timing = NodeTiming {
            sequence,
            arrival: at(3),
            preprocess_start: at(4),
            preprocess_end: at(7),
            inference_end: at(12),
            decode_end: at(14),
            track_end: 0,
            publish: at(15),
            dropped_late: false,
        };
        let (sent, received) = (Some(scheduled + MS), Some(scheduled + 17 * MS));
        Exchange { scheduled, stamp, sent, timing: Some(timing), received, detections: 0 }
    }

    fn without_answer(index: u64) -> Exchange {
        Exchange { timing: None, received: None, ..exchange(index, 0) }
    }

    fn outcomes(exchanges: &[Exchange]) -> Vec<BenchOutcome> {
        records(exchanges, 20 * MS, LatePolicy::Publish).iter().map(|r| r.outcome).collect()
    }

    #[test]
    fn the_stages_add_up_to_the_latency() {
        let record = records(&[exchange(0, 9)], 20 * MS, LatePolicy::Publish)[0];
        let stages = LatencyStage::ALL.map(|stage| record.stage(stage).unwrap() / MS);
        assert_eq!(stages, [1, 2, 1, 3, 5, 2, 0, 1, 2, 0]);
        assert_eq!((record.outcome, record.latency()), (BenchOutcome::OnTime, Some(17 * MS)));
    }

    #[test]
    fn a_node_without_timing_has_one_stage_and_one_outcome_for_each_frame() {
        let unsent = Exchange { sent: None, ..without_answer(2) };
        let frames = [exchange(0, 1), without_answer(1), unsent, exchange(3, 2)];
        let found = records_without_timing(&frames, 17 * MS);
        use BenchOutcome::{Late, Lost, OnTime, Unanswered};
        assert_eq!(found.iter().map(|r| r.outcome).collect::<Vec<_>>(), [OnTime, Unanswered, Lost, OnTime]);
        assert_eq!((found[1].latency(), found[2].ended_in), (None, Some(LatencyStage::Arrival)));
        let stages = [LatencyStage::Arrival, LatencyStage::Transport, LatencyStage::Delivery, LatencyStage::Node];
        assert_eq!(stages.map(|stage| found[0].stage(stage).unwrap() / MS), [1, 0, 0, 16]);
        assert_eq!(records_without_timing(&frames, 16 * MS)[0].outcome, Late);
    }

    #[test]
    fn the_deadline_ends_at_the_received_detections() {
        let late = records(&[exchange(0, 1)], 16 * MS, LatePolicy::Publish)[0];
        assert_eq!(late.outcome, BenchOutcome::Late);
    }

    #[test]
    fn the_node_count_separates_superseded_from_lost() {
        let frames =
            [exchange(0, 5), without_answer(1), without_answer(2), exchange(3, 7), without_answer(4), exchange(5, 8)];
        use BenchOutcome::{Lost, OnTime, Superseded};
        assert_eq!(outcomes(&frames), [OnTime, Lost, Superseded, OnTime, Lost, OnTime]);
        assert_eq!(outcomes(&[exchange(0, 5), without_answer(1)]), [OnTime, Lost]);
    }

    #[test]
    fn lost_frames_name_the_stage_that_lost_them() {
        let unsent = Exchange { sent: None, ..without_answer(0) };
        let unreceived = Exchange { received: None, ..exchange(1, 1) };
        let found = records(&[unsent, unreceived], 20 * MS, LatePolicy::Publish);
        assert_eq!((found[0].outcome, found[0].ended_in), (BenchOutcome::Lost, Some(LatencyStage::Arrival)));
        assert_eq!((found[1].outcome, found[1].ended_in), (BenchOutcome::Lost, Some(LatencyStage::Delivery)));
    }

    #[test]
    fn a_frame_that_the_node_dropped_is_dropped_late() {
        let mut dropped = exchange(0, 1);
        dropped.received = None;
        dropped.timing.as_mut().unwrap().dropped_late = true;
        let found = records(&[dropped], 20 * MS, LatePolicy::Drop);
        assert_eq!((found[0].outcome, found[0].latency()), (BenchOutcome::DroppedLate, None));
    }

    #[test]
    fn detections_received_before_publish_returns_end_the_latency() {
        let mut early = exchange(0, 1);
        early.timing.as_mut().unwrap().publish = EPOCH + 19 * MS as i64;
        let record = records(&[early], 20 * MS, LatePolicy::Publish)[0];
        let stages = [LatencyStage::Publish, LatencyStage::Delivery].map(|stage| record.stage(stage).unwrap() / MS);
        assert_eq!((stages, record.latency()), ([3, 0], Some(17 * MS)));
    }

    #[test]
    fn a_slow_publish_is_its_own_stage_and_counts_in_the_verdict() {
        let mut slow = exchange(0, 1);
        slow.timing.as_mut().unwrap().publish = EPOCH + 30 * MS as i64;
        slow.received = Some(slow.scheduled + 31 * MS);
        let record = records(&[slow], 20 * MS, LatePolicy::Publish)[0];
        assert_eq!((record.outcome, record.stage(LatencyStage::Publish)), (BenchOutcome::Late, Some(16 * MS)));
    }

    #[test]
    fn a_clock_that_runs_ahead_gives_no_negative_stage() {
        let mut odd = exchange(0, 1);
        odd.timing.as_mut().unwrap().preprocess_end = EPOCH - 5;
        let record = records(&[odd], 20 * MS, LatePolicy::Publish)[0];
        assert_eq!(record.stage(LatencyStage::Preprocess), Some(0));
        assert_eq!(LatencyStage::ALL.iter().map(|&s| record.stage(s).unwrap()).sum::<u64>(), 17 * MS);
    }
}
