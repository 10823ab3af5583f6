//! Where a pipeline runs: the choice, and how it falls back.

use std::fmt;
use std::str::FromStr;

/// Where inference is to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// On CUDA where there is a device, else, and when the device fails, on the CPU.
    Auto,
    #[default]
    Cpu,
    /// On CUDA or not at all.
    Cuda,
}

impl fmt::Display for DeviceChoice {
    /// As it is read.
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        })
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("{text:?} is no device; use auto, cpu or cuda")),
        }
    }
}

/// How a GPU is used; of no effect on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuOptions {
    pub wait: GpuWait,
    /// Of the stream: 0 is normal, below 0 more urgent. What is beyond the device's range counts as its end.
    pub priority: i32,
}

/// How the CPU waits for a frame on the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuWait {
    /// Asleep: the CPU is free for others.
    #[default]
    Block,
    /// Asking again and again: some microseconds sooner, at the price of a core.
    Spin,
}

impl FromStr for GpuWait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "block" => Ok(Self::Block),
            "spin" => Ok(Self::Spin),
            _ => Err(format!("{text:?} is no way to wait for a GPU; use block or spin")),
        }
    }
}

/// Where inference runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceInUse {
    Cpu {
        /// Why not on CUDA, where that was asked for or tried: a sentence.
        instead_of_cuda: Option<String>,
    },
    /// Name of the device.
    Cuda(String),
}

impl DeviceInUse {
    /// `cpu` or `cuda`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu { .. } => "cpu",
            Self::Cuda(_) => "cuda",
        }
    }
}

impl fmt::Display for DeviceInUse {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu { instead_of_cuda: None } => f.write_str("the CPU"),
            Self::Cpu { instead_of_cuda: Some(why) } => write!(f, "the CPU ({why})"),
            Self::Cuda(name) => f.write_str(name),
        }
    }
}

#[cfg(feature = "cuda")]
pub(super) use on_cuda::CudaPath;

#[cfg(feature = "cuda")]
mod on_cuda {
    use std::sync::Arc;

    use crate::cuda::FrameOptions;
    use crate::cuda::FramePath;
    use crate::frame::graph_for;
    use crate::{GpuWait, PipelineOptions};
    use peregrine_engine::cuda::{CudaError, Driver, Model, Wait};
    use peregrine_engine::{Engine, EngineError};
    use peregrine_student::{Architecture, Student};

    /// The cameras' ways on CUDA, and what to go on with where it fails.
    ///
    /// Each camera has graphs, a stream and working memory of its own, made when its first image comes, and shares the
    /// weights. So no camera's graphs give way to another's, however many kinds of images there are.
    pub struct CudaPath {
        model: Arc<Model>,
        architecture: Architecture,
        options: FrameOptions,
        cameras: Vec<FramePath>,
        pub name: String,
        /// The engine that goes on where the device fails, with its threads asleep until then: made now, since a frame waits
        /// then. None where only CUDA will do.
        pub spare: Option<Box<dyn Engine>>,
    }

    impl CudaPath {
        pub fn new(
            driver: &Arc<dyn Driver>,
            student: &Student,
            options: &PipelineOptions,
            fallback: bool,
        ) -> Result<Self, EngineError> {
            let architecture = &student.manifest.architecture;
            let graph = graph_for(architecture, options);
            let model = Model::shared(
                driver,
                &graph,
                &student.weights,
                student.quantization.as_ref(),
                &student.manifest.weights.sha256,
            )?;
            let frame = FrameOptions {
                max_detections: options.max_detections,
                segmentation: options.segmentation,
                wait: match options.gpu.wait {
                    GpuWait::Block => Wait::Block,
                    GpuWait::Spin => Wait::Spin,
                },
                priority: options.gpu.priority,
            };
            let cpu_engine = || student.cpu_engine(&graph, options.threads, options.pin_threads);
            let spare = fallback.then(cpu_engine).transpose()?;
            let (architecture, name) = (architecture.clone(), driver.device().name.clone());
            let mut path = Self { model, architecture, options: frame, cameras: Vec::new(), name, spare };
            // A device without room for one camera is found out now.
            path.of(0)?;
            Ok(path)
        }

        /// A camera's way. The first call for a camera allocates.
        ///
        /// # Errors
        /// When the device fails, for want of memory for instance.
        pub fn of(&mut self, camera: usize) -> Result<&mut FramePath, CudaError> {
            while self.cameras.len() <= camera {
                self.cameras.push(FramePath::new(&self.model, &self.architecture, self.options.clone())?);
            }
            Ok(&mut self.cameras[camera])
        }
    }
}
