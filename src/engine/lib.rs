#![doc = include_str!("README.md")]
//!
//! ## Modules
//!
//! - [`graph`]: the network as a list of layers; [`op`]: what these do; [`weights`]: their values.
//! - [`quantization`]: 8-bit weights and the scales of tensors, of a quantized network.
//! - [`cpu`]: engines on CPU cores. `cuda` (feature `cuda`): the engine on NVIDIA GPUs.
//!
//! Below them, for any device: `plan` (a graph lowered to fused steps), `plan_memory` (where their
//! tensors lie), `quantized_plan` (which steps are integer), `channels` (which channels of a graph
//! are tied together).

#![warn(missing_docs)]

#[doc(hidden)]
pub mod channels;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod graph;
pub mod op;
#[doc(hidden)]
pub mod plan;
#[doc(hidden)]
pub mod plan_memory;
pub mod quantization;
#[doc(hidden)]
pub mod quantized_plan;
pub mod weights;

pub use graph::{Graph, Layer, LayerId, Shape};
pub use op::{Activation, Conv, Interpolation, Op, Padding, Window};
pub use quantization::Quantization;
pub use weights::{ConvWeights, Weights};

use peregrine_core::PixelInput;

/// Why an engine could not be built or run.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A layer of the graph is invalid.
    #[error("layer {layer} {why}")]
    #[allow(missing_docs, reason = "its name, and the end of the sentence")]
    Graph { layer: String, why: String },
    /// A layer's weights, or its quantization, do not fit the graph.
    #[error("layer {layer} {why}")]
    #[allow(missing_docs, reason = "its name, and the end of the sentence")]
    Weights { layer: String, why: String },
    /// The network or a setting is valid, but this device's engine does not support it.
    #[error("the {device} engine cannot run this network: {why}")]
    #[allow(missing_docs, reason = "said by the message")]
    Unsupported { device: &'static str, why: String },
    /// The CUDA device cannot be used, or failed.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Cuda(#[from] cuda::CudaError),
}

/// A network made ready to run on one device: fill the input, [`run`](Self::run), read the outputs.
pub trait Engine: Send {
    /// The input tensor `[3, height, width]` to fill before [`run`](Self::run): planar RGB,
    /// normalised, row-major; other channels than RGB if the graph's input has others.
    fn input(&mut self) -> &mut [f32];

    /// The same input, to be filled pixel by pixel instead; `None` if the engine takes it planar
    /// only.
    fn pixels(&mut self) -> Option<&mut dyn PixelInput> {
        None
    }

    /// Runs the network over the input. Does not allocate.
    ///
    /// # Errors
    /// Only if the device itself fails.
    fn run(&mut self) -> Result<(), EngineError>;

    /// The `index`-th of the graph's outputs after a [`run`](Self::run), `[channels, height,
    /// width]`: planar, row-major.
    ///
    /// # Panics
    /// If the graph has no such output.
    fn output(&self, index: usize) -> &[f32];
}

/// The example of README.md, tested.
#[cfg(doctest)]
#[doc = include_str!("README.md")]
pub struct Readme;
