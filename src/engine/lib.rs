//! Engines: each runs a [`Graph`] with its [`Weights`], batch 1, without allocation once it is built.
//!
//! - [`graph`]: the network as a list of layers; [`weights`]: their values.
//! - [`quantization`]: 8-bit weights and the scales of tensors, where a student has them.
//! - [`quantized_plan`]: which steps of a quantized network are integer, for any device.
//! - [`channels`]: which of its channels are one and the same.
//! - [`plan`]: a graph lowered to fused steps; [`plan_memory`]: where their tensors lie. For any device.
//! - [`cpu`]: the engine where there is no GPU.
//! - `cuda` (feature `cuda`): the engine on NVIDIA GPUs.

pub mod channels;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod graph;
pub mod plan;
pub mod plan_memory;
pub mod quantization;
pub mod quantized_plan;
pub mod weights;

pub use graph::{Activation, Conv, Graph, Layer, LayerId, Op, Shape};
pub use quantization::Quantization;
pub use weights::{ConvWeights, Weights};

use peregrine_core::PixelInput;

/// Why an engine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("layer {layer} {why}")]
    Graph { layer: String, why: String },
    #[error("layer {layer} {why}")]
    Weights { layer: String, why: String },
    #[error("the {device} engine cannot run this network: {why}")]
    Unsupported { device: &'static str, why: String },
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] cuda::CudaError),
}

/// A network made ready to run on one device.
pub trait Engine: Send {
    /// The input tensor to fill before [`run`](Self::run): planar RGB, normalised, row-major.
    fn input(&mut self) -> &mut [f32];

    /// The same input, to be filled pixel by pixel instead; none for engines that take it planar only.
    fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        None
    }

    /// Runs the network over the input.
    ///
    /// # Errors
    /// Only where the device itself fails.
    fn run(&mut self) -> Result<(), EngineError>;

    /// The `index`-th of the graph's outputs after a [`run`](Self::run): planar, row-major.
    fn output(&self, index: usize) -> &[f32];
}

/// The example of README.md, tested.
#[cfg(doctest)]
#[doc = include_str!("README.md")]
pub struct Readme;
