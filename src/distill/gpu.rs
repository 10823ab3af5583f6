//! The driver of this machine's GPU for our own kernels, or why there is none.

/// Opens it.
///
/// # Errors
/// A sentence with the remedy, `--device cpu` among them.
#[cfg(feature = "cuda")]
pub fn open() -> anyhow::Result<std::sync::Arc<dyn peregrine_engine::cuda::Driver>> {
    // The node has a parameter where distill has an option.
    peregrine_engine::cuda::open(0).map_err(|e| anyhow::anyhow!(e.to_string().replace("device: cpu", "--device cpu")))
}

/// Refuses: there are no such kernels in this build.
///
/// # Errors
/// Always, with the remedy.
#[cfg(not(feature = "cuda"))]
pub fn open() -> anyhow::Result<std::convert::Infallible> {
    anyhow::bail!(
        "this distill was built without CUDA; build it with --features cuda (docs/gpu.md), or use --device cpu"
    )
}
