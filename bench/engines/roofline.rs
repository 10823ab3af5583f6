//! Roofline analysis of our engine: `--explain-plan` as a table of the layers that lose most time
//! against the machine's peak.

use std::fmt::Write;

use anyhow::{Context, Result};
use peregrine_engine::cpu::explain::StageReport;
use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::{CpuEngine, PlanReport};
use peregrine_engine::Engine;

use crate::networks::Network;

/// Runs; the fastest of each layer counts.
const RUNS: usize = 60;

/// Stages with a row of their own.
const ROWS: usize = 14;

/// What one thread does: f32 first, then 8-bit integers where the network has them.
pub struct Roofline {
    network: String,
    report: PlanReport,
}

/// Measures `network`.
///
/// # Errors
/// If an engine cannot be built.
pub fn measure(network: &Network, input: &[f32]) -> Result<Vec<Roofline>> {
    let mut engine = CpuEngine::new(&network.graph, &network.weights, 1)?;
    engine.input().copy_from_slice(input);
    let mut all = vec![Roofline { network: network.name.clone(), report: engine.explain(RUNS) }];
    if let Some(quantized) = &network.quantized {
        let quantization = quantized.quantization.as_ref().context("a quantized student has its quantization")?;
        let mut engine = Int8Engine::new(&network.graph, &quantized.weights, quantization, 1)?;
        engine.input().copy_from_slice(input);
        all.push(Roofline { network: network.name.clone(), report: engine.explain(RUNS) });
    }
    Ok(all)
}

impl Roofline {
    /// Time of all operations at the peak of one thread, in milliseconds.
    pub fn milliseconds_at_peak(&self) -> f64 {
        let flops: usize = self.report.stages.iter().flat_map(|stage| &stage.steps).map(|step| step.flops).sum();
        flops as f64 / self.report.peak_gflops_per_second / 1e6
    }

    /// A heading and a table.
    pub fn markdown(&self) -> String {
        table(&self.network, &self.report).expect("writing to a string does not fail")
    }
}

/// Time of a stage beyond that of its operations at the machine's peak, in microseconds.
fn beyond_peak(stage: &StageReport) -> f64 {
    stage.microseconds.unwrap_or(0.0) * (1.0 - stage.share_of_peak.unwrap_or(0.0))
}

fn table(network: &str, report: &PlanReport) -> Result<String, std::fmt::Error> {
    let mut stages: Vec<&StageReport> = report.stages.iter().collect();
    stages.sort_by(|a, b| beyond_peak(b).total_cmp(&beyond_peak(a)));
    let micros = |stages: &[&StageReport]| stages.iter().filter_map(|s| s.microseconds).sum::<f64>();
    let flops = |s: &StageReport| s.steps.iter().map(|step| step.flops).sum::<usize>() as f64;
    let (all, total) = (stages.iter().map(|s| flops(s)).sum::<f64>(), micros(&stages));
    let peak = report.peak_gflops_per_second;
    let mut text = String::new();
    writeln!(
        text,
        "#### {network}, {}, 1 thread, layer by layer: {:.0} % of the machine's peak\n\n\
         {:.2} ms for {:.2} GFLOP is {:.0} GFLOP/s, and independent multiply-adds in registers reach {peak:.0}. The layers in \
         which most time is lost against that peak first; fused ones count together. Each time is the least of {RUNS}.\n",
        report.instruction_set,
        all / total / 1e3 / peak * 100.0,
        total / 1e3,
        all / 1e9,
        all / total / 1e3,
    )?;
    writeln!(text, "| layers | kernel | ms | of all | MFLOP | GFLOP/s | of peak | KiB | FLOP/byte |")?;
    writeln!(text, "|---|---|---|---|---|---|---|---|---|")?;
    for stage in &stages[..ROWS.min(stages.len())] {
        let names: Vec<_> = stage.steps.iter().map(|s| s.name.as_str()).collect();
        let kernels: Vec<_> = stage.steps.iter().map(|s| s.kernel.as_str()).collect();
        let (time, flops) = (stage.microseconds.unwrap_or(0.0), flops(stage));
        let bytes = stage.steps.iter().map(|s| s.bytes).sum::<usize>() as f64;
        let rate = |value: Option<f64>, unit: &str| value.map_or(String::new(), |v| format!("{v:.0}{unit}"));
        writeln!(
            text,
            "| {} | {} | {:.3} | {:.1} % | {:.1} | {} | {} | {:.0} | {:.1} |",
            names.join(" → "),
            kernels.join("; "),
            time / 1e3,
            100.0 * time / total,
            flops / 1e6,
            rate(stage.gflops_per_second, ""),
            rate(stage.share_of_peak.map(|s| 100.0 * s), " %"),
            bytes / 1024.0,
            flops / bytes,
        )?;
    }
    if let Some(rest) = stages.get(ROWS..).filter(|rest| !rest.is_empty()) {
        let (time, flops) = (micros(rest), rest.iter().map(|s| flops(s)).sum::<f64>());
        let rate = flops / time / 1e3;
        let share = 100.0 * time / total;
        writeln!(
            text,
            "| {} others | | {:.3} | {share:.1} % | {:.1} | {rate:.0} | {:.0} % | | |",
            rest.len(),
            time / 1e3,
            flops / 1e6,
            100.0 * rate / peak
        )?;
    }
    writeln!(text)?;
    Ok(text)
}
