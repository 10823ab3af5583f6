//! The history of one camera's stream: what has happened since the node was configured, and in the
//! last seconds.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use peregrine_core::{now_ns, FrameCounts};
use peregrine_pipeline::camera::StampCounts;
use peregrine_pipeline::monitor::Condition;
use peregrine_pipeline::Stage;
use peregrine_vision::preprocess::levels::LevelDoubt;

use super::window::Window;
use crate::clock::Nanoseconds;
use crate::live::FrameSettings;
use crate::record::{Record, Rejection};
use crate::shared::CameraShared;

/// Rejected images by reason, and why the last one was rejected.
#[derive(Default)]
pub struct Rejections {
    pub by_reason: BTreeMap<&'static str, u64>,
    pub last: Option<Rejection>,
}

/// What is remembered of a stream from one assessment to the next.
#[derive(Default)]
pub struct StreamHistory {
    pub window: Window,
    pub rejections: Rejections,
    pub publishing_failures: u64,
    pub panics: u64,
    /// What is doubtful about the images' values.
    pub doubt: Option<LevelDoubt>,
    /// How long no image has come.
    pub silence: Nanoseconds,
    /// Whether any image has come since the node is active.
    pub has_begun: bool,
    pub stamps: StampCounts,
    pub condition: Condition,
    pub misses_in_a_row: u32,
    /// The rule that was last logged, as long as it holds.
    pub(super) logged: Option<&'static str>,
}

/// What a stream is assessed by besides its history.
pub struct StreamContext<'a> {
    /// Topic of the images, remapped.
    pub topic: &'a str,
    /// Why no images come, as far as the ROS graph shows.
    pub publishers: &'a str,
    pub settings: FrameSettings,
    /// What the degraded mode leaves out; `None` while it is not in force.
    pub left_out: Option<&'a str>,
    /// That simulated time does not come, while it does not.
    pub clock: Option<&'a str>,
    /// That several nodes publish the topic, if they do.
    pub rivals: Option<&'a str>,
    /// Why objects are not placed on the ground although they are to be.
    pub ground: Option<&'a str>,
    /// The frame that hangs, of whatever camera.
    pub hanging: Option<Hanging<'a>>,
}

/// A frame that hangs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hanging<'a> {
    /// Topic of the image.
    pub topic: &'a str,
    pub stage: Stage,
    /// Since when it is being processed, in ns.
    pub lasts: Nanoseconds,
}

impl Hanging<'_> {
    /// Whether it holds up the camera of `topic`: each has a decoder of videos of its own, and all
    /// share the thread of what follows.
    pub fn holds_up(&self, topic: &str) -> bool {
        self.stage != Stage::Video || self.topic == topic
    }

    /// What does not go on, for a sentence.
    pub fn meanwhile(&self) -> &'static str {
        match self.stage {
            Stage::Video => "no image of that topic is processed meanwhile",
            _ => "no image is processed meanwhile",
        }
    }
}

impl fmt::Display for Hanging<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topic, stage, lasts } = *self;
        let hangs = match stage {
            Stage::Take => "before its processing, while a new model takes over",
            Stage::Unpack => "in unpack, where images are checked and decompressed",
            Stage::Preprocess => "in preprocess",
            Stage::Inference => "in inference, the network",
            Stage::GpuWait => "in gpu_wait, waiting for the GPU",
            Stage::Decode => "in decode",
            Stage::Track => "in track",
            Stage::Publish => "in publish, where the middleware takes the detections",
            Stage::Outputs => "in outputs, what is published after the detections",
            Stage::Video => "in video, where libavcodec decodes it",
        };
        write!(f, "a frame of {topic} has hung for {:.1} s {hangs}", lasts as f64 / 1e9)
    }
}

impl StreamHistory {
    /// Of a stream whose window begins `now`, with what came since configure, before diagnostics
    /// first looked. Rejections continue those given.
    pub fn new(now: Instant, camera: &CameraShared, rejections: Rejections) -> Self {
        let mut history = Self { rejections, ..Self::default() };
        history.window.advance(now, camera.counted_before);
        history
    }

    /// Takes in what has happened since the last call, and returns the counts of all frames.
    pub fn update(&mut self, camera: &CameraShared, now: Instant) -> FrameCounts {
        let mut panicked = None;
        while let Some(record) = camera.records.pop() {
            match record {
                Record::Frame(frame) => self.window.add(now, frame),
                Record::Rejected(rejection) => {
                    *self.rejections.by_reason.entry(rejection.reason()).or_default() += 1;
                    self.rejections.last = Some(rejection);
                }
                Record::Levels(doubt) => self.doubt = doubt,
                Record::PublishingFailed => self.publishing_failures += 1,
                Record::Panicked(text) => {
                    self.panics += 1;
                    panicked = Some(text);
                }
            }
        }
        // Here, since the frame thread never logs; and once, however many there were.
        if let Some(text) = panicked {
            tracing::error!("a frame panicked, {} in all, the last: {text}", self.panics);
        }
        let counts = camera.accounting.counts();
        // A stopped watchdog, as when the node is taken down, changes nothing.
        if let Some(silence) = camera.liveness.silence(now_ns()) {
            self.silence = silence;
            self.has_begun = camera.liveness.has_begun();
        }
        self.stamps = camera.stamps.load();
        self.condition = Condition::from_number(camera.condition.load(Relaxed));
        self.misses_in_a_row = camera.misses_in_a_row.load(Relaxed);
        self.window.advance(now, counts);
        counts
    }

    /// How many images were rejected for a reason, by its key.
    pub fn rejected(&self, reason: &str) -> u64 {
        self.rejections.by_reason.get(reason).copied().unwrap_or(0)
    }

    /// Why the last rejected image was rejected.
    pub fn last_rejection(&self) -> String {
        self.rejections.last.map_or("none".into(), |rejection| rejection.to_string())
    }

    pub fn into_rejections(self) -> Rejections {
        self.rejections
    }
}
