//! The thread that makes events of frames, while anybody is looking.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use peregrine_core::scheduling::use_default_scheduling;
use serde_json::json;

use super::events;
use super::hub::Hub;
use crate::capture::{CaptureQueue, CapturedFrame};
use crate::picture::PictureEncoder;

/// Longest wait for a frame before the stop flag is looked at.
const MAX_WAIT: Duration = Duration::from_millis(200);

/// Least time between two pictures of a camera.
const PERIOD: Duration = Duration::from_millis(80);

/// How long latencies are kept.
const HISTORY: Duration = Duration::from_secs(60);

/// Least time between two events of the latencies.
const HISTORY_PERIOD: Duration = Duration::from_millis(250);

/// Makes events of frames from `queue` until `stop`.
pub fn run(hub: &Hub, queue: &CaptureQueue, stop: &AtomicBool) {
    // The thread that started this one may have a real-time priority.
    use_default_scheduling();
    let mut cameras: Vec<_> = hub.cameras.iter().map(|_| Camera::default()).collect();
    let mut encoder = PictureEncoder::default();
    while !stop.load(Relaxed) {
        queue.wait(MAX_WAIT);
        while let Some(frame) = queue.take() {
            if let Some(camera) = cameras.get_mut(frame.camera).filter(|_| hub.is_watched()) {
                camera.show(hub, &frame, &mut encoder);
            }
            queue.recycle(frame);
        }
    }
}

/// What is kept of one camera.
#[derive(Default)]
struct Camera {
    last_picture: Option<Instant>,
    last_history: Option<Instant>,
    /// When each frame was, with its latency and deadline in ms.
    latencies: VecDeque<(Instant, f64, f64)>,
}

impl Camera {
    fn show(&mut self, hub: &Hub, frame: &CapturedFrame, encoder: &mut PictureEncoder) {
        let now = Instant::now();
        if let Some((timing, _)) = &frame.timing {
            self.latencies.push_back((now, timing.latency as f64 / 1e6, timing.deadline as f64 / 1e6));
        }
        while self.latencies.front().is_some_and(|(at, ..)| now - *at > HISTORY) {
            self.latencies.pop_front();
        }
        let is_due = |last: Option<Instant>, period| last.is_none_or(|last| now - last >= period);
        if is_due(self.last_picture, PERIOD) {
            self.last_picture = Some(now);
            let picture = frame.message.as_deref().and_then(|message| encoder.encode(message));
            let picture = picture.map(|picture| (picture.jpeg, picture.size));
            hub.publish(("frame", frame.camera), events::frame(frame, picture));
        }
        if is_due(self.last_history, HISTORY_PERIOD) {
            self.last_history = Some(now);
            let tenths = |ms: f64| (ms * 10.0).round() / 10.0;
            let points: Vec<_> =
                self.latencies.iter().map(|(at, l, _)| [tenths((now - *at).as_secs_f64() * 1e3), tenths(*l)]).collect();
            let deadline = self.latencies.back().map_or(0.0, |(.., deadline)| *deadline);
            let event = json!({ "camera": frame.camera, "deadline": deadline, "points": points });
            hub.publish(("latency", frame.camera), event.to_string());
        }
    }
}
