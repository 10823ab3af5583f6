//! The open loop in simulated time, for deterministic tests: the camera, slot, accounting and
//! worker loop of [`schedule::open_loop`](super::schedule::open_loop) without threads.

use std::cell::Cell;

use peregrine_core::{FrameAccounting, LatestSlot};
use peregrine_pipeline::StageTimes;

use super::profile::DeadlineProfile;
use super::record::{BenchLayer, BenchOutcome, BenchRun, FrameRecord, LatencyStage};
use super::schedule::{complete, serve, FrameSource, QueuedFrame, RunPlan, ScheduledCamera, Workload};
use super::stall::{FOREVER, STALLABLE};

/// Milliseconds of preprocessing, inference and decoding.
pub type Durations = [u64; 3];

/// Runs the profile's schedule with a workload of the given duration per frame; `None` fails the
/// frame.
pub fn simulate(profile: &DeadlineProfile, mut durations: impl FnMut(usize) -> Option<Durations>) -> BenchRun {
    simulate_plan(&RunPlan::fixed(BenchLayer::Pipeline, profile), |frame| {
        Some(durations(frame)?.map(|ms| ms * 1_000_000))
    })
}

/// The same for any plan, in nanoseconds. A duration of [`FOREVER`] is a stuck worker.
pub fn simulate_plan(plan: &RunPlan, durations: impl FnMut(usize) -> Option<[u64; 3]>) -> BenchRun {
    let (now, accounting, slot) = (Cell::new(0), FrameAccounting::new(), LatestSlot::new());
    let camera = ScheduledCamera { plan, start: 0, slot: &slot, accounting: &accounting, next: 0 };
    let stuck = Cell::new(None);
    let mut work = SimulatedWork { durations, now: &now, stuck: &stuck };
    let mut records = vec![];
    let mut source = SimulatedSource { camera, now: &now, stuck: &stuck };
    serve(&mut source, &mut work, (0, &plan.profile), &accounting, |record| records.push(record));
    if let Some(stage) = stuck.get() {
        let last = records.last_mut().expect("the stuck frame is the last");
        *last = FrameRecord { outcome: BenchOutcome::Unfinished, timestamps: None, ended_in: Some(stage), ..*last };
    }
    let records = complete(records, 0, plan.timetable.len(), plan, 0);
    BenchRun { layer: plan.layer, records, elapsed: now.get(), interrupted: None }
}

/// A profile for tests: 100 Hz, 10 ms.
pub fn profile(frames: usize) -> DeadlineProfile {
    let mut profile = DeadlineProfile::load("ci").unwrap();
    (profile.rate_hz, profile.deadline_ms, profile.frames) = (100.0, 10.0, frames);
    profile
}

struct SimulatedSource<'a> {
    camera: ScheduledCamera<'a>,
    now: &'a Cell<u64>,
    stuck: &'a Cell<Option<LatencyStage>>,
}

impl FrameSource for SimulatedSource<'_> {
    fn next(&mut self) -> Option<(QueuedFrame, u64)> {
        if self.stuck.get().is_some() {
            return None;
        }
        self.send_due_one_by_one();
        if self.camera.slot.is_empty() {
            self.now.set(self.camera.next_instant()?);
            self.send_due_one_by_one();
        }
        Some((self.camera.slot.take()?, self.now.get()))
    }
}

impl SimulatedSource<'_> {
    /// Each at its own instant, as the camera thread would while the worker is busy.
    fn send_due_one_by_one(&mut self) {
        while let Some(instant) = self.camera.next_instant().filter(|&instant| instant <= self.now.get()) {
            self.camera.send_due(instant);
        }
    }
}

struct SimulatedWork<'a, F> {
    durations: F,
    now: &'a Cell<u64>,
    stuck: &'a Cell<Option<LatencyStage>>,
}

impl<F: FnMut(usize) -> Option<[u64; 3]>> Workload for SimulatedWork<'_, F> {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        let durations = (self.durations)(index)?;
        self.stuck.set(durations.iter().position(|&ns| ns == FOREVER).map(|stage| STALLABLE[stage]));
        let pass = |ns: u64| {
            // An hour is long after the last frame.
            self.now.set(self.now.get() + ns.min(3_600_000_000_000));
            self.now.get()
        };
        let preprocess_start = self.now.get();
        let [preprocess_end, inference_end, decode_end] = durations.map(pass);
        Some(StageTimes { preprocess_start, preprocess_end, inference_end, decode_end, ..StageTimes::default() })
    }
}

#[test]
fn a_fast_worker_is_on_time_for_every_frame() {
    let run = simulate(&profile(50), |_| Some([1, 5, 1]));
    assert!(run.records.iter().all(|r| !r.missed() && r.latency() == Some(7_000_000)));
    assert_eq!((run.tally().counts.arrived, run.tally().counts.on_time), (50, 50));
}

#[test]
fn a_stall_shows_in_every_frame_that_it_delays() {
    // 100 ms from frame 10 on: it is late, frames 11 to 19 are superseded, and frame 20 starts 7 ms
    // late.
    let run = simulate(&profile(50), |frame| Some([1, if frame == 10 { 100 } else { 5 }, 1]));
    let missed: Vec<_> = run.records.iter().filter(|r| r.missed()).map(|r| r.index).collect();
    assert_eq!(missed, (10..20).collect::<Vec<_>>());
    assert_eq!((run.tally().counts.late, run.tally().counts.superseded, run.tally().counts.on_time), (1, 9, 40));
    assert_eq!(run.records[20].latency(), Some(9_000_000));
}

#[test]
fn a_slow_worker_takes_the_newest_frame_each_time() {
    let run = simulate(&profile(100), |_| Some([1, 22, 2]));
    // Takes 25 ms a frame: at 0, 25, 50, … the newest frame is 0, 2, 5, 7, ….
    let taken: Vec<_> = run.records.iter().filter(|r| r.timestamps.is_some()).map(|r| r.index).take(5).collect();
    assert_eq!(taken, [0, 2, 5, 7, 10]);
    assert_eq!(run.tally().counts.on_time, 0);
    assert_eq!(run.tally().counts.in_flight, 0);
}

#[test]
fn the_drop_policy_drops_late_frames() {
    let profile = DeadlineProfile { late: super::profile::LatePolicy::Drop, rate_hz: 20.0, ..profile(20) };
    // QueuedFrame 3, due at 150 ms, ends at 237 ms: too late to be published. The slot then holds
    // frame 4, due at 200 ms, which is not begun.
    let run = simulate(&profile, |frame| Some([1, if frame == 3 { 85 } else { 5 }, 1]));
    assert_eq!((run.tally().counts.dropped_late, run.tally().counts.late, run.tally().counts.on_time), (2, 0, 18));
    assert_eq!((run.records[3].until_done(), run.records[3].latency()), (Some(87_000_000), None));
    assert_eq!(run.records[4].timestamps, None);
}

#[test]
fn a_failed_frame_is_rejected_and_a_miss() {
    let run = simulate(&profile(20), |frame| (frame != 3).then_some([1, 1, 1]));
    assert!(run.records[3].missed());
    assert_eq!((run.tally().counts.rejected, run.tally().counts.on_time), (1, 19));
}
