//! The open loop in simulated time, for tests that must not depend on a clock: the same camera, slot, ledger and
//! worker's loop as in [`schedule::open_loop`](super::schedule::open_loop), without threads.

use std::cell::Cell;

use peregrine_core::{FrameAccounting, LatestSlot};
use peregrine_pipeline::StageTimes;

use super::profile::Profile;
use super::record::{Fate, FrameRecord, Layer, Run, Stage};
use super::schedule::{complete, serve, Camera, Feed, Frame, Plan, Work};
use super::stall::{FOR_EVER, STALLABLE};

/// Milliseconds of preprocessing, inference and decoding.
pub type Durations = [u64; 3];

/// Runs the profile's schedule against work that takes what `durations` says for each frame; none fails.
pub fn simulate(profile: &Profile, mut durations: impl FnMut(usize) -> Option<Durations>) -> Run {
    simulate_plan(&Plan::fixed(Layer::Pipeline, profile), |frame| Some(durations(frame)?.map(|ms| ms * 1_000_000)))
}

/// The same for any plan, in nanoseconds. Work that takes for ever is given up as stuck.
pub fn simulate_plan(plan: &Plan, durations: impl FnMut(usize) -> Option<[u64; 3]>) -> Run {
    let (now, ledger, slot) = (Cell::new(0), FrameAccounting::new(), LatestSlot::new());
    let camera = Camera { plan, start: 0, slot: &slot, ledger: &ledger, next: 0 };
    let stuck = Cell::new(None);
    let mut work = SimulatedWork { durations, now: &now, stuck: &stuck };
    let mut records = vec![];
    let mut feed = SimulatedFeed { camera, now: &now, stuck: &stuck };
    serve(&mut feed, &mut work, (0, &plan.profile), &ledger, |record| records.push(record));
    if let Some(stage) = stuck.get() {
        let last = records.last_mut().expect("the stuck frame is the last");
        *last = FrameRecord { fate: Fate::Unfinished, passage: None, ended_in: Some(stage), ..*last };
    }
    let records = complete(records, 0, plan.timetable.len(), plan, 0);
    Run { layer: plan.layer, records, elapsed: now.get(), interrupted: None }
}

/// A profile for tests: 100 Hz, 10 ms.
pub fn profile(frames: usize) -> Profile {
    let mut profile = Profile::load("ci").unwrap();
    (profile.rate_hz, profile.deadline_ms, profile.frames) = (100.0, 10.0, frames);
    profile
}

struct SimulatedFeed<'a> {
    camera: Camera<'a>,
    now: &'a Cell<u64>,
    stuck: &'a Cell<Option<Stage>>,
}

impl Feed for SimulatedFeed<'_> {
    fn next(&mut self) -> Option<(Frame, u64)> {
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

impl SimulatedFeed<'_> {
    /// Each at its own instant, as a camera thread would have sent it while the worker was busy.
    fn send_due_one_by_one(&mut self) {
        while let Some(instant) = self.camera.next_instant().filter(|&instant| instant <= self.now.get()) {
            self.camera.send_due(instant);
        }
    }
}

struct SimulatedWork<'a, F> {
    durations: F,
    now: &'a Cell<u64>,
    stuck: &'a Cell<Option<Stage>>,
}

impl<F: FnMut(usize) -> Option<[u64; 3]>> Work for SimulatedWork<'_, F> {
    fn process(&mut self, index: usize) -> Option<StageTimes> {
        let durations = (self.durations)(index)?;
        self.stuck.set(durations.iter().position(|&ns| ns == FOR_EVER).map(|stage| STALLABLE[stage]));
        let pass = |ns: u64| {
            // For ever is until long after the last frame.
            self.now.set(self.now.get() + ns.min(3_600_000_000_000));
            self.now.get()
        };
        let preprocess_start = self.now.get();
        let [preprocess_end, inference_end, decode_end] = durations.map(pass);
        Some(StageTimes { preprocess_start, preprocess_end, inference_end, decode_end, ..StageTimes::default() })
    }
}

#[test]
fn an_unhurried_worker_makes_every_frame() {
    let run = simulate(&profile(50), |_| Some([1, 5, 1]));
    assert!(run.records.iter().all(|r| !r.missed() && r.latency() == Some(7_000_000)));
    assert_eq!((run.tally().counts.arrived, run.tally().counts.on_time), (50, 50));
}

#[test]
fn a_stall_shows_in_every_frame_that_it_delays() {
    // 100 ms from frame 10 on: it is late, frames 11 to 19 are superseded, and frame 20 starts 7 ms late.
    let run = simulate(&profile(50), |frame| Some([1, if frame == 10 { 100 } else { 5 }, 1]));
    let missed: Vec<_> = run.records.iter().filter(|r| r.missed()).map(|r| r.index).collect();
    assert_eq!(missed, (10..20).collect::<Vec<_>>());
    assert_eq!((run.tally().counts.late, run.tally().counts.superseded, run.tally().counts.on_time), (1, 9, 40));
    assert_eq!(run.records[20].latency(), Some(9_000_000));
}

#[test]
fn a_worker_slower_than_the_camera_takes_the_newest_frame_each_time() {
    let run = simulate(&profile(100), |_| Some([1, 22, 2]));
    // Takes 25 ms a frame: at 0, 25, 50, … the newest frame is 0, 2, 5, 7, ….
    let taken: Vec<_> = run.records.iter().filter(|r| r.passage.is_some()).map(|r| r.index).take(5).collect();
    assert_eq!(taken, [0, 2, 5, 7, 10]);
    assert_eq!(run.tally().counts.on_time, 0);
    assert_eq!(run.tally().counts.in_flight, 0);
}

#[test]
fn the_drop_policy_lets_late_frames_go() {
    let profile = Profile { late: super::profile::LatePolicy::Drop, rate_hz: 20.0, ..profile(20) };
    // Frame 3, due at 150 ms, ends at 237 ms: too late to be published. The slot then holds frame 4, due at 200 ms, which
    // is not begun.
    let run = simulate(&profile, |frame| Some([1, if frame == 3 { 85 } else { 5 }, 1]));
    assert_eq!((run.tally().counts.dropped_late, run.tally().counts.late, run.tally().counts.on_time), (2, 0, 18));
    assert_eq!((run.records[3].until_done(), run.records[3].latency()), (Some(87_000_000), None));
    assert_eq!(run.records[4].passage, None);
}

#[test]
fn a_frame_that_fails_is_a_miss_and_counted_as_rejected() {
    let run = simulate(&profile(20), |frame| (frame != 3).then_some([1, 1, 1]));
    assert!(run.records[3].missed());
    assert_eq!((run.tally().counts.rejected, run.tally().counts.on_time), (1, 19));
}
