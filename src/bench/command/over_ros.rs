//! Runs of the layer node, over the middleware.

use super::setup::Setup;

/// Measures the node, and a peer if requested; judges the node and writes the report. Returns the
/// exit code.
///
/// # Errors
/// If a node cannot be started or does not answer, or a file cannot be written.
#[cfg(feature = "ros")]
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    use super::{in_process, output};
    use crate::node::measure;
    use crate::node::side_by_side::{NamedRun, SideBySide};
    use crate::results_file::replace_section;
    use crate::stress;
    use anyhow::Context as _;

    let timetable = |camera| setup.timetable_of(camera, setup.profile.frames, setup.profile.period_ns());
    let timetables = (0..setup.arguments.camera_count()).map(timetable).collect::<Result<Vec<_>, _>>()?;
    let longest = timetables.iter().max_by(|a, b| a.duration_s().total_cmp(&b.duration_s()));
    longest.into_iter().for_each(|timetable| in_process::announce(&setup.profile, timetable));
    let load = stress::StressLoad::start(&setup.arguments.stress).context("--stress")?;
    let measure::Measured { nodes: measured, conditions, foreign } = measure::measure(setup)?;
    drop(load);
    let nodes: Vec<_> =
        measured.iter().map(|m| NamedRun { name: m.name, run: &m.run, detections: m.detections }).collect();
    let costs: Vec<_> = measured.iter().filter_map(|m| Some((m.name, m.cost?.cpu_ms))).collect();
    let mut report = in_process::report(setup, nodes[0].run, &setup.profile, (conditions, setup.profile.warmup_frames));
    report.cost = measured[0].cost;
    if let Some(node) = foreign {
        report.subject = report.subject.of_node(node);
    }
    if nodes.len() > 1 {
        report.side_by_side = Some(SideBySide::new(&nodes));
    }
    if let Some(file) = &setup.arguments.results {
        let size = setup.arguments.image_size.map_or("original size".to_owned(), |(w, h)| format!("{w}×{h}"));
        replace_section(file, &format!("make bench-node {size}"), &section(&size, setup, (&report, &costs), &nodes))
            .context("--results")?;
    }
    output::write(setup.arguments, &report, nodes[0].run)
}

/// The section of `bench/RESULTS.md` for a run.
#[cfg(feature = "ros")]
fn section(
    size: &str,
    setup: &Setup,
    (report, costs): (&crate::BenchReport, &[(&str, f64)]),
    nodes: &[crate::node::side_by_side::NamedRun],
) -> String {
    use crate::node::side_by_side::markdown;
    use crate::results_file::conditions;

    let load = report.conditions.load.map_or(String::new(), |load| {
        let [own, others] = [load.own, load.others].map(|fraction| 100.0 * fraction);
        format!(" CPU time: own {own:.0} %, other programs {others:.0} %.")
    });
    let realtime = setup.arguments.realtime.map_or(String::new(), |p| format!(" All processes at SCHED_FIFO {p}."));
    let costs: String = costs.iter().map(|(name, ms)| format!(" CPU time per frame, {name}: {ms:.1} ms.")).collect();
    format!(
        "### Images of {size} at {} Hz, {} frames per node\n\n{}.{load}{realtime}{costs}\n\n{}",
        report.profile.rate_hz,
        report.profile.frames,
        conditions(),
        markdown(nodes)
    )
}

/// # Errors
/// Always: this build is without ROS 2. The message names the remedy.
#[cfg(not(feature = "ros"))]
pub fn run(_: &Setup) -> anyhow::Result<u8> {
    anyhow::bail!(
        "--layer node: this latency_bench was built without ROS 2; `make build` builds it with ROS 2, or by hand \
         `. launch/setup/env.sh && cargo build --release --features ros`"
    )
}
