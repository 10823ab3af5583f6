//! The hot path of the node: what happens to a frame from the slot to the middleware, in that order.
//!
//! Nothing here waits for another thread, logs, or allocates after the first frames (decompression apart). What goes
//! on inside the middleware's `publish` is the middleware's.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{now_ns, FrameOutcome};
use peregrine_pipeline::monitor::{Degradation, Monitor};
use peregrine_pipeline::StageTimes;
use r2r::peregrine_msgs::msg::FrameTiming;
use r2r::Publisher;

use super::clock::Nanoseconds;
use super::engines::Engines;
use super::incoming::{Frame, ShortText, Unpacker};
use super::live::FrameSettings;
use super::messages::{stamp, MaskMessage, NativeHeader, Timing, TimingMessage};
use super::presence::Presence;
use super::record::{FrameRecord, Record, Rejection};
use super::scene::Scene;
use super::shared::Shared;

/// How long the thread sleeps at most before it looks whether the node is to stop.
const LONGEST_SLEEP: Duration = Duration::from_millis(100);

/// How one camera has done so far.
#[derive(Default)]
pub struct Watch {
    pub monitor: Monitor,
    pub degradation: Degradation,
}

/// Where the results of one camera go, and how it has done so far.
pub struct Outlet {
    pub detections: Publisher<r2r::vision_msgs::msg::Detection2DArray>,
    pub timing: Publisher<FrameTiming>,
    pub road_mask: Publisher<r2r::sensor_msgs::msg::Image>,
    pub segmentation: Publisher<r2r::sensor_msgs::msg::Image>,
    pub scene: Scene,
    pub watch: Watch,
}

/// All that the frame thread owns.
pub struct FramePath {
    pub engines: Box<Engines>,
    pub outlets: Vec<Outlet>,
    /// Whether frames get less work.
    degraded: bool,
    pub unpacker: Unpacker,
    pub timing_message: TimingMessage,
    pub mask_message: MaskMessage,
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
    /// Masks are as large as the images with `masks_at_source_resolution`, or else as the network has them.
    pub fn new(
        engines: Box<Engines>,
        outlets: Vec<Outlet>,
        shared: Arc<Shared>,
        masks_at_source_resolution: bool,
    ) -> Self {
        Self {
            engines,
            outlets,
            degraded: false,
            unpacker: Unpacker::default(),
            timing_message: TimingMessage::default(),
            mask_message: MaskMessage { at_source_resolution: masks_at_source_resolution, ..MaskMessage::default() },
            shared,
        }
    }

    /// Works on the most urgent frame, again and again, until the node is to stop and nothing is left in hand.
    pub fn run(mut self) {
        loop {
            // Before the frames, so that what was put before the stop is still taken.
            let stopping = self.shared.stop.load(Relaxed);
            if !self.turn(LONGEST_SLEEP) && stopping {
                return;
            }
        }
    }

    /// Works on the most urgent frame, if there is one within `timeout`.
    pub fn turn(&mut self, timeout: Duration) -> bool {
        let taken = self.shared.waiting.take_timeout(timeout);
        // Between two frames, so that each is the work of one model, and none is lost.
        if let Some(mut new) = self.shared.replacement.pop() {
            new.take_tracks(&mut self.engines, self.degraded);
            let _ = self.shared.retired.push(std::mem::replace(&mut self.engines, new));
        }
        let Some((_, frame)) = taken else { return false };
        if let Err(rejection) = self.process(&frame) {
            self.shared.cameras[frame.camera].ledger.end(FrameOutcome::Rejected);
            self.report(frame.camera, Record::Rejected(rejection));
        }
        self.outlets[frame.camera].scene.look(frame);
        true
    }

    /// One frame, from taking it out of its place to the last message about it. On `Ok` it is counted.
    fn process(&mut self, frame: &Frame) -> Result<(), Rejection> {
        let settings = self.shared.settings.load();
        let header = frame.message.header();
        let age = Age::of(frame, header);
        // A stream that had stopped is not well again with its first frame.
        if self.shared.cameras[frame.camera].presence.take_interruption() {
            self.outlets[frame.camera].watch.monitor.interrupt();
        }

        // Too late already: the time is better spent on the next frame.
        if settings.drop_late && age.is_past(settings.deadline, now_ns()) {
            return self.drop_late(frame, &age, &settings, &StageTimes::default());
        }

        let begun = now_ns();
        let image = self.unpacker.view(&frame.message)?;
        let (encoding, size) = (image.encoding(), image.size());
        let degraded = self.degraded;
        let pipeline = self.engines.pipeline(degraded);
        pipeline.set_thresholds(settings.score_threshold, settings.nms_iou);
        let result = pipeline
            .process_from(frame.camera, &image, age.from)
            .map_err(|error| Rejection::Inference(ShortText::of(&error)))?;
        // Decompression is work on the frame, too.
        let times = StageTimes { preprocess_start: begun, ..result.times };
        self.engines.fill_message(degraded, header);

        // The verdict is about this very moment: what follows it is the middleware's time.
        let publish = now_ns();
        let late = age.is_past(settings.deadline, publish);
        if late && settings.drop_late {
            return self.drop_late(frame, &age, &settings, &times);
        }
        self.outlets[frame.camera]
            .detections
            .publish_native(&mut self.engines.detections_message.native)
            .map_err(|_| Rejection::Publishing)?;
        self.shared.cameras[frame.camera].ledger.end(if late { FrameOutcome::Late } else { FrameOutcome::OnTime });

        // The detections are out; all that remains is about them.
        let verdict = if late { verdict::LATE } else { verdict::ON_TIME };
        self.publish_timing(frame, timing(frame, &age, &settings, &times, publish, verdict));
        self.publish_masks(frame.camera, header);
        let result = self.engines.pipeline(degraded).result();
        if !self.outlets[frame.camera].scene.publish(header, result) {
            self.report(frame.camera, Record::PublishingFailed);
        }
        self.report(frame.camera, Record::Frame(FrameRecord::new(frame, &age, &times, publish)));
        self.engines.prepare_other(degraded, frame.camera, encoding, size);
        if let Some(device) = self.engines.moved_to(degraded) {
            self.shared.moved_to.force_push(device);
        }
        self.judge(frame.camera, late, &settings);
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
        self.shared.cameras[frame.camera].ledger.end(FrameOutcome::DroppedLate);
        self.publish_timing(frame, timing(frame, age, settings, times, dropped, verdict::DROPPED_LATE));
        self.report(frame.camera, Record::Frame(FrameRecord::new(frame, age, times, dropped)));
        self.judge(frame.camera, true, settings);
        Ok(())
    }

    /// What a deadline that was missed or kept means for the camera's condition, and for the work on frames to come.
    fn judge(&mut self, camera: usize, missed: bool, settings: &FrameSettings) {
        let Watch { monitor, degradation } = &mut self.outlets[camera].watch;
        let condition = monitor.observe(missed, &settings.monitor);
        let watched = &self.shared.cameras[camera];
        watched.condition.store(condition as u8, Relaxed);
        watched.misses_in_a_row.store(monitor.misses_in_a_row(), Relaxed);
        if self.engines.can_degrade() {
            degradation.observe(missed, &settings.degradation);
            let degraded = self.wants_less(settings);
            if degraded != self.degraded {
                self.degraded = degraded;
                self.engines.hand_over_tracks();
                self.shared.degraded.store(degraded, Relaxed);
            }
        }
    }

    /// Whether any camera needs less work to keep its deadlines: all share one thread, so it takes less for each. One
    /// that has gone silent needs nothing.
    fn wants_less(&self, settings: &FrameSettings) -> bool {
        let now = now_ns();
        let is_there = |presence: &Presence| presence.silence(now).is_none_or(|ns| ns < settings.stale_after);
        let mut watched = self.outlets.iter().zip(&self.shared.cameras);
        watched.any(|(outlet, camera)| outlet.watch.degradation.is_degraded() && is_there(&camera.presence))
    }

    fn publish_timing(&mut self, frame: &Frame, timing: Timing) {
        let counts = self.shared.cameras[frame.camera].ledger.counts();
        self.timing_message.fill(frame.message.header(), &timing, &counts);
        if self.outlets[frame.camera].timing.publish_native(&mut self.timing_message.native).is_err() {
            self.report(frame.camera, Record::PublishingFailed);
        }
    }

    /// The masks that somebody has subscribed to.
    fn publish_masks(&mut self, camera: usize, header: &NativeHeader) {
        let road_class = self.engines.road_class;
        let pipeline = self.engines.pipeline(self.degraded);
        if !pipeline.has_segmentation() {
            return;
        }
        let result = pipeline.result();
        let (watched, outlet, message) = (&self.shared.cameras[camera], &self.outlets[camera], &mut self.mask_message);
        let mut failed = false;
        if let (true, Some(road)) = (watched.road_mask_wanted.load(Relaxed), road_class) {
            message.fill(header, &result.mask, result.size, |class| if class == road { 255 } else { 0 });
            failed |= outlet.road_mask.publish_native(&mut message.native).is_err();
        }
        if watched.segmentation_wanted.load(Relaxed) {
            message.fill(header, &result.mask, result.size, |class| class);
            failed |= outlet.segmentation.publish_native(&mut message.native).is_err();
        }
        if failed {
            self.report(camera, Record::PublishingFailed);
        }
    }

    fn report(&self, camera: usize, record: Record) {
        self.shared.cameras[camera].records.force_push(record);
    }
}

/// How old a frame's picture of the world is.
pub struct Age {
    /// ROS time from which age counts: the stamp or, for an image without one, its arrival.
    pub from: Nanoseconds,
    arrival: super::clock::Instant,
}

impl Age {
    pub fn of(frame: &Frame, header: &NativeHeader) -> Self {
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
