//! Where the frame thread is, and each decoder of a video, for others to see: written as frames go, read by the
//! [`watchdog`](super::watchdog).

use std::sync::atomic::{fence, AtomicU32, AtomicU64, AtomicU8, Ordering::*};

use peregrine_pipeline::{Stage, StageObserver};

use super::clock::Nanoseconds;

/// The frame that is being processed. All times are the monotonic clock's.
#[derive(Debug, Default)]
pub struct FrameWatch {
    /// When its processing began; 0 while there is none.
    begun: AtomicU64,
    camera: AtomicU32,
    stage: AtomicU8,
    /// `camera + 1` while a frame of it hangs, otherwise 0; the stage that it hangs in, and when its
    /// processing began. Written by the watchdog.
    stalled: AtomicU32,
    stalled_in: AtomicU8,
    stalled_since: AtomicU64,
    stalls: AtomicU64,
}

/// A frame on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    pub camera: usize,
    pub stage: Stage,
    pub begun: u64,
    /// Since when it is processed, in ns.
    pub lasts: Nanoseconds,
}

/// A frame that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    pub camera: usize,
    pub stage: Stage,
    /// When its processing began.
    pub begun: u64,
}

impl From<InFlight> for Stall {
    fn from(InFlight { camera, stage, begun, .. }: InFlight) -> Self {
        Self { camera, stage, begun }
    }
}

impl FrameWatch {
    /// Processing of a frame of `camera` begins.
    pub fn begin(&self, camera: usize, now: u64) {
        self.begin_in(Stage::Take, camera, now);
    }

    /// The same, with another stage than the frame thread's first.
    pub fn begin_in(&self, stage: Stage, camera: usize, now: u64) {
        self.camera.store(camera as u32, Relaxed);
        self.stage.store(stage as u8, Relaxed);
        self.begun.store(now.max(1), Release);
    }

    /// It has ended, however it did.
    pub fn end(&self) {
        self.begun.store(0, Release);
    }

    /// The frame that is being processed at `now`.
    pub fn in_flight(&self, now: u64) -> Option<InFlight> {
        let begun = self.begun.load(Acquire);
        let (camera, stage) = (self.camera.load(Relaxed) as usize, Stage::from_number(self.stage.load(Relaxed)));
        // Another one by now: what was read may be of both, and the new one has only begun.
        fence(Acquire);
        let same = begun != 0 && self.begun.load(Relaxed) == begun;
        same.then(|| InFlight { camera, stage, begun, lasts: now.saturating_sub(begun) as i64 })
    }

    /// Says that a frame hangs, or that none does.
    pub fn set_stall(&self, stall: Option<Stall>) {
        let Some(Stall { camera, stage, begun }) = stall else {
            self.stalled.store(0, Relaxed);
            return;
        };
        self.stalled_in.store(stage as u8, Relaxed);
        if self.stalled_since.swap(begun, Relaxed) != begun {
            self.stalls.fetch_add(1, Relaxed);
        }
        self.stalled.store(camera as u32 + 1, Release);
    }

    /// The frame that hangs.
    pub fn stall(&self) -> Option<Stall> {
        let camera = self.stalled.load(Acquire).checked_sub(1)? as usize;
        let (stage, begun) = (self.stalled_in.load(Relaxed), self.stalled_since.load(Relaxed));
        Some(Stall { camera, stage: Stage::from_number(stage), begun })
    }

    /// How many frames have hung so far.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Relaxed)
    }
}

impl StageObserver for FrameWatch {
    fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_in_flight_from_its_begin_to_its_end() {
        let watch = FrameWatch::default();
        assert_eq!(watch.in_flight(50), None);
        watch.begin(2, 100);
        watch.enter(Stage::Inference);
        let seen = watch.in_flight(130);
        assert_eq!(seen, Some(InFlight { camera: 2, stage: Stage::Inference, begun: 100, lasts: 30 }));
        watch.end();
        assert_eq!(watch.in_flight(150), None);
    }

    #[test]
    fn a_stall_is_counted_once_whatever_stages_it_is_seen_in() {
        let watch = FrameWatch::default();
        for stage in [Stage::Inference, Stage::Publish] {
            watch.set_stall(Some(Stall { camera: 0, stage, begun: 5 }));
            assert_eq!((watch.stall().unwrap().stage, watch.stalls()), (stage, 1));
        }
        watch.set_stall(None);
        assert_eq!(watch.stall(), None);
        watch.set_stall(Some(Stall { camera: 1, stage: Stage::Take, begun: 9 }));
        assert_eq!(watch.stalls(), 2);
    }
}
