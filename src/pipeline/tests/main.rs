//! Whole frames, on the CPU and on emulated CUDA devices.

#[cfg(feature = "cuda")]
mod cuda_cameras;
#[cfg(feature = "cuda")]
mod cuda_emulation;
#[cfg(feature = "cuda")]
mod cuda_faults;
#[cfg(feature = "cuda")]
mod cuda_plan;
mod pipeline;
mod quantized_package;
mod scene;
