//! A human-readable plan: what the device does for a frame.

use std::fmt::Write;

use super::launch::{depth, Node, NodeWork};
use super::model::Model;

/// A table of `nodes`, each with those that it waits for.
pub fn table(model: &Model, nodes: &[Node], edges: &[Vec<usize>]) -> String {
    let device = model.driver().device();
    let plan = &model.network().layout.plan;
    let mut text = String::new();
    let mut say = |line: String| writeln!(text, "{line}").expect("a String takes all");
    say(format!("{}, sm_{}, {} multiprocessors", device.name, device.architecture, device.multiprocessors));
    say(format!(
        "{:>3} {:<28} {:<26} {:>14} {:>7} {:>9} {:>9} {:>8}  after",
        "", "step", "kernel", "output", "blocks", "threads", "at", "KFLOP"
    ));
    for (i, (node, before)) in nodes.iter().zip(edges).enumerate() {
        let step = plan.steps.iter().find(|s| s.name == node.name);
        let shape = step.map_or(String::new(), |s| {
            let s = model.network().view(s.output).shape;
            format!("{}x{}x{}", s.channels, s.height, s.width)
        });
        let flops = step.map_or(0, |s| plan.flops(s)) / 1000;
        let (kernel, blocks, threads) = match &node.work {
            NodeWork::Kernel(l) => (l.kernel.as_str(), l.grid.iter().map(|&g| u64::from(g)).product(), l.threads),
            NodeWork::Upload { .. } => ("copy to the device", 0, 0),
            NodeWork::Download { .. } => ("copy from the device", 0, 0),
        };
        let at = node.writes.first().map_or(String::new(), |w| format!("{:x}", w.start & 0xff_ffff));
        let after: Vec<_> = before.iter().map(usize::to_string).collect();
        say(format!(
            "{i:>3} {:<28} {kernel:<26} {shape:>14} {blocks:>7} {threads:>9} {at:>9} {flops:>8}  {}",
            node.name,
            after.join(" ")
        ));
    }
    let mib = |bytes: usize| bytes as f64 / (1024.0 * 1024.0);
    say(format!(
        "{} nodes, {} one after the other; arena {:.2} MiB, weights {:.2} MiB",
        nodes.len(),
        depth(edges),
        mib(model.network().layout.arena),
        mib(model.weight_bytes())
    ));
    text
}
