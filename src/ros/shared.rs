//! What the frame thread shares with the others, without locks: no thread ever waits for another.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use peregrine_core::{now_ns, FrameAccounting, FrameCounts, FrameMailbox, FrameOutcome};
use peregrine_pipeline::camera::StampCounts;

use super::incoming::Frame;
use super::live::LiveSettings;
use super::liveness::StreamLiveness;
use super::model::LoadedModel;
use super::record::{Record, Rejection};
use super::scene_class::SharedScene;
use super::watch::FrameWatch;

/// Capacity of a camera's queue of records for the diagnostics: some seconds' worth.
const RECORDS: usize = 4096;

/// The state of a configured node that its threads share.
pub struct NodeShared {
    pub mailbox: FrameMailbox<Frame>,
    /// Indexed by [`Frame::camera`].
    pub cameras: Vec<CameraShared>,
    pub settings: LiveSettings,
    /// The model to use from the next frame on, and those that were replaced, for another thread to
    /// drop.
    pub replacement: ArrayQueue<Box<LoadedModel>>,
    pub retired: ArrayQueue<Box<LoadedModel>>,
    /// Whether the degraded mode is on, to keep deadlines.
    pub degraded: AtomicBool,
    /// Values of the network that the GPU had to bring back into the range of half precision:
    /// [`Pipeline::saturated_values`](peregrine_pipeline::Pipeline::saturated_values).
    pub saturated_values: AtomicU64,
    /// The device that inference has fallen back to after a failure, for the log and the
    /// diagnostics.
    pub device_fallback: ArrayQueue<String>,
    /// ROS time minus the monotonic clock in ns, as of the last spin of the node.
    pub ros_offset: AtomicI64,
    pub watch: Arc<FrameWatch>,
    /// Threads that decode videos, and so may still put frames into the mailbox.
    pub decoders: AtomicUsize,
    pub stop: AtomicBool,
}

impl NodeShared {
    /// For one camera for each of `accountings`.
    pub fn new(accountings: Vec<Arc<FrameAccounting>>, settings: LiveSettings) -> Self {
        Self {
            mailbox: FrameMailbox::new(accountings.len()),
            cameras: accountings.into_iter().map(CameraShared::new).collect(),
            settings,
            replacement: ArrayQueue::new(1),
            retired: ArrayQueue::new(2),
            degraded: AtomicBool::new(false),
            saturated_values: AtomicU64::new(0),
            device_fallback: ArrayQueue::new(1),
            ros_offset: AtomicI64::new(0),
            watch: Arc::default(),
            decoders: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        }
    }

    /// ROS time in nanoseconds, as of the last spin: the system's time before the first.
    pub fn ros_now(&self) -> i64 {
        let offset = self.ros_offset.load(Relaxed);
        if offset == 0 {
            return std::time::UNIX_EPOCH.elapsed().map_or(0, |elapsed| elapsed.as_nanos() as i64);
        }
        now_ns() as i64 + offset
    }

    /// Whether every frame that has arrived has got its outcome.
    pub fn is_idle(&self) -> bool {
        self.cameras.iter().all(|camera| camera.accounting.counts().in_flight == 0)
    }

    /// Rejects every frame in flight: to be called once the frame thread has panicked and no images
    /// are taken any more.
    pub fn abandon(&self) {
        self.watch.end();
        for camera in &self.cameras {
            for _ in 0..camera.accounting.counts().in_flight {
                camera.accounting.end(FrameOutcome::Rejected);
                camera.records.force_push(Record::Rejected(Rejection::FrameThread));
            }
        }
    }
}

/// What is shared about one camera's stream.
pub struct CameraShared {
    pub accounting: Arc<FrameAccounting>,
    /// The counts at configure, before any image could come: the accounting outlives a
    /// configuration.
    pub counted_before: FrameCounts,
    /// For the diagnostics. When full, the oldest records are dropped; the accounting still counts
    /// every frame.
    pub records: ArrayQueue<Record>,
    /// A [`Condition`](peregrine_pipeline::monitor::Condition), and how many deadlines in a row
    /// were missed.
    pub condition: AtomicU8,
    pub misses_in_a_row: AtomicU32,
    /// Images that were rejected on arrival and that the frame thread, which watches the deadlines,
    /// has not counted yet.
    pub rejected_on_arrival: AtomicU32,
    pub liveness: StreamLiveness,
    /// The packet of a video that is being decoded.
    pub decoding: FrameWatch,
    pub stamps: SharedStampCounts,
    pub road_mask_wanted: AtomicBool,
    pub segmentation_wanted: AtomicBool,
    pub scene_wanted: AtomicBool,
    /// The class of the scene, for the diagnostics.
    pub scene: SharedScene,
}

impl CameraShared {
    fn new(accounting: Arc<FrameAccounting>) -> Self {
        Self {
            counted_before: accounting.counts(),
            accounting,
            records: ArrayQueue::new(RECORDS),
            condition: AtomicU8::new(0),
            misses_in_a_row: AtomicU32::new(0),
            rejected_on_arrival: AtomicU32::new(0),
            liveness: StreamLiveness::default(),
            decoding: FrameWatch::default(),
            stamps: SharedStampCounts::default(),
            road_mask_wanted: AtomicBool::new(false),
            segmentation_wanted: AtomicBool::new(false),
            scene_wanted: AtomicBool::new(false),
            scene: SharedScene::default(),
        }
    }
}

/// [`StampCounts`] that other threads can read.
#[derive(Debug, Default)]
pub struct SharedStampCounts {
    missing: AtomicU64,
    duplicates: AtomicU64,
    out_of_order: AtomicU64,
    jumps: AtomicU64,
}

impl SharedStampCounts {
    pub fn store(&self, counts: &StampCounts) {
        self.missing.store(counts.missing, Relaxed);
        self.duplicates.store(counts.duplicates, Relaxed);
        self.out_of_order.store(counts.out_of_order, Relaxed);
        self.jumps.store(counts.jumps, Relaxed);
    }

    pub fn load(&self) -> StampCounts {
        StampCounts {
            missing: self.missing.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            out_of_order: self.out_of_order.load(Relaxed),
            jumps: self.jumps.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;

    #[test]
    fn frames_of_a_panicked_frame_thread_are_rejected_with_a_reason() {
        let settings = LiveSettings::new(&Parameters::default());
        let shared = NodeShared::new(vec![Arc::default(), Arc::default()], settings);
        for (camera, arrivals) in [(0, 1), (1, 3)] {
            (0..arrivals).for_each(|_| _ = shared.cameras[camera].accounting.arrive());
        }
        shared.cameras[1].accounting.end(FrameOutcome::OnTime);
        shared.abandon();
        assert!(shared.is_idle());
        for (camera, rejected) in [(0, 1), (1, 2)] {
            assert_eq!(shared.cameras[camera].accounting.counts().rejected, rejected);
            let reasons: Vec<_> = std::iter::from_fn(|| shared.cameras[camera].records.pop()).collect();
            assert_eq!(reasons, vec![Record::Rejected(Rejection::FrameThread); rejected as usize]);
        }
    }
}
