//! Layer node: measured over the middleware.

use super::setup::Setup;

/// Measures the node, and a peer beside it where one is asked for; judges the node, and writes. The exit code.
///
/// # Errors
/// When a node cannot be started or does not answer, or a file cannot be written.
#[cfg(feature = "ros")]
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    use super::{in_process, output};
    use crate::bench::node::measure;
    use crate::bench::node::side_by_side::{Named, SideBySide};
    use crate::bench::stress;
    use anyhow::Context as _;

    in_process::announce(&setup.profile);
    let load = stress::Running::start(&setup.arguments.stress).context("--stress")?;
    let (measured, conditions) = measure::measure(setup)?;
    drop(load);
    let nodes: Vec<_> =
        measured.iter().map(|m| Named { name: m.name, run: &m.run, detections: m.detections }).collect();
    let mut report = in_process::report(setup, nodes[0].run, &setup.profile, conditions);
    if nodes.len() > 1 {
        report.side_by_side = Some(SideBySide::new(&nodes));
    }
    output::write(setup.arguments, &report, nodes[0].run)
}

/// # Errors
/// Always, in a program that was built without ROS: how to get one with it.
#[cfg(not(feature = "ros"))]
pub fn run(_: &Setup) -> anyhow::Result<u8> {
    anyhow::bail!(
        "--layer node: this latency_bench was built without ROS 2; `make build` builds it with ROS 2, or by hand \
         `. launch/setup/env.sh && cargo build --release --features ros`"
    )
}
