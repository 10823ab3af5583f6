//! All cameras of a pipeline on one GPU.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use peregrine_core::Encoding;
use peregrine_engine::cuda::{CudaError, Driver, Model, Wait};
use peregrine_engine::{Engine, EngineError};
use peregrine_student::{Architecture, Student};

use super::frame_graphs::FrameGraphs;
use super::working_memory::{Decoding, FrameOptions};
use crate::device::GpuWait;
use crate::graph::graph_for;
use crate::options::PipelineOptions;

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
            decoding: Decoding::of(architecture),
            segmentation: options.segmentation && architecture.segmentation.is_some(),
            wait: match options.gpu.wait {
                GpuWait::Block => Wait::Block,
                GpuWait::Spin => Wait::Spin,
            },
            priority: options.gpu.priority,
            timeout: options.gpu.timeout,
        };
        let cpu_engine = || student.cpu_engine(&graph, options.threads, options.pin_threads);
        let spare = fallback.then(cpu_engine).transpose()?;
        let (architecture, name) = (architecture.clone(), driver.device().name.clone());
        let mut path = Self { model, architecture, options: frame, cameras: Vec::new(), name, spare };
        // A device with too little memory for one camera is detected now.
        path.of(0)?;
        Ok(path)
    }

    /// Where boxes are decoded.
    pub fn decoding(&self) -> Decoding {
        self.options.decoding
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

    /// Results of the network beyond the range of half precision, of all cameras and of all frames before the last one.
    pub fn saturated(&self) -> u64 {
        self.cameras.iter().map(|camera| u64::from(camera.saturated())).sum()
    }

    /// The number of `camera`'s image whose result is yet to be collected.
    pub fn submitted(&self, camera: usize) -> Option<u64> {
        self.cameras.get(camera).and_then(FrameGraphs::submitted)
    }

    /// Whether an image of `camera` can be submitted without waiting for the device or allocating.
    pub fn is_ready_for(&self, camera: usize, encoding: Encoding, size: (usize, usize)) -> bool {
        self.cameras.get(camera).is_some_and(|graphs| graphs.is_ready_for(encoding, size))
    }

    /// No image that was submitted is known by its number any more.
    pub fn abandon(&mut self) {
        self.cameras.iter_mut().for_each(FrameGraphs::abandon);
    }

    /// Whether the device still works on an image of any camera.
    fn is_working(&mut self) -> bool {
        // Where it hangs for one camera, no time is spent on the others.
        self.cameras.iter_mut().any(FrameGraphs::hangs) || self.cameras.iter_mut().any(FrameGraphs::is_working)
    }
}

/// A front end that is leaked, with its device's memory, if it is dropped while the device hangs: to
/// give back what a graph uses would mean to wait for its end.
pub struct LeakedWhileWorking(ManuallyDrop<CudaFrontEnd>);

impl From<CudaFrontEnd> for LeakedWhileWorking {
    fn from(front_end: CudaFrontEnd) -> Self {
        Self(ManuallyDrop::new(front_end))
    }
}

impl Deref for LeakedWhileWorking {
    type Target = CudaFrontEnd;

    fn deref(&self) -> &CudaFrontEnd {
        &self.0
    }
}

impl DerefMut for LeakedWhileWorking {
    fn deref_mut(&mut self) -> &mut CudaFrontEnd {
        &mut self.0
    }
}

impl Drop for LeakedWhileWorking {
    fn drop(&mut self) {
        if !self.0.is_working() {
            // SAFETY: here alone, and not used afterwards.
            unsafe { ManuallyDrop::drop(&mut self.0) };
        }
    }
}
