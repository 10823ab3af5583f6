//! `--explain-plan`: what the CPU engine runs, step by step, or (`--device cuda`) what a GPU would run.

use peregrine_engine::cpu::Isa;
use peregrine_pipeline::graph_for;
use peregrine_pipeline::{cpu_plan, explain_plan, DeviceChoice};

use super::output::{say, text_and_json};
use super::setup::Setup;

/// Runs of which each stage's least time is shown.
const RUNS: usize = 100;

/// The architecture that a plan for a GPU is made for where there is none.
const ORIN: u32 = 87;

/// Writes the table to standard output, or as JSON where `--json` says; of a quantized student, what runs in integers.
///
/// # Errors
/// When the engine refuses the network, or the file cannot be written.
pub fn explain(setup: &Setup) -> anyhow::Result<u8> {
    if setup.arguments.device == DeviceChoice::Cuda {
        say(&explain_plan(&setup.student, &setup.options, DeviceChoice::Cuda, ORIN)?);
        return Ok(0);
    }
    let graph = graph_for(&setup.student.manifest.architecture, &setup.options);
    if let Some(advice) = Isa::best().advice() {
        eprintln!("note: {advice}");
    }
    let report = cpu_plan(&setup.student, &graph, setup.options.threads, RUNS)?;
    text_and_json(setup.arguments, &report.text(), &report.json())?;
    Ok(0)
}
