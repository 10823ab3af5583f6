//! Frames sent on a schedule, and a record of each.
//!
//! The open loop sends frame *i* at its scheduled instant whether or not the worker is ready, as a
//! camera does, and measures latency from that instant. A stall then shows in every frame that it
//! delays and not only in the one that it hit, which avoids coordinated omission. Each camera has a
//! [`LatestSlot`], which keeps the newest frame, as the node's [`peregrine_core::FrameMailbox`]
//! does for each of its cameras, and the node's [`FrameAccounting`].
//!
//! ```text
//!   camera thread ──▶ slot ──▶ worker thread ──▶ queue ──▶ calling thread     (per camera)
//!    (timetable)    (keeps       (serve)        (records)   (observer, detection of stuck workers)
//!                    newest)
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use peregrine_core::{now_ns, FrameAccounting, FrameOutcome, LatestSlot};
use peregrine_pipeline::StageTimes;

use super::profile::{DeadlineProfile, LatePolicy};
use super::progress::WorkerProgress;
use super::record::{BenchLayer, BenchOutcome, BenchRun, FrameCost, FrameRecord, StageTimestamps};
use super::timetable::Timetable;

/// Time for all threads to be ready before the first frame.
const LEAD_NS: u64 = 20_000_000;

/// How often a waiting worker checks whether the camera has ended.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How often records are collected from the workers.
const TICK: Duration = Duration::from_millis(50);

/// How often a sleeping camera thread checks whether to stop, in nanoseconds.
const MAX_SLEEP_NS: u64 = 50_000_000;

/// A run to be measured.
#[derive(Debug, Clone)]
pub struct RunPlan {
    pub layer: BenchLayer,
    pub profile: DeadlineProfile,
    pub timetable: Timetable,
    /// The first frame that the cameras do not send, if a fault silences them.
    pub dropped_from: Option<usize>,
    /// Set to interrupt the run, as by Ctrl-C.
    pub stop: Arc<AtomicBool>,
}

impl RunPlan {
    /// The profile's frames at its fixed rate.
    ///
    /// # Panics
    /// Never: only a trace can be invalid.
    pub fn fixed(layer: BenchLayer, profile: &DeadlineProfile) -> Self {
        let timetable = Timetable::new(&Default::default(), profile.frames, profile.period_ns());
        Self {
            layer,
            profile: profile.clone(),
            timetable: timetable.expect("no trace is read"),
            dropped_from: None,
            stop: Arc::default(),
        }
    }
}

/// Receives records during a run, on the calling thread; it never delays the measured threads.
pub trait Observer {
    /// A frame's record has arrived.
    fn frame(&mut self, _: &FrameRecord) {}
    /// Called about every 50 ms.
    fn tick(&mut self) {}
}

impl Observer for () {}

/// The work that is measured for each frame.
pub trait Workload {
    /// Processes frame `index`; returns the end of each stage, or `None` if it failed.
    fn process(&mut self, index: usize) -> Option<StageTimes>;

    /// Cost of the last frame.
    fn cost(&self) -> FrameCost {
        FrameCost::default()
    }

    /// Where it publishes its progress.
    fn progress(&self) -> Arc<WorkerProgress> {
        Arc::default()
    }
}

impl Workload for BoxedWorkload {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        (**self).process(index)
    }

    fn cost(&self) -> FrameCost {
        (**self).cost()
    }

    fn progress(&self) -> Arc<WorkerProgress> {
        (**self).progress()
    }
}

/// A workload that can be moved to a worker thread.
pub type BoxedWorkload = Box<dyn Workload + Send>;

/// A frame on its way to a worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct QueuedFrame {
    index: usize,
    scheduled: u64,
    arrived: u64,
}

/// A simulated camera: puts frames into the slot when they are due.
pub(super) struct ScheduledCamera<'a> {
    pub plan: &'a RunPlan,
    pub start: u64,
    pub slot: &'a LatestSlot<QueuedFrame>,
    pub accounting: &'a FrameAccounting,
    pub next: usize,
}

impl ScheduledCamera<'_> {
    /// When the next frame is due. `None` after the last one.
    pub fn next_instant(&self) -> Option<u64> {
        self.plan.timetable.offset(self.next).map(|offset| self.start + offset)
    }

    /// Sends every frame that is due by `now`.
    pub fn send_due(&mut self, now: u64) {
        while let Some(scheduled) = self.next_instant().filter(|&instant| instant <= now) {
            if self.plan.dropped_from.is_none_or(|first| self.next < first) {
                self.accounting.arrive();
                if self.slot.put(QueuedFrame { index: self.next, scheduled, arrived: now }).is_some() {
                    self.accounting.end(FrameOutcome::Superseded);
                }
            }
            self.next += 1;
        }
    }
}

/// Source of a worker's frames, each with the instant at which it was taken. `None` after the last
/// one.
pub(super) trait FrameSource {
    fn next(&mut self) -> Option<(QueuedFrame, u64)>;
}

/// The worker loop: takes frames until the source ends, and records and counts their outcomes.
pub(super) fn serve(
    feed: &mut impl FrameSource,
    work: &mut impl Workload,
    (camera, profile): (usize, &DeadlineProfile),
    accounting: &FrameAccounting,
    mut record: impl FnMut(FrameRecord),
) {
    let deadline = profile.deadline_ns();
    let drop = profile.late == LatePolicy::Drop;
    let progress = work.progress();
    while let Some((QueuedFrame { index, scheduled, arrived }, taken)) = feed.next() {
        let (outcome, stages) = if drop && taken.saturating_sub(scheduled) > deadline {
            (FrameOutcome::DroppedLate, None)
        } else {
            progress.begin(index, taken);
            match work.process(index) {
                None => (FrameOutcome::Rejected, None),
                Some(stages) if stages.done().saturating_sub(scheduled) <= deadline => {
                    (FrameOutcome::OnTime, Some(stages))
                }
                Some(stages) => (if drop { FrameOutcome::DroppedLate } else { FrameOutcome::Late }, Some(stages)),
            }
        };
        accounting.end(outcome);
        let timestamps = stages.map(|stages| StageTimestamps::in_process(arrived, &stages));
        let cost = if stages.is_some() { work.cost() } else { FrameCost::default() };
        record(FrameRecord { camera, index, scheduled, outcome: outcome.into(), timestamps, ended_in: None, cost });
        progress.end();
    }
}

/// Completes the records of the frames that a worker took to one for each of the `due` frames: the
/// others were superseded, or not sent.
pub(super) fn complete(
    taken: Vec<FrameRecord>,
    camera: usize,
    due: usize,
    plan: &RunPlan,
    start: u64,
) -> Vec<FrameRecord> {
    let mut taken = taken.into_iter().peekable();
    let record = |index| {
        taken.next_if(|record| record.index == index).unwrap_or_else(|| {
            let sent = plan.dropped_from.is_none_or(|first| index < first);
            let outcome = if sent { BenchOutcome::Superseded } else { BenchOutcome::Lost };
            FrameRecord::unprocessed(camera, index, start + plan.timetable.offset(index).unwrap_or(0), outcome)
        })
    };
    (0..due).map(record).collect()
}

/// A camera and its worker while they run.
struct Lane {
    camera: JoinHandle<()>,
    worker: JoinHandle<()>,
    shared: Arc<LaneState>,
    progress: Arc<WorkerProgress>,
    records: Vec<FrameRecord>,
}

/// State shared by the threads of a [`Lane`].
struct LaneState {
    slot: LatestSlot<QueuedFrame>,
    accounting: FrameAccounting,
    /// Number of frames that have been due so far.
    due: AtomicUsize,
    camera_ended: AtomicBool,
    records: ArrayQueue<FrameRecord>,
}

impl Lane {
    fn start(number: usize, mut work: BoxedWorkload, plan: &RunPlan, start: u64) -> Self {
        let frames = plan.timetable.len();
        let shared = Arc::new(LaneState {
            slot: LatestSlot::new(),
            accounting: FrameAccounting::new(),
            due: AtomicUsize::new(0),
            camera_ended: AtomicBool::new(false),
            records: ArrayQueue::new(frames.max(1)),
        });
        let progress = work.progress();
        let camera = thread::spawn({
            let (shared, plan) = (Arc::clone(&shared), plan.clone());
            move || {
                let mut camera =
                    ScheduledCamera { plan: &plan, start, slot: &shared.slot, accounting: &shared.accounting, next: 0 };
                while let Some(instant) = camera.next_instant().filter(|_| !plan.stop.load(Ordering::Relaxed)) {
                    let wait = instant.saturating_sub(now_ns());
                    thread::sleep(Duration::from_nanos(wait.min(MAX_SLEEP_NS)));
                    camera.send_due(now_ns());
                    shared.due.store(camera.next, Ordering::Release);
                }
                shared.camera_ended.store(true, Ordering::Release);
            }
        });
        let worker = thread::spawn({
            let (shared, profile) = (Arc::clone(&shared), plan.profile.clone());
            move || {
                let mut feed = SlotSource { slot: &shared.slot, ended: &shared.camera_ended };
                // The queue has room for every frame.
                let record = |record| {
                    let _ = shared.records.push(record);
                };
                serve(&mut feed, &mut work, (number, &profile), &shared.accounting, record);
            }
        });
        let mut records = vec![FrameRecord::unprocessed(0, 0, 0, BenchOutcome::Lost); frames];
        // Written once, so that no page fault occurs during the measurement.
        records.clear();
        Self { camera, worker, shared, progress, records }
    }

    fn collect(&mut self, observer: &mut impl Observer) {
        while let Some(record) = self.shared.records.pop() {
            observer.frame(&record);
            self.records.push(record);
        }
    }

    /// The frame that has been in work for longer than `limit` ns, or whose worker panicked.
    fn stuck(&self, limit: u64) -> Option<usize> {
        let (frame, since) = self.progress.in_work()?;
        (self.worker.is_finished() || now_ns().saturating_sub(since) > limit).then_some(frame)
    }

    fn has_ended(&self) -> bool {
        self.camera.is_finished() && self.worker.is_finished()
    }
}

/// Runs the plan in real time with one camera per workload. A stuck worker ends the run; its thread
/// is abandoned.
pub fn open_loop(plan: &RunPlan, workloads: Vec<BoxedWorkload>, observer: &mut impl Observer) -> BenchRun {
    let start = now_ns() + LEAD_NS;
    let mut lanes: Vec<_> =
        workloads.into_iter().enumerate().map(|(number, work)| Lane::start(number, work, plan, start)).collect();
    let limit = plan.profile.stuck_ns();
    let mut stuck = false;
    while !stuck && !lanes.iter().all(Lane::has_ended) {
        thread::sleep(TICK);
        lanes.iter_mut().for_each(|lane| lane.collect(observer));
        observer.tick();
        stuck = lanes.iter().any(|lane| lane.stuck(limit).is_some());
    }
    let interrupted = plan.stop.load(Ordering::Relaxed).then_some(plan.timetable.len());
    // Also stops the cameras if a worker is stuck.
    plan.stop.store(stuck || interrupted.is_some(), Ordering::Relaxed);
    let elapsed = now_ns().saturating_sub(start);
    let mut records = vec![];
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let stuck = lane.stuck(limit).map(|frame| (frame, lane.progress.stage()));
        if lane.camera.join().is_err() {
            tracing::error!("a camera thread panicked; its message is above");
        }
        while let Some(record) = lane.shared.records.pop() {
            lane.records.push(record);
        }
        if let Some((index, stage)) = stuck {
            let scheduled = start + plan.timetable.offset(index).unwrap_or(0);
            let record = FrameRecord::unprocessed(number, index, scheduled, BenchOutcome::Unfinished);
            lane.records.push(FrameRecord { ended_in: Some(stage), ..record });
        }
        let due = lane.shared.due.load(Ordering::Acquire);
        records.extend(complete(lane.records, number, due, plan, start));
    }
    BenchRun { layer: plan.layer, records, elapsed, interrupted }
}

struct SlotSource<'a> {
    slot: &'a LatestSlot<QueuedFrame>,
    ended: &'a AtomicBool,
}

impl FrameSource for SlotSource<'_> {
    fn next(&mut self) -> Option<(QueuedFrame, u64)> {
        loop {
            // Read before the slot: once it is set, the slot holds the last frame.
            let ended = self.ended.load(Ordering::Acquire);
            match self.slot.take_timeout(POLL_INTERVAL) {
                Some(frame) => return Some((frame, now_ns())),
                None if ended => return None,
                None => {}
            }
        }
    }
}

/// Processes the plan's frames back to back. This measures throughput and not a camera's latency: a
/// slow frame delays the start of the next one instead of making it late.
pub fn closed_loop(plan: &RunPlan, work: &mut impl Workload, observer: &mut impl Observer) -> BenchRun {
    struct BackToBack<'a>(std::ops::Range<usize>, &'a RunPlan, &'a FrameAccounting);
    impl FrameSource for BackToBack<'_> {
        fn next(&mut self) -> Option<(QueuedFrame, u64)> {
            let index = self.0.next().filter(|_| !self.1.stop.load(Ordering::Relaxed))?;
            self.2.arrive();
            let now = now_ns();
            Some((QueuedFrame { index, scheduled: now, arrived: now }, now))
        }
    }
    let (start, frames, accounting) = (now_ns(), plan.timetable.len(), FrameAccounting::new());
    let mut records = Vec::with_capacity(frames);
    let mut last_tick = start;
    serve(&mut BackToBack(0..frames, plan, &accounting), work, (0, &plan.profile), &accounting, |record| {
        observer.frame(&record);
        records.push(record);
        if now_ns() - last_tick > TICK.as_nanos() as u64 {
            last_tick = now_ns();
            observer.tick();
        }
    });
    let interrupted = plan.stop.load(Ordering::Relaxed).then_some(frames);
    BenchRun { layer: plan.layer, records, elapsed: now_ns() - start, interrupted }
}
