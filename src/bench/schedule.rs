//! Frames sent on a schedule, and a record of what became of each.
//!
//! The open loop sends frame *i* at its own instant whether or not the worker is ready, as a camera does, and counts
//! latency from that instant: a stall then shows in every frame that it delays, not only in the one that it hit
//! (the error that is called coordinated omission). Between camera and worker stand the same [`LatestSlot`] and
//! [`Ledger`] as in the node.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use super::profile::{LatePolicy, Profile};
use crate::pipeline::{now_ns, Counts, LatestSlot, Ledger, Outcome, StageTimes};

/// Time for both threads to be ready before the first frame.
const LEAD_NS: u64 = 20_000_000;

/// How long the worker waits before it looks whether the camera has ended.
const PATIENCE: Duration = Duration::from_millis(20);

/// Where the time of a frame goes, in the order in which it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the scheduled instant to the slot: the camera thread woke late.
    Arrival,
    /// In the slot: the worker was busy, or woke late.
    Wait,
    Preprocess,
    Inference,
    Decode,
}

impl Stage {
    pub const ALL: [Self; 5] = [Self::Arrival, Self::Wait, Self::Preprocess, Self::Inference, Self::Decode];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Wait => "wait",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
            Self::Decode => "decode",
        }
    }
}

/// Time stamps of a frame that was processed, by [`now_ns`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Put into the slot.
    pub arrived: u64,
    /// Taken out of it.
    pub taken: u64,
    pub stages: StageTimes,
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord {
    /// From 0, in the order of the schedule.
    pub index: usize,
    /// When the frame was due from the camera.
    pub scheduled: u64,
    pub outcome: Outcome,
    /// None unless it was processed.
    pub passage: Option<Passage>,
}

impl FrameRecord {
    /// Whether there was no result in time, for whatever reason.
    pub fn missed(&self) -> bool {
        self.outcome != Outcome::OnTime
    }

    /// Whether its result was published, in time or not.
    pub fn has_result(&self) -> bool {
        matches!(self.outcome, Outcome::OnTime | Outcome::Late)
    }

    /// Nanoseconds from the scheduled instant to the published result.
    pub fn latency(&self) -> Option<u64> {
        self.until_decoded().filter(|_| self.has_result())
    }

    /// Nanoseconds from the arrival in the slot to the published result.
    pub fn latency_from_arrival(&self) -> Option<u64> {
        self.passage.filter(|_| self.has_result()).map(|p| p.stages.decode_end.saturating_sub(p.arrived))
    }

    /// Nanoseconds from the scheduled instant to the end of decoding, whether or not the result was then published.
    pub fn until_decoded(&self) -> Option<u64> {
        self.passage.map(|p| p.stages.decode_end.saturating_sub(self.scheduled))
    }

    /// Nanoseconds that each stage took.
    pub fn stage(&self, stage: Stage) -> Option<u64> {
        self.passage.map(|p| match stage {
            Stage::Arrival => p.arrived.saturating_sub(self.scheduled),
            Stage::Wait => p.stages.preprocess_start.saturating_sub(p.arrived),
            Stage::Preprocess => p.stages.preprocess(),
            Stage::Inference => p.stages.inference(),
            Stage::Decode => p.stages.decode(),
        })
    }
}

/// A finished measurement: one record a frame, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub records: Vec<FrameRecord>,
    pub counts: Counts,
    /// Nanoseconds from the first frame's instant to the end.
    pub elapsed: u64,
}

/// The frames' instants.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: u64,
    period: f64,
    frames: usize,
}

impl Schedule {
    /// `profile.frames` instants from `start` on.
    pub fn new(profile: &Profile, start: u64) -> Self {
        Self { start, period: profile.period_ns(), frames: profile.frames }
    }

    fn instant(&self, index: usize) -> u64 {
        self.start + (index as f64 * self.period) as u64
    }
}

/// A frame on its way to the worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    index: usize,
    scheduled: u64,
    arrived: u64,
}

/// Puts frames into the slot as they fall due.
pub(super) struct Camera<'a> {
    pub schedule: Schedule,
    pub slot: &'a LatestSlot<Frame>,
    pub ledger: &'a Ledger,
    pub next: usize,
}

impl Camera<'_> {
    /// When the next frame is due; none after the last.
    pub fn next_instant(&self) -> Option<u64> {
        (self.next < self.schedule.frames).then(|| self.schedule.instant(self.next))
    }

    /// Sends every frame that is due by `now`.
    pub fn send_due(&mut self, now: u64) {
        while let Some(scheduled) = self.next_instant().filter(|&instant| instant <= now) {
            self.ledger.arrive();
            if self.slot.put(Frame { index: self.next, scheduled, arrived: now }).is_some() {
                self.ledger.end(Outcome::Superseded);
            }
            self.next += 1;
        }
    }
}

/// What the worker does with a frame.
pub trait Work {
    /// Processes frame `index` and says when it passed each stage; none where that failed.
    fn process(&mut self, index: usize) -> Option<StageTimes>;
}

/// Where the worker's frames come from, with the time at which each is taken; none after the last.
pub(super) trait Feed {
    fn next(&mut self) -> Option<(Frame, u64)>;
}

/// The worker's loop: takes frames until there are no more, and records and counts what becomes of them.
pub(super) fn serve(
    feed: &mut impl Feed,
    work: &mut impl Work,
    profile: &Profile,
    ledger: &Ledger,
) -> Vec<FrameRecord> {
    let deadline = profile.deadline_ns();
    let mut records = Vec::with_capacity(profile.frames);
    while let Some((Frame { index, scheduled, arrived }, taken)) = feed.next() {
        let drop = profile.late == LatePolicy::Drop;
        let (outcome, stages) = if drop && taken - scheduled > deadline {
            (Outcome::DroppedLate, None)
        } else {
            match work.process(index) {
                None => (Outcome::Rejected, None),
                Some(stages) if stages.decode_end - scheduled <= deadline => (Outcome::OnTime, Some(stages)),
                Some(stages) => (if drop { Outcome::DroppedLate } else { Outcome::Late }, Some(stages)),
            }
        };
        ledger.end(outcome);
        let passage = stages.map(|stages| Passage { arrived, taken, stages });
        records.push(FrameRecord { index, scheduled, outcome, passage });
    }
    records
}

/// Adds a record for each frame that never reached the worker.
pub(super) fn with_superseded(taken: Vec<FrameRecord>, schedule: Schedule) -> Vec<FrameRecord> {
    let mut taken = taken.into_iter().peekable();
    let record = |index| {
        taken.next_if(|record| record.index == index).unwrap_or(FrameRecord {
            index,
            scheduled: schedule.instant(index),
            outcome: Outcome::Superseded,
            passage: None,
        })
    };
    (0..schedule.frames).map(record).collect()
}

/// Runs the profile's schedule in real time. `ledger` may be watched from another thread meanwhile.
pub fn open_loop(profile: &Profile, work: &mut impl Work, ledger: &Ledger) -> Run {
    let slot = LatestSlot::new();
    let ended = AtomicBool::new(false);
    let schedule = Schedule::new(profile, now_ns() + LEAD_NS);
    let records = thread::scope(|scope| {
        scope.spawn(|| {
            let mut camera = Camera { schedule, slot: &slot, ledger, next: 0 };
            while let Some(instant) = camera.next_instant() {
                thread::sleep(Duration::from_nanos(instant.saturating_sub(now_ns())));
                camera.send_due(now_ns());
            }
            ended.store(true, Ordering::Release);
        });
        serve(&mut SlotFeed { slot: &slot, ended: &ended }, work, profile, ledger)
    });
    let elapsed = now_ns() - schedule.start;
    Run { records: with_superseded(records, schedule), counts: ledger.counts(), elapsed }
}

struct SlotFeed<'a> {
    slot: &'a LatestSlot<Frame>,
    ended: &'a AtomicBool,
}

impl Feed for SlotFeed<'_> {
    fn next(&mut self) -> Option<(Frame, u64)> {
        loop {
            // Looked at before the slot: once it says so, nothing comes after what the slot holds.
            let ended = self.ended.load(Ordering::Acquire);
            match self.slot.take_timeout(PATIENCE) {
                Some(frame) => return Some((frame, now_ns())),
                None if ended => return None,
                None => {}
            }
        }
    }
}

/// Processes the profile's number of frames back to back: the throughput, and nothing about a camera's frames, since
/// here a slow frame delays the next one's start instead of making it late.
pub fn closed_loop(profile: &Profile, work: &mut impl Work, ledger: &Ledger) -> Run {
    struct BackToBack<'a>(std::ops::Range<usize>, &'a Ledger);
    impl Feed for BackToBack<'_> {
        fn next(&mut self) -> Option<(Frame, u64)> {
            let index = self.0.next()?;
            self.1.arrive();
            let now = now_ns();
            Some((Frame { index, scheduled: now, arrived: now }, now))
        }
    }
    let start = now_ns();
    let records = serve(&mut BackToBack(0..profile.frames, ledger), work, profile, ledger);
    Run { records, counts: ledger.counts(), elapsed: now_ns() - start }
}
