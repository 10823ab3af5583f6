//! The table of layers.

use peregrine_engine::cuda::launch::{Node, NodeWork};
use peregrine_engine::cuda::Model;

/// A line for each kernel: its time, the least bytes that it moves and its operations; with
/// `peaks`, which of the two limits it (the roofline model of Williams et al. 2009), and the
/// fraction of that limit.
pub fn print(model: &Model, nodes: &[Node], times: &[(String, f32)], peaks: Option<&[f64]>) {
    println!("{:<28} {:<26} {:>8} {:>9} {:>9} {:>9} {:>9}", "step", "kernel", "us", "KiB", "MFLOP", "GB/s", "GFLOP/s");
    let plan = &model.network().layout.plan;
    for (node, (name, us)) in nodes.iter().zip(times) {
        let NodeWork::Kernel(launch) = &node.work else { continue };
        let step = plan.steps.iter().find(|s| &s.name == name);
        let flops = step.map_or(0, |s| plan.flops(s)) as f64;
        // Bytes are multiplied at twice the rate of halves.
        let rate = step.map_or(1.0, |s| 2.0 / model.network().view(s.inputs[0]).element.bytes() as f64);
        let bytes: u64 = node.reads.iter().chain(&node.writes).map(|s| s.end - s.start).sum();
        let (bytes, seconds) = (bytes as f64, f64::from(*us) * 1e-6);
        let limit = peaks.map_or(String::new(), |p| {
            let (compute, memory) = (flops / (rate * p[0] * 1e12), bytes / (p[1] * 1e9));
            let by = if compute > memory { "compute" } else { "memory" };
            format!("  {:5.1} % of its limit, {by}", 100.0 * compute.max(memory) / seconds)
        });
        println!(
            "{name:<28} {:<26} {us:>8.2} {:>9.1} {:>9.2} {:>9.1} {:>9.1}{limit}",
            launch.kernel,
            bytes / 1024.0,
            flops / 1e6,
            bytes / seconds / 1e9,
            flops / seconds / 1e9
        );
    }
}
