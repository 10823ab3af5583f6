//! The driver of this machine's GPU for our own kernels, or why there is none.

/// Why the GPU that was asked for cannot be used: a sentence with the remedy, `--device cpu` among them.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NoGpu(String);

/// Opens the one that is this process's.
///
/// # Errors
/// [`NoGpu`].
#[cfg(feature = "cuda")]
pub fn open() -> anyhow::Result<std::sync::Arc<dyn peregrine_engine::cuda::Driver>> {
    // The node has a parameter where distill has an option.
    peregrine_engine::cuda::open(crate::ranks::launcher::gpu())
        .map_err(|e| NoGpu(e.to_string().replace("device: cpu", "--device cpu")).into())
}

/// Refuses: there are no such kernels in this build.
///
/// # Errors
/// Always [`NoGpu`].
#[cfg(not(feature = "cuda"))]
pub fn open() -> anyhow::Result<std::convert::Infallible> {
    let why = "this distill was built without CUDA; build it with --features cuda (docs/gpu.md), or use --device cpu";
    Err(NoGpu(why.into()).into())
}
