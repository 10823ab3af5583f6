//! Layer node: measured over the middleware.

use super::setup::Setup;

/// Measures the node, and a peer beside it where one is asked for; judges the node, and writes. The exit code.
///
/// # Errors
/// When a node cannot be started or does not answer, or a file cannot be written.
#[cfg(feature = "ros")]
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    use super::{in_process, output};
    use crate::node::measure;
    use crate::node::side_by_side::{Named, SideBySide};
    use crate::results_file::replace_part;
    use crate::stress;
    use anyhow::Context as _;

    in_process::announce(&setup.profile);
    let load = stress::Running::start(&setup.arguments.stress).context("--stress")?;
    let (measured, conditions) = measure::measure(setup)?;
    drop(load);
    let nodes: Vec<_> =
        measured.iter().map(|m| Named { name: m.name, run: &m.run, detections: m.detections }).collect();
    let costs: Vec<_> = measured.iter().filter_map(|m| Some((m.name, m.cost?.cpu_ms))).collect();
    let mut report = in_process::report(setup, nodes[0].run, &setup.profile, (conditions, setup.profile.warmup_frames));
    report.cost = measured[0].cost;
    if nodes.len() > 1 {
        report.side_by_side = Some(SideBySide::new(&nodes));
    }
    if let Some(file) = &setup.arguments.results {
        let size = setup.arguments.image_size.map_or("as they come".to_owned(), |(w, h)| format!("{w}×{h}"));
        replace_part(file, &format!("make bench-node {size}"), &part(&size, setup, (&report, &costs), &nodes))
            .context("--results")?;
    }
    output::write(setup.arguments, &report, nodes[0].run)
}

/// What `bench/RESULTS.md` is to say of a run.
#[cfg(feature = "ros")]
fn part(
    size: &str,
    setup: &Setup,
    (report, costs): (&crate::Report, &[(&str, f64)]),
    nodes: &[crate::node::side_by_side::Named],
) -> String {
    use crate::node::side_by_side::markdown;
    use crate::results_file::circumstances;

    let load = report.conditions.load.map_or(String::new(), |load| {
        let [own, others] = [load.own, load.others].map(|share| 100.0 * share);
        format!(" {own:.0} % of the CPU time own, {others:.0} % others'.")
    });
    let realtime = setup.arguments.realtime.map_or(String::new(), |p| format!(" All processes at SCHED_FIFO {p}."));
    let costs: String = costs.iter().map(|(name, ms)| format!(" CPU time a frame, {name}: {ms:.1} ms.")).collect();
    format!(
        "### Images of {size} at {} Hz, {} frames a node\n\n{}.{load}{realtime}{costs}\n\n{}",
        report.profile.rate_hz,
        report.profile.frames,
        circumstances(),
        markdown(nodes)
    )
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
