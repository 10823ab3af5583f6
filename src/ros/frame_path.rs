//! The hot path of the node: what happens to a frame from the slot to the middleware, in that order.
//!
//! Nothing here waits for another thread, logs, or allocates after the first frames (decompression apart). What goes
//! on inside the middleware's `publish` is the middleware's.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::Arc;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use r2r::peregrine_msgs::msg::FrameTiming;
use r2r::Publisher;

use crate::pipeline::{now_ns, LatestSlot, Ledger, Outcome, Pipeline, StageTimes};

use super::clock::Nanoseconds;
use super::incoming::{Frame, Unpacker};
use super::live::{FrameSettings, LiveSettings};
use super::messages::{stamp, DetectionsMessage, MaskMessage, NativeHeader, Timing, TimingMessage};
use super::record::{FrameRecord, Record, Rejection};
use super::scene::Scene;

/// How long the thread sleeps at most before it looks whether the node is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// What the frame thread shares with the others. No part of it can make one thread wait for another.
pub struct Shared {
    pub slot: LatestSlot<Frame>,
    pub ledger: Ledger,
    pub settings: LiveSettings,
    /// For the diagnostics. When nobody empties it, the oldest records give way; the ledger still counts every frame.
    pub records: ArrayQueue<Record>,
    pub road_mask_wanted: AtomicBool,
    pub segmentation_wanted: AtomicBool,
    /// ROS time less the monotonic clock, as of the last time that the node was spun.
    pub ros_offset: AtomicI64,
    pub stop: AtomicBool,
}

/// Where results go, and the messages that carry them.
pub struct Outputs {
    pub detections: Publisher<r2r::vision_msgs::msg::Detection2DArray>,
    pub timing: Publisher<FrameTiming>,
    pub road_mask: Publisher<r2r::sensor_msgs::msg::Image>,
    pub segmentation: Publisher<r2r::sensor_msgs::msg::Image>,
    pub detections_message: DetectionsMessage,
    pub timing_message: TimingMessage,
    pub mask_message: MaskMessage,
    pub scene: Scene,
}

/// All that the frame thread owns.
pub struct FramePath {
    pub pipeline: Pipeline,
    /// Index of the class "road" in the segmentation, if the student has one.
    pub road_class: Option<u8>,
    pub unpacker: Unpacker,
    pub outputs: Outputs,
    pub shared: Arc<Shared>,
}

/// The message's verdicts, which come to Rust as three types.
mod verdict {
    use super::FrameTiming;

    pub const ON_TIME: u8 = FrameTiming::ON_TIME as u8;
    pub const LATE: u8 = FrameTiming::LATE as u8;
    pub const DROPPED_LATE: u8 = FrameTiming::DROPPED_LATE as u8;
}

impl FramePath {
    /// Works on the newest frame, again and again, until the node is to stop and nothing is left in hand.
    pub fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            // Before the slot, so that what was put before the stop is still taken.
            let stopping = shared.stop.load(Relaxed);
            match shared.slot.take_timeout(LONGEST_SLEEP) {
                Some(frame) => {
                    if let Err(rejection) = self.process(&frame) {
                        shared.ledger.end(Outcome::Rejected);
                        self.report(Record::Rejected(rejection));
                    }
                    self.outputs.scene.look(frame);
                }
                None if stopping => return,
                None => {}
            }
        }
    }

    /// One frame, from taking it out of the slot to the last message about it. On `Ok` it is counted.
    fn process(&mut self, frame: &Frame) -> Result<(), Rejection> {
        let shared = Arc::clone(&self.shared);
        let settings = shared.settings.load();
        let header = frame.message.header();
        let age = Age::of(frame, header);

        // Too late already: the time is better spent on the next frame.
        if settings.drop_late && age.is_past(settings.deadline, now_ns()) {
            return self.drop_late(frame, &age, &settings, &StageTimes::default());
        }

        let image = self.unpacker.view(&frame.message)?;
        self.pipeline.set_thresholds(settings.score_threshold, settings.nms_iou);
        let result = self.pipeline.process_from(0, &image, age.from).map_err(|_| Rejection::Inference)?;
        let times = result.times;
        self.outputs.detections_message.fill(header, &result.detections, &result.identities);

        // The verdict is about this very moment: what follows it is the middleware's time.
        let publish = now_ns();
        let late = age.is_past(settings.deadline, publish);
        if late && settings.drop_late {
            return self.drop_late(frame, &age, &settings, &times);
        }
        self.outputs
            .detections
            .publish_native(&mut self.outputs.detections_message.native)
            .map_err(|_| Rejection::Publishing)?;
        shared.ledger.end(if late { Outcome::Late } else { Outcome::OnTime });

        // The detections are out; all that remains is about them.
        let verdict = if late { verdict::LATE } else { verdict::ON_TIME };
        self.publish_timing(frame, timing(frame, &age, &settings, &times, publish, verdict));
        self.publish_masks(header);
        if !self.outputs.scene.publish(header, self.pipeline.result()) {
            self.report(Record::PublishingFailed);
        }
        self.report(Record::Frame(FrameRecord::new(frame, &age, &times, publish)));
        Ok(())
    }

    /// The end of a frame whose deadline passed before its detections were published.
    fn drop_late(
        &mut self,
        frame: &Frame,
        age: &Age,
        settings: &FrameSettings,
        times: &StageTimes,
    ) -> Result<(), Rejection> {
        let dropped = now_ns();
        self.shared.ledger.end(Outcome::DroppedLate);
        self.publish_timing(frame, timing(frame, age, settings, times, dropped, verdict::DROPPED_LATE));
        self.report(Record::Frame(FrameRecord::new(frame, age, times, dropped)));
        Ok(())
    }

    fn publish_timing(&mut self, frame: &Frame, timing: Timing) {
        let counts = self.shared.ledger.counts();
        self.outputs.timing_message.fill(frame.message.header(), &timing, &counts);
        if self.outputs.timing.publish_native(&mut self.outputs.timing_message.native).is_err() {
            self.report(Record::PublishingFailed);
        }
    }

    /// The masks that somebody has subscribed to.
    fn publish_masks(&mut self, header: &NativeHeader) {
        let result = self.pipeline.result();
        let Outputs { road_mask, segmentation, mask_message, .. } = &mut self.outputs;
        let mut failed = false;
        if let (true, Some(road)) = (self.shared.road_mask_wanted.load(Relaxed), self.road_class) {
            mask_message.fill(header, &result.mask, result.size, |class| if class == road { 255 } else { 0 });
            failed |= road_mask.publish_native(&mut mask_message.native).is_err();
        }
        if self.shared.segmentation_wanted.load(Relaxed) {
            mask_message.fill(header, &result.mask, result.size, |class| class);
            failed |= segmentation.publish_native(&mut mask_message.native).is_err();
        }
        if failed {
            self.report(Record::PublishingFailed);
        }
    }

    fn report(&self, record: Record) {
        self.shared.records.force_push(record);
    }
}

/// How old a frame's picture of the world is.
pub struct Age {
    /// ROS time from which age counts: the stamp or, for an image without one, its arrival.
    pub from: Nanoseconds,
    arrival: super::clock::Instant,
}

impl Age {
    fn of(frame: &Frame, header: &NativeHeader) -> Self {
        let from = match stamp(header) {
            0 => frame.arrival.ros,
            stamp => stamp,
        };
        Self { from, arrival: frame.arrival }
    }

    /// Age when the monotonic clock shows `monotonic`; negative if the camera's clock is ahead.
    pub fn at(&self, monotonic: u64) -> Nanoseconds {
        self.arrival.ros_at(monotonic) - self.from
    }

    fn is_past(&self, deadline: Option<Nanoseconds>, monotonic: u64) -> bool {
        deadline.is_some_and(|deadline| self.at(monotonic) > deadline)
    }
}

fn timing(frame: &Frame, age: &Age, settings: &FrameSettings, times: &StageTimes, publish: u64, verdict: u8) -> Timing {
    // A step that was not reached has no time.
    let ros = |monotonic: u64| if monotonic == 0 { 0 } else { frame.arrival.ros_at(monotonic) };
    Timing {
        sequence: frame.sequence,
        arrival: frame.arrival.ros,
        preprocess_start: ros(times.preprocess_start),
        preprocess_end: ros(times.preprocess_end),
        inference_end: ros(times.inference_end),
        decode_end: ros(times.decode_end),
        track_end: ros(times.track_end),
        publish: ros(publish),
        verdict,
        deadline: settings.deadline.unwrap_or(0),
        latency: age.at(publish),
    }
}
