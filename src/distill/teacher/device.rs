//! Where teachers are run.

use anyhow::{bail, Context};
use clap::ValueEnum;
use ort::ep::{ExecutionProvider, CUDA};
use peregrine_engine::cpu::CpuEngine;
use peregrine_engine::{Engine, Graph};
use peregrine_student::Student;
use tracing::{info, warn};

use crate::gpu;

/// Device that computes a teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TeacherDevice {
    /// CUDA where there is a GPU that works, else the CPU.
    Auto,
    #[default]
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

/// The device of a teacher, and how many threads of the CPU it may use.
#[derive(Debug, Clone, Copy)]
pub struct Compute {
    pub device: TeacherDevice,
    pub threads: usize,
}

impl Compute {
    pub fn cpu(threads: usize) -> Self {
        Self { device: TeacherDevice::Cpu, threads }
    }

    /// What `on_cuda` makes, or `on_cpu` where that is not wanted or, with [`TeacherDevice::Auto`], not to be
    /// had; and whether it is on CUDA.
    pub(super) fn choose<T>(
        self,
        teacher: &str,
        on_cuda: impl FnOnce() -> anyhow::Result<T>,
        on_cpu: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, bool)> {
        match self.device {
            TeacherDevice::Cpu => Ok((on_cpu()?, false)),
            TeacherDevice::Cuda => {
                let made = on_cuda().with_context(|| format!("{teacher} on --device cuda"))?;
                Ok((made, true))
            }
            TeacherDevice::Auto => match on_cuda() {
                Ok(made) => {
                    info!("{teacher} runs on CUDA");
                    Ok((made, true))
                }
                Err(why) => {
                    warn!("{teacher} runs on the CPU: {why:#}");
                    Ok((on_cpu()?, false))
                }
            },
        }
    }

    /// An engine for a package's `graph`, and whether it is on CUDA, where it computes in half precision.
    ///
    /// # Errors
    /// When the device cannot run it.
    pub(super) fn engine(self, student: &Student, graph: &Graph) -> anyhow::Result<(Box<dyn Engine>, bool)> {
        let on_cpu = || -> anyhow::Result<Box<dyn Engine>> {
            Ok(Box::new(CpuEngine::new(graph, &student.weights, self.threads)?))
        };
        self.choose(&student.manifest.name, || on_cuda(student, graph), on_cpu)
    }
}

#[cfg(feature = "cuda")]
fn on_cuda(student: &Student, graph: &Graph) -> anyhow::Result<Box<dyn Engine>> {
    use peregrine_engine::cuda::{CudaEngine, Model, Wait};
    let model = Model::new(&gpu::open()?, graph, &student.weights, None)?;
    Ok(Box::new(CudaEngine::new(&std::sync::Arc::new(model), Wait::Block)?))
}

#[cfg(not(feature = "cuda"))]
fn on_cuda(_: &Student, _: &Graph) -> anyhow::Result<Box<dyn Engine>> {
    match gpu::open()? {}
}

/// ONNX Runtime's CUDA, with products in single precision.
///
/// # Errors
/// When the library that was opened has none.
pub(super) fn onnx_cuda() -> anyhow::Result<ort::ep::ExecutionProviderDispatch> {
    if !CUDA::is_available()? {
        bail!(
            "this ONNX Runtime was built without CUDA; pip install onnxruntime-gpu and name its libonnxruntime.so with \
             --onnxruntime, or use --device cpu"
        );
    }
    Ok(CUDA::default().with_tf32(false).build().error_on_failure())
}
