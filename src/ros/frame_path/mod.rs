//! The per-frame path of the node: what happens to a frame from the mailbox to the middleware, in
//! that order.
//!
//! Nothing here waits for another thread, logs, or allocates after warm-up (decompression apart).
//! What happens inside the middleware's `publish` is not under the node's control; the watchdog sees
//! when it hangs, as it does for every stage. A panic costs the frame in which it happens.
//!
//! - here: `FramePath`, and a frame's way. `outputs`: what is kept of each camera.
//! - `ahead`: frames of several cameras at once on a GPU.
//! - `deadlines`: what follows from deadlines that were missed or kept.

mod ahead;
mod deadlines;
mod outputs;

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::Arc;
use std::time::Duration;

use peregrine_core::{now_ns, FrameOutcome};
use peregrine_pipeline::{Begun, Stage, StageObserver, StageTimes};
use r2r::peregrine_msgs::msg::FrameTiming;

use super::age::Age;
use super::capture::Capture;
use super::clock::Nanoseconds;
use super::incoming::{Frame, ImageMessage, ShortText, Unpacker};
use super::live::FrameSettings;
use super::messages::{MaskMessage, NativeHeader, Timing, TimingMessage};
use super::model::LoadedModel;
use super::panics;
use super::record::{FrameRecord, Record, Rejection};
use super::scene_class::SceneSmoother;
use super::shared::NodeShared;
use ahead::{Ahead, Taken};
pub use outputs::{CameraOutputs, DeadlineState, LevelState};

/// Longest wait for a frame before the stop flag is checked.
const MAX_WAIT: Duration = Duration::from_millis(100);

/// The state that the frame thread owns.
pub struct FramePath {
    pub model: Box<LoadedModel>,
    pub outputs: Vec<CameraOutputs>,
    pub unpacker: Unpacker,
    pub timing_message: TimingMessage,
    pub mask_message: MaskMessage,
    pub shared: Arc<NodeShared>,
    /// Hands frames to the threads that look on.
    pub capture: Capture,
    /// Most cameras whose images a GPU works on at once; 1 at first.
    pub gpu_cameras_at_once: usize,
    /// Frames that were taken from the mailbox and have yet to be processed.
    taken: Taken,
    observer: Arc<dyn StageObserver>,
    /// Whether the frame that is being processed has got its outcome.
    ended: bool,
}

/// The message's verdicts, whose constants r2r generates with types other than the field's.
mod verdict {
    use super::FrameTiming;

    pub const ON_TIME: u8 = FrameTiming::ON_TIME as u8;
    pub const LATE: u8 = FrameTiming::LATE as u8;
    pub const DROPPED_LATE: u8 = FrameTiming::DROPPED_LATE as u8;
}

impl FramePath {
    /// Masks have the images' resolution with `masks_at_source_resolution`, otherwise that of the
    /// network's output.
    pub fn new(
        model: Box<LoadedModel>,
        mut outputs: Vec<CameraOutputs>,
        shared: Arc<NodeShared>,
        masks_at_source_resolution: bool,
    ) -> Self {
        let observer: Arc<dyn StageObserver> = Arc::clone(&shared.watch) as _;
        let classes = model.classes.scene.iter().map(|(_, classes)| classes.len()).sum();
        outputs.iter_mut().for_each(|output| output.smoother = SceneSmoother::with_room(classes));
        let mut path = Self {
            model,
            taken: Taken::with_room(outputs.len()),
            gpu_cameras_at_once: 1,
            outputs,
            unpacker: Unpacker::default(),
            timing_message: TimingMessage::default(),
            mask_message: MaskMessage { at_source_resolution: masks_at_source_resolution, ..MaskMessage::default() },
            shared,
            capture: Capture::default(),
            observer: Arc::clone(&observer),
            ended: false,
        };
        path.set_observer(observer);
        path
    }

    /// Tells `observer` of each stage of the frames to come, instead of the node's
    /// [`FrameWatch`](super::watch::FrameWatch).
    pub fn set_observer(&mut self, observer: Arc<dyn StageObserver>) {
        self.model.set_observer(&observer);
        self.observer = observer;
    }

    /// Processes frames, the most urgent first, until the node is to stop and the mailbox is empty.
    pub fn run(mut self) {
        loop {
            // Read before the mailbox, so that what was put there before the stop is still
            // processed.
            let stopping = self.shared.stop.load(Relaxed) && self.shared.decoders.load(Acquire) == 0;
            if !self.process_next(MAX_WAIT) && stopping {
                return;
            }
        }
    }

    /// Processes the most urgent frame; false if there is none within `timeout`. On a GPU, those that wait behind it are
    /// processed as well, up to [`gpu_cameras_at_once`](Self::gpu_cameras_at_once).
    pub fn process_next(&mut self, timeout: Duration) -> bool {
        let next = self.shared.mailbox.take_timeout(timeout);
        self.observe_rejected_on_arrival();
        if let Some((_, frame)) = &next {
            self.shared.watch.begin(frame.camera, now_ns());
        }
        // Between two frames, so that each is processed by one model, and none is lost.
        if let Some(mut new) = self.shared.replacement.pop() {
            new.take_tracks(&mut self.model);
            new.set_observer(&self.observer);
            self.shared.degraded.store(new.is_degraded(), Relaxed);
            let _ = self.shared.retired.push(std::mem::replace(&mut self.model, new));
        }
        let Some((_, frame)) = next else { return false };
        self.take(frame);
        while let Some((frame, ahead)) = self.taken.pop() {
            self.shared.watch.begin(frame.camera, now_ns());
            self.capture.begin();
            self.process_or_reject(&frame, ahead);
            self.capture.submit(&frame);
            self.outputs[frame.camera].scene.submit_for_drawing(frame);
            self.shared.watch.end();
        }
        true
    }

    /// One frame, whatever happens in it: what goes wrong costs this frame, and counts as a missed
    /// deadline.
    fn process_or_reject(&mut self, frame: &Frame, ahead: Ahead) {
        self.ended = false;
        let rejection = match ahead.and_then(|begun| panics::caught(|| self.process(frame, begun))) {
            Ok(Ok(())) => return,
            Ok(Err(rejection)) => rejection,
            Err(text) => {
                self.model.reset();
                self.unpacker = Unpacker::default();
                self.report(frame.camera, Record::Panicked(text));
                Rejection::Panic(text)
            }
        };
        if !self.ended {
            self.end(frame.camera, FrameOutcome::Rejected);
            self.capture.set_rejection(rejection);
            self.report(frame.camera, Record::Rejected(rejection));
        }
        self.update_deadline_state(frame.camera, true, &self.shared.settings.load());
    }

    /// The outcome of the frame that is being processed.
    fn end(&mut self, camera: usize, outcome: FrameOutcome) {
        self.shared.cameras[camera].accounting.end(outcome);
        self.ended = true;
    }

    /// One frame, from the mailbox to the last message about it, with what a GPU has `begun` of it. On `Ok` its outcome is
    /// counted.
    fn process(&mut self, frame: &Frame, begun: Option<Begun>) -> Result<(), Rejection> {
        let settings = self.shared.settings.load();
        let header = frame.message.header();
        let age = Age::of(frame);
        // A stream that was interrupted has not recovered with its first frame.
        if self.shared.cameras[frame.camera].liveness.take_interruption() {
            self.outputs[frame.camera].deadlines.monitor.interrupt();
        }

        // Past the deadline already: the time is better spent on the next frame, where it is not spent yet.
        if begun.is_none() && settings.drop_late && age.is_past(settings.deadline, now_ns()) {
            return self.drop_late(frame, &age, &settings, &StageTimes::default());
        }

        self.observer.enter(Stage::Unpack);
        let start = now_ns();
        let image = self.unpacker.view(&frame.message)?;
        let (encoding, size) = (image.encoding(), image.size());
        // A video says its range itself, and no parameter could say otherwise.
        if !matches!(*frame.message, ImageMessage::Video(..)) {
            self.outputs[frame.camera].levels.watch.look(&image);
        }
        let pipeline = self.model.pipeline();
        pipeline.set_thresholds(settings.score_threshold, settings.nms);
        let result = pipeline
            .finish(frame.camera, &image, begun, age.from)
            .map_err(|error| Rejection::Inference(ShortText::of(&error)))?;
        // Decompression belongs to the processing of the frame, too; what was begun was so before.
        let times = StageTimes { preprocess_start: start.min(result.times.preprocess_start), ..result.times };
        self.model.fill_message(header);

        if settings.drop_late && age.is_past(settings.deadline, now_ns()) {
            return self.drop_late(frame, &age, &settings, &times);
        }
        self.observer.enter(Stage::Publish);
        self.outputs[frame.camera]
            .detections
            .publish_native(&mut self.model.detections_message.native)
            .map_err(|_| Rejection::Publishing)?;
        // The verdict is about this instant: the middleware has the detections.
        let publish = now_ns();
        let late = age.is_past(settings.deadline, publish);
        self.end(frame.camera, if late { FrameOutcome::Late } else { FrameOutcome::OnTime });
        self.observer.enter(Stage::Outputs);

        // The detections are published; all else can come later.
        let verdict = if late { verdict::LATE } else { verdict::ON_TIME };
        self.publish_timing(frame, timing(frame, &age, &settings, &times, publish, verdict));
        self.publish_masks(frame.camera, header);
        self.publish_scene(frame.camera, header, age.from, settings.scene_smoothing);
        let classes = Arc::clone(&self.model.classes);
        let result = self.model.pipeline().result();
        self.capture.set_result(result, &classes);
        if !self.outputs[frame.camera].scene.publish(header, result, &classes) {
            self.report(frame.camera, Record::PublishingFailed);
        }
        self.report(frame.camera, Record::Frame(FrameRecord::new(frame, &age, &times, publish)));
        self.report_doubt(frame.camera);
        self.model.prepare_other(frame.camera, encoding, size);
        self.shared.saturated_values.store(self.model.pipeline().saturated_values(), Relaxed);
        if let Some(device) = self.model.take_device_fallback() {
            self.shared.device_fallback.force_push(device);
        }
        self.update_deadline_state(frame.camera, late, &settings);
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
        self.end(frame.camera, FrameOutcome::DroppedLate);
        self.publish_timing(frame, timing(frame, age, settings, times, dropped, verdict::DROPPED_LATE));
        self.report(frame.camera, Record::Frame(FrameRecord::new(frame, age, times, dropped).dropped()));
        self.update_deadline_state(frame.camera, true, settings);
        Ok(())
    }

    fn publish_timing(&mut self, frame: &Frame, timing: Timing) {
        let counts = self.shared.cameras[frame.camera].accounting.counts();
        self.capture.set_timing(&timing, &counts);
        self.timing_message.fill(frame.message.header(), &timing, &counts);
        if self.outputs[frame.camera].timing.publish_native(&mut self.timing_message.native).is_err() {
            self.report(frame.camera, Record::PublishingFailed);
        }
    }

    /// The masks that have subscribers.
    fn publish_masks(&mut self, camera: usize, header: &NativeHeader) {
        let classes = Arc::clone(&self.model.classes);
        let pipeline = self.model.pipeline();
        if !pipeline.has_segmentation() {
            return;
        }
        let result = pipeline.result();
        let (watched, output, message) = (&self.shared.cameras[camera], &self.outputs[camera], &mut self.mask_message);
        let mut failed = false;
        if watched.road_mask_wanted.load(Relaxed) && classes.has_road() {
            message.fill(header, &result.mask, result.size, |class| if classes.is_road(class) { 255 } else { 0 });
            failed |= output.road_mask.publish_native(&mut message.native).is_err();
        }
        if watched.segmentation_wanted.load(Relaxed) {
            message.fill(header, &result.mask, result.size, |class| class);
            failed |= output.segmentation.publish_native(&mut message.native).is_err();
        }
        if failed {
            self.report(camera, Record::PublishingFailed);
        }
    }

    /// The classes of the scene, averaged over the images up to that of `stamp`; published if they have
    /// subscribers.
    fn publish_scene(&mut self, camera: usize, header: &NativeHeader, stamp: Nanoseconds, smoothing: Nanoseconds) {
        let (result, messages) = self.model.scene();
        if messages.classes() == 0 {
            return;
        }
        let (watched, output) = (&self.shared.cameras[camera], &mut self.outputs[camera]);
        let average = output.smoother.add(&result.scene, messages.sizes(), stamp, smoothing);
        watched.scene.store(average, messages.sizes());
        let mut failed = false;
        if watched.scene_wanted.load(Relaxed) {
            let publisher = &output.scene_class;
            messages.publish(header, average, |native| failed |= publisher.publish_native(native).is_err());
        }
        if failed {
            self.report(camera, Record::PublishingFailed);
        }
    }

    /// Reports when it changes what is doubtful about the images' values.
    fn report_doubt(&mut self, camera: usize) {
        let LevelState { watch, reported } = &mut self.outputs[camera].levels;
        let doubt = watch.doubt();
        if std::mem::replace(reported, doubt) != doubt {
            self.report(camera, Record::Levels(doubt));
        }
    }

    fn report(&self, camera: usize, record: Record) {
        self.shared.cameras[camera].records.force_push(record);
    }
}

fn timing(frame: &Frame, age: &Age, settings: &FrameSettings, times: &StageTimes, publish: u64, verdict: u8) -> Timing {
    // A stage that was not reached has no time.
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
