//! The report of a run: data and JSON here, human-readable text in `text`, figures in
//! [`distributions`].

mod distributions;
mod text;

use serde::Serialize;

use super::machine::Fingerprint;
use super::monitor::Conditions;
use super::node::side_by_side::SideBySide;
use super::profile::DeadlineProfile;
use super::record::{BenchLayer, BenchOutcome, BenchRun, FrameRecord, Tally};
use super::usage::CostPerFrame;
use super::verdict::Judgement;
pub use distributions::{distributions, LatencySummary};

/// Version of the JSON schema: incremented when a field is removed or changes its meaning.
pub const SCHEMA_VERSION: u32 = 2;

/// The report of a run. Serialises to the JSON that `bench/SCHEMA.md` describes.
#[derive(Debug, Clone, Serialize)]
pub struct BenchReport {
    pub schema_version: u32,
    pub profile: DeadlineProfile,
    /// `open` (a camera's schedule) or `closed` (back to back).
    pub r#loop: &'static str,
    pub layer: BenchLayer,
    /// As given on the command line.
    pub schedule: String,
    pub cameras: usize,
    pub machine: Fingerprint,
    pub conditions: Conditions,
    /// Number of warm-up frames.
    pub warmed_up: usize,
    pub subject: Subject,
    /// Injected faults, as given.
    pub injected: Vec<String>,
    /// Background loads, as given.
    pub stress: Vec<String>,
    pub elapsed_s: f64,
    pub counts: Tally,
    /// Latency from the scheduled instant and from arrival, of each stage, and figures derived from
    /// them.
    pub latency: Vec<LatencySummary>,
    /// Mean cost of a frame. `None` if not measured.
    pub cost: Option<CostPerFrame>,
    /// `None` for the closed loop, which has no deadline.
    pub judgement: Option<Judgement>,
    /// The slowest frames, in descending order.
    pub worst: Vec<WorstFrame>,
    /// With `--peer`: both nodes.
    pub side_by_side: Option<SideBySide>,
    /// Written last, on a single line of the JSON.
    #[serde(skip)]
    pub frames: FrameColumns,
}

/// All frames in columns, for `--compare` and as a trace for another run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FrameColumns {
    pub camera: Vec<usize>,
    /// Microseconds from the first scheduled instant.
    pub scheduled_us: Vec<f64>,
    pub latency_us: Vec<Option<f64>>,
    #[serde(rename = "fate")]
    pub outcome: Vec<BenchOutcome>,
}

impl FrameColumns {
    fn of(run: &BenchRun) -> Self {
        let (start, us) = (run.start(), |ns: u64| ns as f64 / 1e3);
        let records = &run.records;
        Self {
            camera: records.iter().map(|r| r.camera).collect(),
            scheduled_us: records.iter().map(|r| us(r.scheduled - start)).collect(),
            latency_us: records.iter().map(|r| r.latency().map(us)).collect(),
            outcome: records.iter().map(|r| r.outcome).collect(),
        }
    }
}

/// The subject of the measurement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Subject {
    pub model: String,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// Network input, pixels.
    pub input_width: usize,
    pub input_height: usize,
    /// The GPU, or the CPU with its instruction set; in layer node, the node's parameter `device`.
    pub device: String,
    pub threads: usize,
    pub pin_threads: bool,
    pub tracking: bool,
    /// SCHED_FIFO priority. `None` with default scheduling.
    pub realtime_priority: Option<i32>,
    pub segmentation: bool,
    /// Where the images came from.
    pub frames: String,
    /// A node that was not set up here; of its model, input and threads nothing is known.
    pub node: Option<MeasuredNode>,
}

/// A node that ran already, or was started by a command line of the user's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredNode {
    /// `None` for one that ran already.
    pub command: Option<String>,
    /// Of each camera, as are the detections'.
    pub image_topics: Vec<String>,
    pub detections_topics: Vec<String>,
    /// Whether it publishes `FrameTiming`; without, what happens in it is one stage.
    pub frame_timing: bool,
}

impl MeasuredNode {
    /// How it is called in reports.
    pub fn name(&self) -> String {
        match &self.command {
            Some(line) => format!("the node of `{line}`"),
            None => format!("the running node on {}", self.image_topics.join(", ")),
        }
    }
}

impl Subject {
    /// The subject of a node that was not set up here.
    pub fn of_node(self, node: MeasuredNode) -> Self {
        Self {
            model: node.name(),
            weights_sha256: String::new(),
            input_width: 0,
            input_height: 0,
            device: "unknown, of the node".into(),
            threads: 0,
            tracking: false,
            segmentation: false,
            node: Some(node),
            ..self
        }
    }
}

/// One of the slowest frames, with the time of each stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct WorstFrame {
    pub camera: usize,
    pub index: usize,
    /// Seconds from the start of the run to the frame's scheduled instant.
    pub at_s: f64,
    pub outcome: &'static str,
    pub latency_ms: f64,
    /// Milliseconds of each stage, in order.
    pub stages_ms: Vec<(&'static str, f64)>,
}

/// The context of a run in its report.
#[derive(Debug, Clone)]
pub struct RunContext {
    pub profile: DeadlineProfile,
    pub open_loop: bool,
    pub schedule: String,
    pub machine: Fingerprint,
    pub conditions: Conditions,
    pub warmed_up: usize,
    pub subject: Subject,
    pub injected: Vec<String>,
    pub stress: Vec<String>,
    /// Number of slowest frames to list.
    pub worst: usize,
}

impl BenchReport {
    /// The report of a run.
    pub fn new(run: &BenchRun, judgement: Option<Judgement>, context: RunContext) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            r#loop: if context.open_loop { "open" } else { "closed" },
            layer: run.layer,
            schedule: context.schedule,
            cameras: run.cameras().count(),
            machine: context.machine,
            conditions: context.conditions,
            warmed_up: context.warmed_up,
            subject: context.subject,
            injected: context.injected,
            stress: context.stress,
            elapsed_s: run.elapsed as f64 / 1e9,
            counts: run.tally(),
            latency: distributions(run)
                .into_iter()
                .map(|(of, distribution)| LatencySummary::new(of, distribution))
                .collect(),
            cost: CostPerFrame::of(&run.records),
            judgement,
            worst: worst_frames(run, context.worst),
            side_by_side: None,
            frames: FrameColumns::of(run),
            profile: context.profile,
        }
    }

    /// As JSON; ends with a line break.
    pub fn json(&self) -> String {
        let report = serde_json::to_string_pretty(self).expect("a report is plain data");
        let frames = serde_json::to_string(&self.frames).expect("numbers");
        format!("{},\n  \"frames\": {frames}\n}}\n", report.trim_end_matches("\n}"))
    }
}

/// The `count` slowest of the processed frames.
fn worst_frames(run: &BenchRun, count: usize) -> Vec<WorstFrame> {
    let start = run.start();
    let mut slowest: Vec<_> = run.records.iter().filter_map(|r| Some((r.until_done()?, r))).collect();
    slowest.sort_by_key(|&(latency, record)| (std::cmp::Reverse(latency), record.index));
    let describe = |&(latency, record): &(u64, &FrameRecord)| WorstFrame {
        index: record.index,
        at_s: record.scheduled.saturating_sub(start) as f64 / 1e9,
        camera: record.camera,
        outcome: record.outcome.name(),
        latency_ms: latency as f64 / 1e6,
        stages_ms: run.layer.stages().iter().map(|&s| (s.name(), record.stage(s).unwrap_or(0) as f64 / 1e6)).collect(),
    };
    slowest.iter().take(count).map(describe).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::simulation::{profile, simulate};
    use crate::verdict::judge;

    /// The report of a run in a synthetic context.
    pub(crate) fn report_of(run: &BenchRun, profile: DeadlineProfile) -> BenchReport {
        let judgement = judge(run, &profile, &Conditions::default(), false);
        let subject = Subject {
            model: "test".into(),
            weights_sha256: "ab".repeat(32),
            input_width: 320,
            input_height: 256,
            device: "none".into(),
            threads: 1,
            pin_threads: false,
            tracking: false,
            realtime_priority: None,
            segmentation: true,
            frames: "none".into(),
            node: None,
        };
        let context = RunContext {
            profile,
            open_loop: true,
            schedule: "fixed".into(),
            machine: Fingerprint::read(),
            conditions: Conditions::default(),
            warmed_up: 40,
            subject,
            injected: vec![],
            stress: vec![],
            worst: 2,
        };
        BenchReport::new(run, Some(judgement), context)
    }

    /// The report of 200 frames, one of which takes `stall` milliseconds in inference.
    pub(super) fn report(stall: u64) -> BenchReport {
        let profile = profile(200);
        let run = simulate(&profile, |frame| Some([1, if frame == 50 { stall } else { 5 }, 1]));
        report_of(&run, profile)
    }

    #[test]
    fn percentiles_among_frames_without_a_result_are_none() {
        let report = report(200);
        // 19 of 200 frames have no result.
        assert!((report.latency[0].percentiles[0].1.unwrap() - 7.0).abs() < 0.01);
        assert_eq!(report.latency[0].percentiles[2], ("p99", None));
        assert_eq!(report.latency[0].frames_without_result, 19);
        assert!(report.text().contains("none"));
    }

    #[test]
    fn json_has_its_version_and_every_section() {
        let value: serde_json::Value = serde_json::from_str(&report(200).json()).unwrap();
        assert_eq!(value["schema_version"], SCHEMA_VERSION);
        assert_eq!(value["judgement"]["verdict"], "missed");
        assert_eq!(value["judgement"]["culprit"]["stage"], "inference");
        assert_eq!(value["counts"]["arrived"], 200);
        let histogram = value["latency"][0]["histogram"].as_array().unwrap();
        let counted: u64 = histogram.iter().map(|bucket| bucket[1].as_u64().unwrap()).sum();
        assert_eq!(counted, 181);
    }
}
