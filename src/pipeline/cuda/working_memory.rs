//! Memory and settings that all graphs of a camera share.

use std::sync::Arc;
use std::time::Duration;

use peregrine_core::Encoding;
use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind, Wait};
use peregrine_engine::cuda::model::Model;
use peregrine_engine::cuda::CudaError;
use peregrine_student::architecture::DETECTION_STRIDES;
use peregrine_student::head::{BoxForm, HeadForm};
use peregrine_student::{Architecture, DetectionLevel};

/// Bytes in front of an image: the [`arg::FrameHeader`] and room, so that rows begin aligned.
pub(super) const HEADER: usize = 64;

/// Where the detection head's outputs become boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decoding {
    /// In the graph.
    OnDevice,
    /// By the caller: the graph brings back the outputs.
    OnHost,
}

impl Decoding {
    /// On the device for the head that students are built with, of which the kernels know three
    /// levels; on the host for any other.
    pub fn of(architecture: &Architecture) -> Self {
        let levels = architecture.detection_levels();
        let known = match architecture.head_form() {
            None => true,
            Some(HeadForm { boxes: BoxForm::Distribution { center, .. }, peaks: false }) => center == 0.5,
            Some(_) => false,
        };
        let plain = levels.len() <= DETECTION_STRIDES.len() && levels.iter().all(|level| level.objectness.is_none());
        if known && plain {
            Self::OnDevice
        } else {
            Self::OnHost
        }
    }
}

/// Options of a [`FrameGraphs`](super::FrameGraphs), fixed for its life.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameOptions {
    /// Most detections, 1 to 1000.
    pub max_detections: usize,
    pub decoding: Decoding,
    /// Whether the network has its segmentation head.
    pub segmentation: bool,
    pub wait: Wait,
    /// CUDA stream priority: 0 is normal, negative is more urgent.
    pub priority: i32,
    /// Longest wait for a frame.
    pub timeout: Duration,
}

/// An image format: each has a graph of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ImageKind {
    pub encoding: Encoding,
    pub size: (usize, usize),
}

/// The network's working memory on the device, for one frame at a time.
pub(super) struct WorkingMemory {
    pub model: Arc<Model>,
    pub architecture: Architecture,
    pub options: FrameOptions,
    /// Tensors of the network.
    pub arena: DeviceMemory,
    /// Keys of candidates, followed by their count.
    pub keys: DeviceMemory,
    /// Maximum number of candidates: a class of a cell each; 0 where the host decodes.
    pub places: usize,
}

impl WorkingMemory {
    /// # Errors
    /// When the device fails.
    pub fn new(model: &Arc<Model>, architecture: &Architecture, options: FrameOptions) -> Result<Self, CudaError> {
        let input = model.network().view(0).shape;
        let cells = |level: &DetectionLevel| input.width.div_ceil(level.stride) * input.height.div_ceil(level.stride);
        let cells: usize = architecture.detection_levels().iter().map(cells).sum();
        let on_device = options.decoding == Decoding::OnDevice;
        let places = if on_device { cells * architecture.detection_classes().len() } else { 0 };
        let layout = &model.network().layout;
        let arena = DeviceMemory::new(model.driver(), MemoryKind::Device, layout.arena)?;
        model.driver().upload(arena.device() + layout.saturated() as u64, &0u32.to_ne_bytes())?;
        Ok(Self {
            arena,
            keys: DeviceMemory::new(model.driver(), MemoryKind::Device, 8 * places + 4)?,
            model: Arc::clone(model),
            architecture: architecture.clone(),
            options,
            places,
        })
    }
}
