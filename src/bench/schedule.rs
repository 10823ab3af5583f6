//! Frames sent on a schedule, and a record of what became of each.
//!
//! The open loop sends frame *i* at its own instant whether or not the worker is ready, as a camera does, and counts
//! latency from that instant: a stall then shows in every frame that it delays, not only in the one that it hit
//! (the error that is called coordinated omission). Between camera and worker stand the same [`LatestSlot`] and
//! [`FrameAccounting`] as in the node.
//!
//! ```text
//!   camera thread ──▶ slot ──▶ worker thread ──▶ queue ──▶ calling thread      one camera and worker, or several
//!    (timetable)    (newest      (serve)        (records)   (observer, watch over a worker that is stuck)
//!                     wins)
//! ```

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use peregrine_core::{now_ns, FrameAccounting, FrameOutcome, LatestSlot};
use peregrine_pipeline::StageTimes;

use super::profile::{LatePolicy, Profile};
use super::progress::Progress;
use super::record::{Fate, FrameCost, FrameRecord, Layer, Passage, Run};
use super::timetable::Timetable;

/// Time for all threads to be ready before the first frame.
const LEAD_NS: u64 = 20_000_000;

/// How long the worker waits before it looks whether the camera has ended.
const PATIENCE: Duration = Duration::from_millis(20);

/// How often records are taken from the workers.
const TICK: Duration = Duration::from_millis(50);

/// Longest sleep of a camera before it looks whether the run is to stop.
const LONGEST_SLEEP: u64 = 50_000_000;

/// What is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    pub layer: Layer,
    pub profile: Profile,
    pub timetable: Timetable,
    /// The first frame that no camera sends, where a fault is to have them fall silent.
    pub dropped_from: Option<usize>,
    /// Set from outside, as by Ctrl-C, to end the run before its time.
    pub stop: Arc<AtomicBool>,
}

impl Plan {
    /// The profile's frames, a period apart.
    ///
    /// # Panics
    /// Never: a fixed schedule is always possible.
    pub fn fixed(layer: Layer, profile: &Profile) -> Self {
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

/// Sees records as they come, on the thread that called; the measured threads are never held up by it.
pub trait Observer {
    fn frame(&mut self, _: &FrameRecord) {}
    /// Called about every 50 ms.
    fn tick(&mut self) {}
}

impl Observer for () {}

/// What the worker does with a frame.
pub trait Work {
    /// Processes frame `index` and says when it passed each stage; none where that failed.
    fn process(&mut self, index: usize) -> Option<StageTimes>;

    /// What the last frame cost.
    fn cost(&self) -> FrameCost {
        FrameCost::default()
    }

    /// Where it tells what it is at.
    fn progress(&self) -> Arc<Progress> {
        Arc::default()
    }
}

impl Work for BoxedWork {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        (**self).process(index)
    }

    fn cost(&self) -> FrameCost {
        (**self).cost()
    }

    fn progress(&self) -> Arc<Progress> {
        (**self).progress()
    }
}

/// Work that a worker's thread can take over.
pub type BoxedWork = Box<dyn Work + Send>;

/// A frame on its way to the worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    index: usize,
    scheduled: u64,
    arrived: u64,
}

/// Puts frames into the slot as they fall due.
pub(super) struct Camera<'a> {
    pub plan: &'a Plan,
    pub start: u64,
    pub slot: &'a LatestSlot<Frame>,
    pub ledger: &'a FrameAccounting,
    pub next: usize,
}

impl Camera<'_> {
    /// When the next frame is due; none after the last.
    pub fn next_instant(&self) -> Option<u64> {
        self.plan.timetable.offset(self.next).map(|offset| self.start + offset)
    }

    /// Sends every frame that is due by `now`.
    pub fn send_due(&mut self, now: u64) {
        while let Some(scheduled) = self.next_instant().filter(|&instant| instant <= now) {
            if self.plan.dropped_from.is_none_or(|first| self.next < first) {
                self.ledger.arrive();
                if self.slot.put(Frame { index: self.next, scheduled, arrived: now }).is_some() {
                    self.ledger.end(FrameOutcome::Superseded);
                }
            }
            self.next += 1;
        }
    }
}

/// Where the worker's frames come from, with the time at which each is taken; none after the last.
pub(super) trait Feed {
    fn next(&mut self) -> Option<(Frame, u64)>;
}

/// The worker's loop: takes frames until there are no more, and records and counts what becomes of them.
pub(super) fn serve(
    feed: &mut impl Feed,
    work: &mut impl Work,
    (camera, profile): (usize, &Profile),
    ledger: &FrameAccounting,
    mut record: impl FnMut(FrameRecord),
) {
    let deadline = profile.deadline_ns();
    let drop = profile.late == LatePolicy::Drop;
    let progress = work.progress();
    while let Some((Frame { index, scheduled, arrived }, taken)) = feed.next() {
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
        ledger.end(outcome);
        let passage = stages.map(|stages| Passage::in_process(arrived, &stages));
        let cost = if stages.is_some() { work.cost() } else { FrameCost::default() };
        record(FrameRecord { camera, index, scheduled, fate: outcome.into(), passage, ended_in: None, cost });
        progress.end();
    }
}

/// A record for each of the first `due` frames: those that the worker `taken` took, and what became of the others.
pub(super) fn complete(
    taken: Vec<FrameRecord>,
    camera: usize,
    due: usize,
    plan: &Plan,
    start: u64,
) -> Vec<FrameRecord> {
    let mut taken = taken.into_iter().peekable();
    let record = |index| {
        taken.next_if(|record| record.index == index).unwrap_or_else(|| {
            let sent = plan.dropped_from.is_none_or(|first| index < first);
            let fate = if sent { Fate::Superseded } else { Fate::Lost };
            FrameRecord::unprocessed(camera, index, start + plan.timetable.offset(index).unwrap_or(0), fate)
        })
    };
    (0..due).map(record).collect()
}

/// One camera with its worker, while they run.
struct Lane {
    camera: JoinHandle<()>,
    worker: JoinHandle<()>,
    shared: Arc<Shared>,
    progress: Arc<Progress>,
    records: Vec<FrameRecord>,
}

/// What the threads of a lane share.
struct Shared {
    slot: LatestSlot<Frame>,
    ledger: FrameAccounting,
    /// Frames that have fallen due.
    due: AtomicUsize,
    camera_ended: AtomicBool,
    records: ArrayQueue<FrameRecord>,
}

impl Lane {
    fn start(number: usize, mut work: BoxedWork, plan: &Plan, start: u64) -> Self {
        let frames = plan.timetable.len();
        let shared = Arc::new(Shared {
            slot: LatestSlot::new(),
            ledger: FrameAccounting::new(),
            due: AtomicUsize::new(0),
            camera_ended: AtomicBool::new(false),
            records: ArrayQueue::new(frames.max(1)),
        });
        let progress = work.progress();
        let camera = thread::spawn({
            let (shared, plan) = (Arc::clone(&shared), plan.clone());
            move || {
                let mut camera = Camera { plan: &plan, start, slot: &shared.slot, ledger: &shared.ledger, next: 0 };
                while let Some(instant) = camera.next_instant().filter(|_| !plan.stop.load(Ordering::Relaxed)) {
                    let wait = instant.saturating_sub(now_ns());
                    thread::sleep(Duration::from_nanos(wait.min(LONGEST_SLEEP)));
                    camera.send_due(now_ns());
                    shared.due.store(camera.next, Ordering::Release);
                }
                shared.camera_ended.store(true, Ordering::Release);
            }
        });
        let worker = thread::spawn({
            let (shared, profile) = (Arc::clone(&shared), plan.profile.clone());
            move || {
                let mut feed = SlotFeed { slot: &shared.slot, ended: &shared.camera_ended };
                // There is room for every frame.
                let record = |record| {
                    let _ = shared.records.push(record);
                };
                serve(&mut feed, &mut work, (number, &profile), &shared.ledger, record);
            }
        });
        let mut records = vec![FrameRecord::unprocessed(0, 0, 0, Fate::Lost); frames];
        // Touched now, so that no page of them is asked for while frames are measured.
        records.clear();
        Self { camera, worker, shared, progress, records }
    }

    fn collect(&mut self, observer: &mut impl Observer) {
        while let Some(record) = self.shared.records.pop() {
            observer.frame(&record);
            self.records.push(record);
        }
    }

    /// The frame whose work has taken longer than `patience`, or whose worker died of it.
    fn stuck(&self, patience: u64) -> Option<usize> {
        let (frame, since) = self.progress.in_work()?;
        (self.worker.is_finished() || now_ns().saturating_sub(since) > patience).then_some(frame)
    }

    fn has_ended(&self) -> bool {
        self.camera.is_finished() && self.worker.is_finished()
    }
}

/// Runs the plan in real time, with a camera of its own for each of `works`. Work that gets stuck ends the run; its
/// thread is left behind.
pub fn open_loop(plan: &Plan, works: Vec<BoxedWork>, observer: &mut impl Observer) -> Run {
    let start = now_ns() + LEAD_NS;
    let mut lanes: Vec<_> =
        works.into_iter().enumerate().map(|(number, work)| Lane::start(number, work, plan, start)).collect();
    let patience = plan.profile.stuck_ns();
    let mut stuck = false;
    while !stuck && !lanes.iter().all(Lane::has_ended) {
        thread::sleep(TICK);
        lanes.iter_mut().for_each(|lane| lane.collect(observer));
        observer.tick();
        stuck = lanes.iter().any(|lane| lane.stuck(patience).is_some());
    }
    let interrupted = plan.stop.load(Ordering::Relaxed).then_some(plan.timetable.len());
    // For the cameras of a run that got stuck.
    plan.stop.store(stuck || interrupted.is_some(), Ordering::Relaxed);
    let elapsed = now_ns().saturating_sub(start);
    let mut records = vec![];
    for (number, mut lane) in lanes.into_iter().enumerate() {
        let stuck = lane.stuck(patience).map(|frame| (frame, lane.progress.stage()));
        if lane.camera.join().is_err() {
            eprintln!("note: the camera's thread has panicked; its message is above");
        }
        while let Some(record) = lane.shared.records.pop() {
            lane.records.push(record);
        }
        if let Some((index, stage)) = stuck {
            let scheduled = start + plan.timetable.offset(index).unwrap_or(0);
            let record = FrameRecord::unprocessed(number, index, scheduled, Fate::Unfinished);
            lane.records.push(FrameRecord { ended_in: Some(stage), ..record });
        }
        let due = lane.shared.due.load(Ordering::Acquire);
        records.extend(complete(lane.records, number, due, plan, start));
    }
    Run { layer: plan.layer, records, elapsed, interrupted }
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

/// Processes the plan's number of frames back to back: the throughput, and nothing about a camera's frames, since
/// here a slow frame delays the next one's start instead of making it late.
pub fn closed_loop(plan: &Plan, work: &mut impl Work, observer: &mut impl Observer) -> Run {
    struct BackToBack<'a>(std::ops::Range<usize>, &'a Plan, &'a FrameAccounting);
    impl Feed for BackToBack<'_> {
        fn next(&mut self) -> Option<(Frame, u64)> {
            let index = self.0.next().filter(|_| !self.1.stop.load(Ordering::Relaxed))?;
            self.2.arrive();
            let now = now_ns();
            Some((Frame { index, scheduled: now, arrived: now }, now))
        }
    }
    let (start, frames, ledger) = (now_ns(), plan.timetable.len(), FrameAccounting::new());
    let mut records = Vec::with_capacity(frames);
    let mut last_tick = start;
    serve(&mut BackToBack(0..frames, plan, &ledger), work, (0, &plan.profile), &ledger, |record| {
        observer.frame(&record);
        records.push(record);
        if now_ns() - last_tick > TICK.as_nanos() as u64 {
            last_tick = now_ns();
            observer.tick();
        }
    });
    let interrupted = plan.stop.load(Ordering::Relaxed).then_some(frames);
    Run { layer: plan.layer, records, elapsed: now_ns() - start, interrupted }
}
