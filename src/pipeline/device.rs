//! Device selection and fallback of a pipeline.

use std::fmt;
use std::str::FromStr;

/// Requested device for inference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA if there is a usable GPU, else the CPU; also once the GPU fails.
    Auto,
    #[default]
    Cpu,
    /// CUDA only: an error without it.
    Cuda,
}

impl fmt::Display for DeviceChoice {
    /// As [`FromStr`] reads it.
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
            _ => Err(format!("invalid device {text:?}: use auto, cpu or cuda")),
        }
    }
}

/// GPU settings; no effect on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuOptions {
    pub wait: GpuWait,
    /// CUDA stream priority: 0 is normal, negative is more urgent; clamped to the device's range.
    pub priority: i32,
}

/// GPU synchronisation: how the CPU waits for a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GpuWait {
    /// Sleeps: frees the CPU.
    #[default]
    Block,
    /// Busy-waits: lower latency, uses a core.
    Spin,
}

impl FromStr for GpuWait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "block" => Ok(Self::Block),
            "spin" => Ok(Self::Spin),
            _ => Err(format!("invalid GPU synchronisation {text:?}: use block or spin")),
        }
    }
}

/// Device in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceInUse {
    Cpu {
        /// Why CUDA is not used although it was requested or tried: a sentence.
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
pub(super) use on_cuda::CudaFrontEnd;

#[cfg(feature = "cuda")]
mod on_cuda {
    use std::sync::Arc;

    use crate::cuda::FrameGraphs;
    use crate::cuda::FrameOptions;
    use crate::graph::graph_for;
    use crate::{GpuWait, PipelineOptions};
    use peregrine_engine::cuda::{CudaError, Driver, Model, Wait};
    use peregrine_engine::{Engine, EngineError};
    use peregrine_student::{Architecture, Student};

    /// The cameras' CUDA graphs, and the CPU engine to fall back to.
    ///
    /// Each camera has graphs, a stream and working memory of its own, created with its first image, and shares the
    /// weights. So no camera evicts another's graphs, however many image formats there are.
    pub struct CudaFrontEnd {
        model: Arc<Model>,
        architecture: Architecture,
        options: FrameOptions,
        cameras: Vec<FrameGraphs>,
        pub name: String,
        /// The CPU engine that takes over if the device fails, its threads asleep until then: created up front, since a
        /// frame is waiting at that moment. `None` without fallback.
        pub spare: Option<Box<dyn Engine>>,
    }

    impl CudaFrontEnd {
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
            // A device with too little memory for one camera is detected now.
            path.of(0)?;
            Ok(path)
        }

        /// A camera's graphs. The first call for a camera allocates.
        ///
        /// # Errors
        /// When the device fails, out of memory for instance.
        pub fn of(&mut self, camera: usize) -> Result<&mut FrameGraphs, CudaError> {
            while self.cameras.len() <= camera {
                self.cameras.push(FrameGraphs::new(&self.model, &self.architecture, self.options.clone())?);
            }
            Ok(&mut self.cameras[camera])
        }
    }
}
