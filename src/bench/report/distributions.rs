//! The distributions of the report.

use serde::Serialize;

use crate::record::{BenchLayer, BenchRun, FrameRecord, LatencyStage};
use crate::stats::{Distribution, QUANTILES};

/// Percentiles of one duration, in milliseconds. `None` if one falls among frames without a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencySummary {
    pub of: &'static str,
    /// Those of [`QUANTILES`], and `max`.
    pub percentiles: Vec<(&'static str, Option<f64>)>,
    pub frames_without_result: u64,
    /// Upper bounds in microseconds and counts of the buckets; counts of several runs can be added.
    pub histogram: Vec<(f64, u64)>,
}

impl LatencySummary {
    pub(super) fn new(of: &'static str, distribution: Distribution) -> Self {
        let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
        let mut percentiles: Vec<_> = QUANTILES.map(|(name, q)| (name, ms(distribution.quantile(q)))).into();
        percentiles.push(("max", ms(distribution.max())));
        let histogram = distribution.buckets().into_iter().map(|(ns, count)| (ns as f64 / 1e3, count)).collect();
        Self { of, percentiles, frames_without_result: distribution.without_result(), histogram }
    }
}

/// The distributions of the report, by name.
pub fn distributions(run: &BenchRun) -> Vec<(&'static str, Distribution)> {
    let records = &run.records;
    let mut all = vec![
        ("from schedule", Distribution::new(records.iter().map(FrameRecord::latency))),
        ("from arrival", Distribution::new(records.iter().map(FrameRecord::latency_from_arrival))),
    ];
    // Only of processed frames: others spent no time in the stage.
    let passed = |of: &dyn Fn(&FrameRecord) -> Option<u64>| Distribution::new(records.iter().filter_map(of).map(Some));
    all.extend(run.layer.stages().iter().map(|&stage| (stage.name(), passed(&|r| r.stage(stage)))));
    if run.layer.stages().contains(&LatencyStage::Inference) {
        all.push(("all but student", passed(&FrameRecord::besides_inference)));
    }
    if run.layer == BenchLayer::Node {
        all.push(("node but student", passed(&FrameRecord::node_besides_inference)));
    }
    all.push(("output jitter", Distribution::new(output_jitter(run).into_iter().map(Some))));
    if records.iter().any(|r| r.cost.cpu > 0) {
        all.push(("CPU time", passed(&|r| r.timestamps.map(|_| r.cost.cpu))));
    }
    all
}

/// Differences between the interval of two results and that of their scheduled instants, in
/// nanoseconds.
fn output_jitter(run: &BenchRun) -> Vec<u64> {
    let delay = |r: &FrameRecord| r.latency();
    run.cameras()
        .flat_map(|records| {
            let delays: Vec<_> = records.iter().filter_map(delay).collect();
            delays.windows(2).map(|pair| pair[0].abs_diff(pair[1])).collect::<Vec<_>>()
        })
        .collect()
}
