//! What became of each frame, and where its time went.

use peregrine_core::{FrameCounts, FrameOutcome};
use peregrine_pipeline::StageTimes;
use serde::Serialize;

/// How much of the system is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Layer {
    /// The network alone, on an input that is ready.
    Engine,
    /// From the image in memory to boxes and mask, in this process.
    Pipeline,
    /// The whole ROS 2 node: images published and detections received over the middleware.
    Node,
}

impl Layer {
    /// The stages that a frame passes in this layer, in order.
    pub fn stages(self) -> &'static [Stage] {
        use Stage::{Arrival, Decode, Delivery, Inference, Preprocess, Publish, Track, Transport, Wait};
        match self {
            Self::Engine => &[Arrival, Wait, Inference],
            Self::Pipeline => &[Arrival, Wait, Preprocess, Inference, Decode, Track],
            Self::Node => &[Arrival, Transport, Wait, Preprocess, Inference, Decode, Track, Publish, Delivery],
        }
    }
}

/// Where the time of a frame goes, in the order in which it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// From the scheduled instant until the camera had it: the camera thread woke late.
    Arrival,
    /// Through the middleware to the node.
    Transport,
    /// Before work on it began: the worker was busy, or woke late.
    Wait,
    Preprocess,
    /// The student.
    Inference,
    Decode,
    Track,
    /// Filling the message, up to handing it to the middleware.
    Publish,
    /// Through the middleware to the subscriber.
    Delivery,
}

/// Number of [`Stage`]s.
pub const STAGES: usize = 9;

impl Stage {
    pub const ALL: [Self; STAGES] = [
        Self::Arrival,
        Self::Transport,
        Self::Wait,
        Self::Preprocess,
        Self::Inference,
        Self::Decode,
        Self::Track,
        Self::Publish,
        Self::Delivery,
    ];

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Arrival => "arrival",
            Self::Transport => "transport",
            Self::Wait => "wait",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
            Self::Decode => "decode",
            Self::Track => "track",
            Self::Publish => "publish",
            Self::Delivery => "delivery",
        }
    }

    /// Whether a worker is busy in it, so that the frames after it have to wait.
    pub fn is_work(self) -> bool {
        matches!(self, Self::Preprocess | Self::Inference | Self::Decode | Self::Track | Self::Publish)
    }
}

/// When a frame left each [`Stage`], by [`peregrine_core::now_ns`]. One that its layer does not have ends when the
/// stage before it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passage {
    pub ends: [u64; STAGES],
}

impl Passage {
    /// Of a frame that was put into the slot at `arrived` and then processed in this process.
    pub fn in_process(arrived: u64, times: &StageTimes) -> Self {
        let StageTimes { preprocess_start, preprocess_end, inference_end, decode_end, .. } = *times;
        let done = times.done();
        let ends = [arrived, arrived, preprocess_start, preprocess_end, inference_end, decode_end, done, done, done];
        Self { ends }
    }

    /// When it entered the slot or the node.
    pub fn arrived(&self) -> u64 {
        self.ends[Stage::Transport as usize]
    }

    /// When work on it was over.
    pub fn worked(&self) -> u64 {
        self.ends[Stage::Publish as usize]
    }

    /// When its result was there.
    pub fn done(&self) -> u64 {
        self.ends[STAGES - 1]
    }
}

/// How a frame that was due ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    OnTime,
    Late,
    /// A newer frame took its place before work on it began.
    Superseded,
    /// Its deadline had passed, so that its result was not published.
    DroppedLate,
    /// It could not be used, or the engine failed.
    Rejected,
    /// It never arrived: the camera did not send it, or the middleware lost it.
    Lost,
    /// Work on it never ended.
    Unfinished,
}

impl Fate {
    pub const ALL: [Self; 7] =
        [Self::OnTime, Self::Late, Self::Superseded, Self::DroppedLate, Self::Rejected, Self::Lost, Self::Unfinished];

    /// In lower case, such as `on time`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnTime => "on time",
            Self::Late => "late",
            Self::Superseded => "superseded",
            Self::DroppedLate => "dropped late",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Unfinished => "unfinished",
        }
    }
}

impl From<FrameOutcome> for Fate {
    fn from(outcome: FrameOutcome) -> Self {
        match outcome {
            FrameOutcome::OnTime => Self::OnTime,
            FrameOutcome::Late => Self::Late,
            FrameOutcome::Superseded => Self::Superseded,
            FrameOutcome::DroppedLate => Self::DroppedLate,
            FrameOutcome::Rejected => Self::Rejected,
        }
    }
}

/// What the work on one frame cost. Zero where it is not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameCost {
    /// CPU time of the whole process, nanoseconds.
    pub cpu: u64,
    /// Context switches of the worker's thread: it waited for something, or was made to wait.
    pub voluntary_switches: u32,
    pub involuntary_switches: u32,
    /// Page faults of the worker's thread: without and with reading from disk.
    pub minor_faults: u32,
    pub major_faults: u32,
    /// Allocations of the worker's thread; the engine's other threads are not counted.
    pub allocations: u32,
}

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord {
    /// Which camera it came from, from 0.
    pub camera: usize,
    /// From 0, in the order of the camera's schedule.
    pub index: usize,
    /// When the frame was due from the camera.
    pub scheduled: u64,
    pub fate: Fate,
    /// None unless it was processed.
    pub passage: Option<Passage>,
    /// The stage beyond which it never came, where that is known of a frame without a result.
    pub ended_in: Option<Stage>,
    pub cost: FrameCost,
}

impl FrameRecord {
    /// A frame that was never processed.
    pub fn unprocessed(camera: usize, index: usize, scheduled: u64, fate: Fate) -> Self {
        Self { camera, index, scheduled, fate, passage: None, ended_in: None, cost: FrameCost::default() }
    }

    /// Whether there was no result in time, for whatever reason.
    pub fn missed(&self) -> bool {
        self.fate != Fate::OnTime
    }

    /// Whether its result was published, in time or not.
    pub fn has_result(&self) -> bool {
        matches!(self.fate, Fate::OnTime | Fate::Late)
    }

    /// Nanoseconds from the scheduled instant to the published result.
    pub fn latency(&self) -> Option<u64> {
        self.until_done().filter(|_| self.has_result())
    }

    /// Nanoseconds from the arrival in the slot or node to the published result.
    pub fn latency_from_arrival(&self) -> Option<u64> {
        self.passage.filter(|_| self.has_result()).map(|p| p.done().saturating_sub(p.arrived()))
    }

    /// Nanoseconds from the scheduled instant to the end of all work, whether or not the result was then published.
    pub fn until_done(&self) -> Option<u64> {
        self.passage.map(|p| p.done().saturating_sub(self.scheduled))
    }

    /// Nanoseconds that a stage took.
    pub fn stage(&self, stage: Stage) -> Option<u64> {
        self.passage.map(|p| {
            let start = (stage as usize).checked_sub(1).map_or(self.scheduled, |before| p.ends[before]);
            p.ends[stage as usize].saturating_sub(start)
        })
    }

    /// Nanoseconds of all that is not the student: where the latency is more than the network's time.
    pub fn besides_inference(&self) -> Option<u64> {
        Some(self.until_done()?.saturating_sub(self.stage(Stage::Inference)?))
    }

    /// Of that, what the node does itself, from taking the image to handing over the message: without the camera's and the
    /// middleware's part.
    pub fn node_besides_inference(&self) -> Option<u64> {
        let own = [Stage::Wait, Stage::Preprocess, Stage::Decode, Stage::Track, Stage::Publish];
        own.into_iter().map(|stage| self.stage(stage)).sum()
    }
}

/// How many frames ended in which way. Those that were due have arrived, and are in the `counts`, or were lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    pub due: u64,
    /// In hand is what was still being worked on when the bench gave up waiting.
    #[serde(flatten)]
    pub counts: FrameCounts,
    pub lost: u64,
}

impl Tally {
    pub fn of(records: &[FrameRecord]) -> Self {
        let mut counts = [0; Fate::ALL.len()];
        records.iter().for_each(|r| counts[r.fate as usize] += 1);
        let [on_time, late, superseded, dropped_late, rejected, lost, in_flight] = counts;
        let due = records.len() as u64;
        let arrived = due - lost;
        Self {
            due,
            counts: FrameCounts { arrived, on_time, late, superseded, dropped_late, rejected, in_flight },
            lost,
        }
    }
}

/// A finished measurement: one record for each frame that was due.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub layer: Layer,
    /// Camera after camera, and each camera's frames in order.
    pub records: Vec<FrameRecord>,
    /// Nanoseconds from the first frame's instant to the end.
    pub elapsed: u64,
    /// Frames that were to be measured, where the run was ended before them.
    pub interrupted: Option<usize>,
}

impl Run {
    /// Each camera's frames.
    pub fn cameras(&self) -> impl Iterator<Item = &[FrameRecord]> {
        self.records.chunk_by(|a, b| a.camera == b.camera)
    }

    pub fn tally(&self) -> Tally {
        Tally::of(&self.records)
    }

    /// The first instant at which a frame was due.
    pub fn start(&self) -> u64 {
        self.records.iter().map(|r| r.scheduled).min().unwrap_or(0)
    }
}
