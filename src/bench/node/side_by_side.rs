//! The stages of several nodes in one table.

use std::fmt::Write;

use serde::Serialize;

use crate::record::{BenchRun, Tally};
use crate::report::distributions;

/// The quantiles of the table, besides the maximum.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

/// A run with the name of its node.
#[derive(Debug, Clone, Copy)]
pub struct NamedRun<'a> {
    pub name: &'a str,
    pub run: &'a BenchRun,
    /// Detections in all frames.
    pub detections: usize,
}

/// One row of the table: for each node, p50, p99, p99.9 and maximum in milliseconds. `None` if the
/// quantile falls among frames without a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    pub of: &'static str,
    pub nodes: Vec<[Option<f64>; 4]>,
}

/// Nodes measured in alternating blocks of one run, on the same images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    pub nodes: Vec<(String, Tally)>,
    /// Detections of each node in all frames: equal students find about the same number.
    pub detections: Vec<usize>,
    pub rows: Vec<StageRow>,
    /// Human-readable.
    #[serde(skip)]
    pub text: String,
}

impl SideBySide {
    /// Summarises the runs of the nodes.
    pub fn new(nodes: &[NamedRun]) -> Self {
        let tallies = nodes.iter().map(|node| (node.name.to_owned(), node.run.tally())).collect();
        Self {
            nodes: tallies,
            detections: nodes.iter().map(|n| n.detections).collect(),
            rows: rows(nodes),
            text: text(nodes),
        }
    }
}

/// The rows of all nodes, measured in the same layer.
pub fn rows(nodes: &[NamedRun]) -> Vec<StageRow> {
    let all: Vec<_> = nodes.iter().map(|node| distributions(node.run)).collect();
    let of = |&(of, _): &(&'static str, _)| of;
    all[0]
        .iter()
        .map(|row| StageRow {
            of: of(row),
            nodes: all
                .iter()
                .map(|distributions| {
                    let found = distributions.iter().find(|other| other.0 == row.0).map(|(_, d)| d);
                    let ms = |ns: Option<u64>| ns.map(|ns| ns as f64 / 1e6);
                    let quantile = |i: usize| found.and_then(|d| ms(d.quantile(QUANTILES[i].1)));
                    [quantile(0), quantile(1), quantile(2), found.and_then(|d| ms(d.max()))]
                })
                .collect(),
        })
        .collect()
}

/// Human-readable; ends with a line break.
pub fn text(nodes: &[NamedRun]) -> String {
    let mut out = format!("{:16}", "ms");
    for NamedRun { name, .. } in nodes {
        let _ = write!(out, " | {name:^35}");
    }
    let _ = write!(out, "\n{:16}", "");
    for _ in nodes {
        let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
        let heads: String = names.map(|name| format!("{name:>9}")).collect();
        let _ = write!(out, " |{heads}");
    }
    let _ = writeln!(out);
    for row in rows(nodes) {
        let _ = write!(out, "{:16}", row.of);
        for node in row.nodes {
            let figure = |ms: Option<f64>| ms.map_or(format!("{:>9}", "none"), |ms| format!("{ms:9.2}"));
            let _ = write!(out, " |{}", node.map(figure).concat());
        }
        let _ = writeln!(out);
    }
    for NamedRun { name, run, detections } in nodes {
        let t = run.tally();
        let _ = writeln!(
            out,
            "{name}: {} frames: {} on time, {} late, {} superseded, {} dropped late, {} lost; {detections} detections",
            t.due, t.counts.on_time, t.counts.late, t.counts.superseded, t.counts.dropped_late, t.lost
        );
    }
    out
}

/// The table as Markdown, for `bench/RESULTS.md`.
pub fn markdown(nodes: &[NamedRun]) -> String {
    let heads = nodes.iter().flat_map(|node| {
        let names = QUANTILES.map(|(name, _)| name).into_iter().chain(["max"]);
        names.map(move |name| format!(" {}: {name} |", node.name))
    });
    let mut out = format!("| ms |{}\n|---|{}\n", heads.collect::<String>(), "---|".repeat(4 * nodes.len()));
    for row in rows(nodes) {
        let figure = |ms: Option<f64>| ms.map_or(" none |".to_owned(), |ms| format!(" {ms:.2} |"));
        let figures: String = row.nodes.iter().flat_map(|node| node.map(figure)).collect();
        let _ = writeln!(out, "| {} |{figures}", row.of);
    }
    let _ = writeln!(out);
    for NamedRun { name, run, detections } in nodes {
        let t = run.tally();
        let _ = writeln!(
            out,
            "- {name}: {} frames, {} on time, {} late, {} superseded, {} dropped late, {} lost; {detections} detections.",
            t.due, t.counts.on_time, t.counts.late, t.counts.superseded, t.counts.dropped_late, t.lost
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::{profile, simulate};

    #[test]
    fn each_node_has_its_own_columns() {
        let (profile, work) = (profile(200), |ms: u64| move |_: usize| Some([1, ms, 1]));
        let (fast, slow) = (simulate(&profile, work(3)), simulate(&profile, work(6)));
        let nodes = [("fast", &fast), ("slow", &slow)].map(|(name, run)| NamedRun { name, run, detections: 9 });
        let row = rows(&nodes).into_iter().find(|row| row.of == "inference").unwrap();
        let ms: Vec<_> = row.nodes.iter().map(|n| n.map(|ms| ms.unwrap().round() as u64)).collect();
        assert_eq!(ms, [[3; 4], [6; 4]]);
        let text = text(&nodes);
        let line = text.lines().find(|l| l.starts_with("inference")).unwrap();
        assert!(line.contains("3.00") && line.contains("6.00") && text.contains("slow: 200 frames"), "{text}");
        let markdown = markdown(&nodes);
        assert!(markdown.starts_with("| ms | fast: p50 | fast: p99 |") && markdown.contains("\n| inference | 3.0"));
        let cells = |line: &str| line.matches('|').count();
        assert!(markdown.lines().take_while(|l| !l.is_empty()).all(|l| cells(l) == 10), "{markdown}");
    }
}
