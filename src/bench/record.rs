//! The record of each frame: its outcome and the time of each stage.

use peregrine_core::{FrameCounts, FrameOutcome};
use peregrine_pipeline::StageTimes;
use serde::{Deserialize, Serialize};

/// The part of the system that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum BenchLayer {
    /// The network alone, on a prepared input.
    Engine,
    /// From an image in memory to boxes and mask, in this process.
    Pipeline,
    /// The whole ROS 2 node: images published and detections received over the middleware.
    Node,
    /// A node that publishes no FrameTiming: what happens between image and detections is one stage.
    #[value(skip)]
    ForeignNode,
}

impl BenchLayer {
    /// The stages of a frame in this layer, in order.
    pub fn stages(self) -> &'static [LatencyStage] {
        use LatencyStage::{Arrival, Decode, Delivery, Inference, Node, Preprocess, Publish, Track, Transport, Wait};
        match self {
            Self::Engine => &[Arrival, Wait, Inference],
            Self::Pipeline => &[Arrival, Wait, Preprocess, Inference, Decode, Track],
            Self::Node => &[Arrival, Transport, Wait, Preprocess, Inference, Decode, Track, Publish, Delivery],
            Self::ForeignNode => &[Arrival, Node],
        }
    }

    /// Human-readable.
    pub fn name(self) -> &'static str {
        match self {
            Self::Engine => "Engine",
            Self::Pipeline => "Pipeline",
            Self::Node => "Node",
            Self::ForeignNode => "Node (without FrameTiming)",
        }
    }

    /// Whether it is measured over the middleware.
    pub fn is_over_ros(self) -> bool {
        matches!(self, Self::Node | Self::ForeignNode)
    }
}

/// A part of a frame's latency, in the order in which frames pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencyStage {
    /// From the scheduled instant until the camera thread has the frame.
    Arrival,
    /// From the camera through the middleware to the node.
    Transport,
    /// Waiting for the worker: it was busy, or woke late.
    Wait,
    Preprocess,
    /// The network.
    Inference,
    Decode,
    Track,
    /// Filling the message and handing it to the middleware.
    Publish,
    /// From the node through the middleware to the subscriber.
    Delivery,
    /// From the camera through the middleware, a node that tells no times of its own, and back.
    Node,
}

/// Number of [`LatencyStage`]s.
pub const STAGES: usize = 10;

impl LatencyStage {
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
        Self::Node,
    ];

    /// Name in lower case.
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
            Self::Node => "node",
        }
    }

    /// Whether the worker is busy in this stage, so that later frames wait.
    pub fn is_work(self) -> bool {
        matches!(self, Self::Preprocess | Self::Inference | Self::Decode | Self::Track | Self::Publish | Self::Node)
    }
}

/// When a frame left each [`LatencyStage`], by [`peregrine_core::now_ns`]. A stage that the layer
/// does not have ends with the stage before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimestamps {
    pub ends: [u64; STAGES],
}

impl StageTimestamps {
    /// Of a frame that arrived in the slot at `arrived` and was processed in this process.
    pub fn in_process(arrived: u64, times: &StageTimes) -> Self {
        let StageTimes { preprocess_start, preprocess_end, inference_end, decode_end, .. } = *times;
        let done = times.done();
        let ends =
            [arrived, arrived, preprocess_start, preprocess_end, inference_end, decode_end, done, done, done, done];
        Self { ends }
    }

    /// When the frame arrived in the slot or the node.
    pub fn arrived(&self) -> u64 {
        self.ends[LatencyStage::Transport as usize]
    }

    /// When the worker was done with the frame.
    pub fn work_ended(&self) -> u64 {
        self.ends[LatencyStage::Publish as usize]
    }

    /// When the result was available.
    pub fn done(&self) -> u64 {
        self.ends[STAGES - 1]
    }
}

/// The outcome of a frame that was due: that of the node's frame accounting, or lost or unfinished.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BenchOutcome {
    OnTime,
    Late,
    /// A newer frame replaced it before work on it began.
    Superseded,
    /// Not published, since its deadline had passed.
    DroppedLate,
    /// The image was invalid, or the engine failed.
    Rejected,
    /// Never arrived: not sent by the camera, or dropped by the middleware.
    Lost,
    /// Sent to a node that tells no times, which published no detections for it: skipped there, or dropped by the
    /// middleware.
    Unanswered,
    /// Work on it never ended.
    Unfinished,
}

impl BenchOutcome {
    pub const ALL: [Self; 8] = [
        Self::OnTime,
        Self::Late,
        Self::Superseded,
        Self::DroppedLate,
        Self::Rejected,
        Self::Lost,
        Self::Unanswered,
        Self::Unfinished,
    ];

    /// In lower case, such as `on time`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnTime => "on time",
            Self::Late => "late",
            Self::Superseded => "superseded",
            Self::DroppedLate => "dropped late",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Unanswered => "unanswered",
            Self::Unfinished => "unfinished",
        }
    }
}

impl From<FrameOutcome> for BenchOutcome {
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

/// The cost of one frame. Zero if not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameCost {
    /// CPU time of the whole process, nanoseconds.
    pub cpu: u64,
    /// Context switches of the worker's thread.
    pub voluntary_switches: u32,
    pub involuntary_switches: u32,
    /// Page faults of the worker's thread: without and with reading from disk.
    pub minor_faults: u32,
    pub major_faults: u32,
    /// Allocations of the worker's thread; the engine's other threads are not counted.
    pub allocations: u32,
}

/// The record of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRecord {
    /// Camera, from 0.
    pub camera: usize,
    /// Number in the camera's schedule, from 0.
    pub index: usize,
    /// When the frame was due.
    pub scheduled: u64,
    pub outcome: BenchOutcome,
    /// `None` if it was not processed.
    pub timestamps: Option<StageTimestamps>,
    /// The last stage that a frame without a result reached, if known.
    pub ended_in: Option<LatencyStage>,
    pub cost: FrameCost,
}

impl FrameRecord {
    /// A frame that was never processed.
    pub fn unprocessed(camera: usize, index: usize, scheduled: u64, outcome: BenchOutcome) -> Self {
        Self { camera, index, scheduled, outcome, timestamps: None, ended_in: None, cost: FrameCost::default() }
    }

    /// Whether there was no result in time, for any reason.
    pub fn missed(&self) -> bool {
        self.outcome != BenchOutcome::OnTime
    }

    /// Whether a result was published, in time or late.
    pub fn has_result(&self) -> bool {
        matches!(self.outcome, BenchOutcome::OnTime | BenchOutcome::Late)
    }

    /// Nanoseconds from the scheduled instant to the published result.
    pub fn latency(&self) -> Option<u64> {
        self.until_done().filter(|_| self.has_result())
    }

    /// Nanoseconds from arrival in the slot or node to the published result.
    pub fn latency_from_arrival(&self) -> Option<u64> {
        self.timestamps.filter(|_| self.has_result()).map(|p| p.done().saturating_sub(p.arrived()))
    }

    /// Nanoseconds from the scheduled instant to the end of processing, whether published or not.
    pub fn until_done(&self) -> Option<u64> {
        self.timestamps.map(|p| p.done().saturating_sub(self.scheduled))
    }

    /// Duration of a stage in nanoseconds.
    pub fn stage(&self, stage: LatencyStage) -> Option<u64> {
        self.timestamps.map(|p| {
            let start = (stage as usize).checked_sub(1).map_or(self.scheduled, |before| p.ends[before]);
            p.ends[stage as usize].saturating_sub(start)
        })
    }

    /// Latency without the network's time, in nanoseconds.
    pub fn besides_inference(&self) -> Option<u64> {
        Some(self.until_done()?.saturating_sub(self.stage(LatencyStage::Inference)?))
    }

    /// Time in the node without the network's, in nanoseconds: neither camera nor middleware count.
    pub fn node_besides_inference(&self) -> Option<u64> {
        let own = [
            LatencyStage::Wait,
            LatencyStage::Preprocess,
            LatencyStage::Decode,
            LatencyStage::Track,
            LatencyStage::Publish,
        ];
        own.into_iter().map(|stage| self.stage(stage)).sum()
    }
}

/// Number of frames by outcome. Frames that were due either arrived, and are in `counts`, or were
/// lost or unanswered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    pub due: u64,
    /// `in_flight` are the frames that were never finished.
    #[serde(flatten)]
    pub counts: FrameCounts,
    pub lost: u64,
    pub unanswered: u64,
}

impl Tally {
    /// Counts the outcomes.
    pub fn of(records: &[FrameRecord]) -> Self {
        let mut counts = [0; BenchOutcome::ALL.len()];
        records.iter().for_each(|r| counts[r.outcome as usize] += 1);
        let [on_time, late, superseded, dropped_late, rejected, lost, unanswered, in_flight] = counts;
        let due = records.len() as u64;
        let arrived = due - lost - unanswered;
        Self {
            due,
            counts: FrameCounts { arrived, on_time, late, superseded, dropped_late, rejected, in_flight },
            lost,
            unanswered,
        }
    }
}

/// A finished measurement: one record for each frame that was due.
#[derive(Debug, Clone, PartialEq)]
pub struct BenchRun {
    pub layer: BenchLayer,
    /// Camera by camera, each camera's frames in order.
    pub records: Vec<FrameRecord>,
    /// Nanoseconds from the first frame's instant to the end.
    pub elapsed: u64,
    /// Number of frames planned, if the run was interrupted.
    pub interrupted: Option<usize>,
}

impl BenchRun {
    /// The frames of each camera.
    pub fn cameras(&self) -> impl Iterator<Item = &[FrameRecord]> {
        self.records.chunk_by(|a, b| a.camera == b.camera)
    }

    /// Number of frames by outcome.
    pub fn tally(&self) -> Tally {
        Tally::of(&self.records)
    }

    /// The first scheduled instant.
    pub fn start(&self) -> u64 {
        self.records.iter().map(|r| r.scheduled).min().unwrap_or(0)
    }
}
