//! `--explain-plan`: the steps of the CPU engine's plan, or (`--device cuda`) of the GPU's.

use peregrine_engine::cpu::Isa;
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{cpu_plan, explain_plan};

use super::output::{print, text_and_json};
use super::setup::Setup;

/// Runs; the least time of each step is shown.
const RUNS: usize = 100;

/// Compute capability (8.7) that a GPU plan is made for if there is no GPU.
const ORIN: u32 = 87;

/// Writes the table to standard output, or as JSON to the file of `--json`.
///
/// # Errors
/// If the engine refuses the network, or the file cannot be written.
pub fn explain(setup: &Setup) -> anyhow::Result<u8> {
    if setup.arguments.device.is_cuda() {
        print(&explain_plan(&setup.student, &setup.options, setup.arguments.device, ORIN)?);
        return Ok(0);
    }
    let graph = graph_for(&setup.student.manifest.architecture, &setup.options);
    if let Some(advice) = Isa::best().advice() {
        tracing::info!("{advice}");
    }
    let report = cpu_plan(&setup.student, &graph, setup.options.threads, RUNS)?;
    text_and_json(setup.arguments, &report.text(), &report.json())?;
    Ok(0)
}
