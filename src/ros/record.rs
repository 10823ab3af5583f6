//! What the frame thread reports to the diagnostics of each frame: small, copied, never allocated.

use peregrine_pipeline::StageTimes;
use peregrine_vision::preprocess::levels::LevelDoubt;

use super::age::Age;
use super::clock::Nanoseconds;
use super::incoming::{Frame, ShortText, UnpackError};

/// One event on the frame thread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Record {
    Frame(FrameRecord),
    Rejected(Rejection),
    /// What is doubtful about the images' values has changed; `None`: nothing any more.
    Levels(Option<LevelDoubt>),
    /// A message other than the detections could not be published.
    PublishingFailed,
    /// The frame panicked. It is rejected as well, unless its detections were published before.
    Panicked(ShortText<PANIC>),
}

/// Bytes that are kept of a panic's message.
pub const PANIC: usize = 120;

/// The durations of one frame, published or dropped late. In nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FrameRecord {
    /// Stamp to publish.
    pub latency: Nanoseconds,
    /// Stamp to arrival: exposure, driver and middleware.
    pub age_at_arrival: Nanoseconds,
    /// Arrival to publish: this node's share.
    pub from_arrival: Nanoseconds,
    /// Arrival to the start of processing.
    pub wait: Nanoseconds,
    pub preprocess: Nanoseconds,
    pub inference: Nanoseconds,
    pub decode: Nanoseconds,
    /// 0 without tracking.
    pub track: Nanoseconds,
    /// Filling the message and the middleware's publishing of it; 0 if it was dropped late.
    pub publish: Nanoseconds,
    /// Whether the frame went through all stages; otherwise `wait` and all after it are zero.
    pub processed: bool,
    pub has_stamp: bool,
    pub has_frame_id: bool,
}

impl FrameRecord {
    pub fn new(frame: &Frame, age: &Age, times: &StageTimes, publish: u64) -> Self {
        let arrival = frame.arrival.monotonic;
        let header = frame.message.header();
        let mut record = Self {
            latency: age.at(publish),
            age_at_arrival: age.at(arrival),
            from_arrival: publish.saturating_sub(arrival) as i64,
            has_stamp: super::messages::stamp(header) != 0,
            has_frame_id: !super::messages::bytes(&header.frame_id).is_empty(),
            ..Self::default()
        };
        if times.decode_end != 0 {
            record.processed = true;
            record.wait = times.preprocess_start.saturating_sub(arrival) as i64;
            record.preprocess = times.preprocess() as i64;
            record.inference = times.inference() as i64;
            record.decode = times.decode() as i64;
            record.track = times.track() as i64;
            record.publish = publish.saturating_sub(times.done()) as i64;
        }
        record
    }

    /// The same of a frame that was dropped late.
    pub fn dropped(self) -> Self {
        Self { publish: 0, ..self }
    }
}

/// Why a frame was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error(transparent)]
    Image(#[from] UnpackError),
    #[error("invalid stamp, {sec} s and {nanosec} ns: sec must be >= 0 and nanosec < 1000000000")]
    Stamp { sec: i32, nanosec: u32 },
    #[error("inference failed: {0}")]
    Inference(ShortText<120>),
    #[error("no thread can be started to decode the video; see whether the machine has memory left")]
    Thread,
    #[error("the middleware did not publish the detections")]
    Publishing,
    #[error("the frame panicked: {0}")]
    Panic(ShortText<PANIC>),
    #[error("the frame thread panicked while this image was in flight; its panic message says why")]
    FrameThread,
}

impl Rejection {
    /// The key of its counter in `/diagnostics`, such as `short_data`.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Image(error) => error.reason(),
            Self::Stamp { .. } => "stamp",
            Self::Inference(_) => "inference",
            Self::Thread => "no_decoder",
            Self::Publishing => "publishing",
            Self::Panic(_) => "panic",
            Self::FrameThread => "frame_thread",
        }
    }
}
