//! What the frame thread shares with the others. No part of it can make one thread wait for another.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU8};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use peregrine_core::{FrameAccounting, FrameCounts, FrameMailbox, FrameOutcome};

use super::engines::Engines;
use super::incoming::Frame;
use super::intake::StreamCounts;
use super::live::LiveSettings;
use super::presence::Presence;
use super::record::{Record, Rejection};

/// Events of a camera that can wait for the diagnostics: some seconds' worth.
const RECORDS: usize = 4096;

/// See the module.
pub struct Shared {
    pub waiting: FrameMailbox<Frame>,
    /// As numbered in [`Frame::camera`].
    pub cameras: Vec<Camera>,
    pub settings: LiveSettings,
    /// Engines to go on with from the next frame on, and those that were replaced, for another thread to drop.
    pub replacement: ArrayQueue<Box<Engines>>,
    pub retired: ArrayQueue<Box<Engines>>,
    /// Whether frames get less work, to keep deadlines.
    pub degraded: AtomicBool,
    /// Where inference runs from now on, where the device that it was on has failed; for whoever tells of it.
    pub moved_to: ArrayQueue<String>,
    /// ROS time less the monotonic clock, as of the last time that the node was spun.
    pub ros_offset: AtomicI64,
    pub stop: AtomicBool,
}

impl Shared {
    /// For cameras whose frames are counted in `ledgers`.
    pub fn new(ledgers: Vec<Arc<FrameAccounting>>, settings: LiveSettings) -> Self {
        Self {
            waiting: FrameMailbox::new(ledgers.len()),
            cameras: ledgers.into_iter().map(Camera::new).collect(),
            settings,
            replacement: ArrayQueue::new(1),
            retired: ArrayQueue::new(2),
            degraded: AtomicBool::new(false),
            moved_to: ArrayQueue::new(1),
            ros_offset: AtomicI64::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// Whether every frame that has arrived has ended.
    pub fn is_idle(&self) -> bool {
        self.cameras.iter().all(|camera| camera.ledger.counts().in_flight == 0)
    }

    /// Rejects all that is in hand: to be called once the frame thread has died and no images are taken any more.
    pub fn abandon(&self) {
        for camera in &self.cameras {
            for _ in 0..camera.ledger.counts().in_flight {
                camera.ledger.end(FrameOutcome::Rejected);
                camera.records.force_push(Record::Rejected(Rejection::FrameThread));
            }
        }
    }
}

/// What is known of one camera's stream.
pub struct Camera {
    pub ledger: Arc<FrameAccounting>,
    /// What the ledger said at configure, before any image could come: it lives longer than a configuration.
    pub counted_before: FrameCounts,
    /// For the diagnostics. When nobody empties it, the oldest records give way; the ledger still counts every frame.
    pub records: ArrayQueue<Record>,
    /// A [`Condition`](peregrine_pipeline::monitor::Condition), and how many deadlines in a row were missed.
    pub condition: AtomicU8,
    pub misses_in_a_row: AtomicU32,
    pub presence: Presence,
    pub stream: StreamCounts,
    pub road_mask_wanted: AtomicBool,
    pub segmentation_wanted: AtomicBool,
}

impl Camera {
    fn new(ledger: Arc<FrameAccounting>) -> Self {
        Self {
            counted_before: ledger.counts(),
            ledger,
            records: ArrayQueue::new(RECORDS),
            condition: AtomicU8::new(0),
            misses_in_a_row: AtomicU32::new(0),
            presence: Presence::default(),
            stream: StreamCounts::default(),
            road_mask_wanted: AtomicBool::new(false),
            segmentation_wanted: AtomicBool::new(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn what_a_dead_frame_thread_had_in_hand_is_rejected_with_the_reason_so_that_nobody_waits_for_it() {
        let settings = LiveSettings::new(&Parameters::default());
        let shared = Shared::new(vec![Arc::default(), Arc::default()], settings);
        for (camera, arrivals) in [(0, 1), (1, 3)] {
            (0..arrivals).for_each(|_| _ = shared.cameras[camera].ledger.arrive());
        }
        shared.cameras[1].ledger.end(FrameOutcome::OnTime);
        shared.abandon();
        assert!(shared.is_idle());
        for (camera, rejected) in [(0, 1), (1, 2)] {
            assert_eq!(shared.cameras[camera].ledger.counts().rejected, rejected);
            let reasons: Vec<_> = std::iter::from_fn(|| shared.cameras[camera].records.pop()).collect();
            assert_eq!(reasons, vec![Record::Rejected(Rejection::FrameThread); rejected as usize]);
        }
    }
}
