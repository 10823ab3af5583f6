//! The execution plan of a device as a table, also without that device.

use peregrine_engine::cpu::int8::Int8Engine;
use peregrine_engine::cpu::{CpuEngine, PlanReport};
use peregrine_engine::Graph;
use peregrine_student::Student;

use super::{DeviceChoice, PipelineError, PipelineOptions};
use crate::graph::graph_for;

/// The plan for `student`: on the CPU, or (`cuda`) for the GPU that is there, else for the `architecture` named, such as
/// 87 for Orin. No GPU is used: kernel variants are estimated instead of measured.
///
/// # Errors
/// When an option is out of range, or the program was built without CUDA.
pub fn explain_plan(
    student: &Student,
    options: &PipelineOptions,
    choice: DeviceChoice,
    architecture: u32,
) -> Result<String, PipelineError> {
    options.check()?;
    if let DeviceChoice::Cuda(number) = choice {
        return explain_cuda(student, options, number, architecture);
    }
    let graph = graph_for(&student.manifest.architecture, options);
    Ok(cpu_plan(student, &graph, options.threads, 0)?.text())
}

/// The CPU's plan for `student`, in integers where it is quantized, with the minimum time of each stage over `runs` runs.
///
/// # Errors
/// When its weights do not fit `graph`.
pub fn cpu_plan(student: &Student, graph: &Graph, threads: usize, runs: usize) -> Result<PlanReport, PipelineError> {
    Ok(match &student.quantization {
        Some(q) => Int8Engine::new(graph, &student.weights, q, threads)?.explain(runs),
        None => CpuEngine::new(graph, &student.weights, threads)?.explain(runs),
    })
}

#[cfg(feature = "cuda")]
fn explain_cuda(
    student: &Student,
    options: &PipelineOptions,
    number: u32,
    architecture: u32,
) -> Result<String, PipelineError> {
    use std::sync::Arc;

    use super::Pipeline;
    use peregrine_core::ImageView;
    use peregrine_engine::cuda::recording::Recording;
    use peregrine_engine::cuda::{find_device, Driver};

    let architecture = find_device(number).map_or(architecture, |found| {
        let (major, minor) = found.compute_capability;
        (10 * major + minor) as u32
    });
    let driver: Arc<dyn Driver> = Arc::new(Recording::of_architecture(architecture));
    let mut pipeline = Pipeline::on_cuda(&driver, student, options, false)?;
    let pixels = vec![0; 640 * 480 * 3];
    let image = ImageView::new("rgb8", 640, 480, 3 * 640, &pixels).expect("a whole image");
    Ok(pipeline.explain_cuda(&image).expect("a pipeline on what stands in for a device"))
}

#[cfg(not(feature = "cuda"))]
fn explain_cuda(_: &Student, _: &PipelineOptions, _: u32, _: u32) -> Result<String, PipelineError> {
    Err(PipelineError::Device("this program was built without the feature cuda".into()))
}
