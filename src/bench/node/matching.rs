//! From what was sent, what was received, and what the node's `FrameTiming` tells, to a record of each frame.

use crate::record::{Fate, FrameCost, FrameRecord, Passage, Stage, STAGES};
use crate::LatePolicy;

/// What a `FrameTiming` says of a frame: ROS time in nanoseconds, 0 for a step not reached.
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
    /// Whether it was dropped for being late, so that no detections follow.
    pub dropped_late: bool,
}

/// One frame as this process saw it. Instants by [`peregrine_core::now_ns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exchange {
    pub scheduled: u64,
    /// The image's stamp: ROS time at the scheduled instant, nanoseconds. Frames are told apart by it.
    pub stamp: i64,
    /// When publishing it began; none where it was not sent.
    pub sent: Option<u64>,
    pub timing: Option<NodeTiming>,
    /// When the detections were received, and how many there were.
    pub received: Option<u64>,
    pub detections: usize,
}

/// A record of each frame. `deadline` in nanoseconds counts from the scheduled instant to the received detections.
///
/// Frames of which the node tells nothing were superseded there or lost on the way; `sequence`, which counts arrivals,
/// says how many of either, and the earlier ones are taken for the lost ones.
pub fn records(exchanges: &[Exchange], deadline: u64, late: LatePolicy) -> Vec<FrameRecord> {
    let mut records: Vec<_> =
        exchanges.iter().enumerate().map(|(index, exchange)| record(index, exchange, deadline, late)).collect();
    tell_superseded_from_lost(&mut records, exchanges);
    records
}

fn record(index: usize, exchange: &Exchange, deadline: u64, late: LatePolicy) -> FrameRecord {
    let scheduled = exchange.scheduled;
    let Some(sent) = exchange.sent else {
        let lost = FrameRecord::unprocessed(0, index, scheduled, Fate::Lost);
        return FrameRecord { ended_in: Some(Stage::Arrival), ..lost };
    };
    let passage = exchange.timing.map(|timing| passage(exchange, sent, &timing));
    let fate = match (exchange.received, exchange.timing) {
        (Some(received), _) if received.saturating_sub(scheduled) <= deadline => Fate::OnTime,
        (Some(_), _) => Fate::Late,
        (None, Some(timing)) if timing.dropped_late && late == LatePolicy::Drop => Fate::DroppedLate,
        // Published by the node, and never received.
        (None, _) => Fate::Lost,
    };
    let ended_in = (fate == Fate::Lost && passage.is_some()).then_some(Stage::Delivery);
    // Received without a word from the node on its stages: all of its time is then delivery's.
    let passage = passage.or(exchange.received.map(|received| {
        let mut ends = [sent; STAGES];
        ends[STAGES - 1] = received;
        Passage { ends }
    }));
    FrameRecord { camera: 0, index, scheduled, fate, passage, ended_in, cost: FrameCost::default() }
}

fn passage(exchange: &Exchange, sent: u64, timing: &NodeTiming) -> Passage {
    let here = |ros: i64| if ros == 0 { 0 } else { exchange.scheduled.saturating_add_signed(ros - exchange.stamp) };
    let mut ends = [
        sent,
        here(timing.arrival),
        here(timing.preprocess_start),
        here(timing.preprocess_end),
        here(timing.inference_end),
        here(timing.decode_end),
        here(timing.track_end),
        here(timing.publish),
        exchange.received.unwrap_or(0),
    ];
    // A step that was not reached, or that another clock puts before the one it follows, takes no time.
    for stage in 1..STAGES {
        ends[stage] = ends[stage].max(ends[stage - 1]);
    }
    Passage { ends }
}

fn tell_superseded_from_lost(records: &mut [FrameRecord], exchanges: &[Exchange]) {
    let mut told_before: Option<u64> = None;
    let mut untold = vec![];
    for (index, exchange) in exchanges.iter().enumerate() {
        match exchange.timing {
            Some(timing) => {
                let arrived = match told_before {
                    Some(before) => timing.sequence.saturating_sub(before + 1) as usize,
                    // Warm-up came before the first: no more is known than that there was no gap to fill.
                    None => untold.len(),
                };
                mark_superseded(records, &mut untold, arrived);
                told_before = Some(timing.sequence);
            }
            None if exchange.sent.is_some() && exchange.received.is_none() => untold.push(index),
            None => {}
        }
    }
}

/// The last `arrived` of the frames `untold` did arrive.
fn mark_superseded(records: &mut [FrameRecord], untold: &mut Vec<usize>, arrived: usize) {
    let first = untold.len().saturating_sub(arrived);
    untold.drain(..).skip(first).for_each(|index| records[index].fate = Fate::Superseded);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const EPOCH: i64 = 1_700_000_000_000_000_000;

    /// Frame `index` of a 10 Hz camera: 1 ms late from the camera, 2 in the middleware, 1 waiting, 3, 5, 2, 0 and 1 in the
    /// node, 2 on the way back.
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

    fn fates(exchanges: &[Exchange]) -> Vec<Fate> {
        records(exchanges, 20 * MS, LatePolicy::Publish).iter().map(|r| r.fate).collect()
    }

    #[test]
    fn the_split_adds_up_to_the_latency() {
        let record = records(&[exchange(0, 9)], 20 * MS, LatePolicy::Publish)[0];
        let stages = Stage::ALL.map(|stage| record.stage(stage).unwrap() / MS);
        assert_eq!(stages, [1, 2, 1, 3, 5, 2, 0, 1, 2]);
        assert_eq!((record.fate, record.latency()), (Fate::OnTime, Some(17 * MS)));
    }

    #[test]
    fn the_deadline_counts_to_the_received_detections() {
        let late = records(&[exchange(0, 1)], 16 * MS, LatePolicy::Publish)[0];
        assert_eq!(late.fate, Fate::Late);
    }

    #[test]
    fn gaps_are_superseded_where_the_node_counted_arrivals_and_lost_where_not() {
        let frames =
            [exchange(0, 5), without_answer(1), without_answer(2), exchange(3, 7), without_answer(4), exchange(5, 8)];
        use Fate::{Lost, OnTime, Superseded};
        assert_eq!(fates(&frames), [OnTime, Lost, Superseded, OnTime, Lost, OnTime]);
        assert_eq!(fates(&[exchange(0, 5), without_answer(1)]), [OnTime, Lost]);
    }

    #[test]
    fn what_was_not_sent_is_laid_at_the_camera_and_what_was_not_received_at_the_delivery() {
        let unsent = Exchange { sent: None, ..without_answer(0) };
        let unreceived = Exchange { received: None, ..exchange(1, 1) };
        let found = records(&[unsent, unreceived], 20 * MS, LatePolicy::Publish);
        assert_eq!((found[0].fate, found[0].ended_in), (Fate::Lost, Some(Stage::Arrival)));
        assert_eq!((found[1].fate, found[1].ended_in), (Fate::Lost, Some(Stage::Delivery)));
    }

    #[test]
    fn a_frame_that_the_node_dropped_for_being_late_is_told_so() {
        let mut dropped = exchange(0, 1);
        dropped.received = None;
        dropped.timing.as_mut().unwrap().dropped_late = true;
        let found = records(&[dropped], 20 * MS, LatePolicy::Drop);
        assert_eq!((found[0].fate, found[0].latency()), (Fate::DroppedLate, None));
    }

    #[test]
    fn a_clock_that_runs_ahead_makes_no_negative_stage() {
        let mut odd = exchange(0, 1);
        odd.timing.as_mut().unwrap().preprocess_end = EPOCH - 5;
        let record = records(&[odd], 20 * MS, LatePolicy::Publish)[0];
        assert_eq!(record.stage(Stage::Preprocess), Some(0));
        assert_eq!(Stage::ALL.iter().map(|&s| record.stage(s).unwrap()).sum::<u64>(), 17 * MS);
    }
}
