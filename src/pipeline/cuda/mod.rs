//! A frame on the GPU: from the camera's bytes to boxes and mask, as one CUDA graph per image format.
//!
//! bytes → pinned memory → device → letterbox → network → candidates → boxes, mask → pinned memory. The thresholds travel
//! in front of the image. Of a detection head whose form the kernels do not know, the outputs come back and the host
//! decodes them. A graph is created with the first image of its encoding and size; the most recent ones are cached.
//!
//! - `frame_graphs`: the graphs of one camera; `working_memory`: what they share.
//! - `nodes`: pre- and postprocessing nodes; `staging`: copies into pinned memory; `result`: what comes back.
//! - `front_end`: the graphs of all cameras, and the CPU engine to fall back to.

mod frame_graphs;
mod front_end;
mod image_form;
mod nodes;
mod result;
mod staging;
mod working_memory;

pub use frame_graphs::FrameGraphs;
pub(crate) use front_end::{CudaFrontEnd, LeakedWhileWorking};
pub use working_memory::{Decoding, FrameOptions};
