//! The CUDA engine: one graph launch a run.
//!
//! **What is checked where.** On a GPU (`make test-gpu`; an H200 so far, see
//! `bench/RESULTS-gpu.md`): agreement with candle and with the CPU's boxes, AP and integers, flat
//! memory, errors. Without one, in `make test`: every kernel compiles for sm_75 to sm_120 within
//! each architecture's limits; the kernels run on an emulation of the device on the CPU and agree
//! there with the CPU engine, from single layers to the whole path of a frame, in integers bit by
//! bit; plans never let two live tensors share memory; a device that fails at any call leaks
//! nothing. [`real`] (the calls to the driver) runs against a stand-in for the driver's library,
//! down to each call failing.
//!
//! From the outside in:
//! - [`device`]: finding a device; [`open`]: opening it, or an error with its remedy;
//! - [`engine`]: a network as one graph, as [`Engine`](super::Engine);
//! - [`model`]: weights and variants, shared by all engines of a process that run the same network;
//! - [`autotune`]: the fastest variant of each layer's kernel, measured on the device; [`cache`]:
//!   what is kept on disk;
//! - [`network`]: launches for each step of the plan; [`layout`]: where tensors lie; [`pack`]:
//!   weights for the kernels; [`precision`]: the plan of a quantized network;
//! - [`launch`]: what a graph consists of, and what waits for what;
//! - [`kernels`]: their sources under `kernels/`, and the table of them; `variants`: block shapes;
//!   [`arguments`]: their parameters, which are [`plain`] values;
//! - [`driver`]: the layer below which calls reach a device: [`real`] ones, or one that is
//!   [`recording`];
//! - [`nvrtc`]: compiling; [`compiled`]: what is compiled already; [`cubin`]: what a compiled
//!   kernel needs; [`explain`]: a human-readable plan.

// What the frame graph of a pipeline, benchmarks and tests need, and other users of the engine do
// not.
#[doc(hidden)]
pub mod arguments;
#[doc(hidden)]
pub mod autotune;
#[doc(hidden)]
pub mod cache;
#[doc(hidden)]
pub mod compiled;
#[doc(hidden)]
pub mod cubin;
#[doc(hidden)]
pub mod explain;
#[doc(hidden)]
pub mod kernels;
#[doc(hidden)]
pub mod launch;
#[doc(hidden)]
pub mod layout;
#[doc(hidden)]
pub mod network;
#[doc(hidden)]
pub mod nvrtc;
#[doc(hidden)]
pub mod pack;
#[doc(hidden)]
pub mod plain;
#[doc(hidden)]
pub mod precision;
#[doc(hidden)]
pub mod real;
#[doc(hidden)]
pub mod recording;
mod variants;

pub mod device;
pub mod driver;
pub mod engine;
pub mod model;

pub use device::{find_device, CudaDevice, NoCudaDevice};
pub use driver::{Driver, Wait};
pub use engine::CudaEngine;
pub use model::Model;
pub use real::open;

/// Why the CUDA engine cannot be built or run: each a sentence with its remedy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    /// There is no device.
    #[error(transparent)]
    NoDevice(#[from] NoCudaDevice),
    /// The device is older than the kernels need. `architecture`: such as 61.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error(
        "{device} is of architecture sm_{architecture}, and the CUDA engine needs sm_{} or later; use device: cpu",
        nvrtc::LEAST_ARCHITECTURE
    )]
    Architecture { device: String, architecture: u32 },
    /// The driver is older than the engine needs. Versions such as 12.0.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("the CUDA driver supports CUDA {found}, and the engine needs {needed}; update the NVIDIA driver, or use device: cpu")]
    DriverTooOld { found: String, needed: String },
    /// Kernels have to be compiled, and NVRTC is absent.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error(
        "NVRTC (libnvrtc.so) is not installed, and there are no kernels for {device} in {cache}; install it \
         (pip install nvidia-cuda-nvrtc, with its lib folder in LD_LIBRARY_PATH), or use device: cpu"
    )]
    NoCompiler { device: String, cache: String },
    /// NVRTC is of a later CUDA than the driver, which would not load what it makes. Versions such as 13.0.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error(
        "NVRTC {found} is newer than the CUDA driver, which supports CUDA {driver} and would not load its kernels; update \
         the NVIDIA driver, or install the NVRTC that fits (pip install nvidia-cuda-nvrtc-cu{drivers_major}, with its lib \
         folder first in LD_LIBRARY_PATH)"
    )]
    CompilerTooNew { found: String, driver: String, drivers_major: u32 },
    /// NVRTC refuses a module of kernels; `why`: its first error.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("NVRTC does not compile {module} for sm_{architecture} ({why}); an NVRTC of CUDA 12.8 or later knows all architectures up to sm_120")]
    Compile { module: &'static str, architecture: u32, why: String },
    /// The driver does not load a compiled kernel, which is of another version; `why`: its words.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("the CUDA driver does not load a kernel that NVRTC made for this device ({why}); install the NVRTC of the driver's CUDA version, or update the driver")]
    KernelRefused { why: String },
    /// An allocation failed.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("the GPU has no {bytes} bytes left; close other programs on it, choose a smaller input size, or use device: cpu")]
    OutOfMemory { bytes: usize },
    /// The device has not ended a graph in time.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error(
        "the GPU has not finished a frame within {limit_ms} ms; check nvidia-smi and dmesg for its faults, raise \
         gpu_timeout_ms if other programs keep it busy, and start the program again"
    )]
    Hangs { limit_ms: u64 },
    /// A call to the driver failed.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("{call} failed ({why}); if it does so again, check nvidia-smi and dmesg, and configure anew")]
    Failed { call: &'static str, why: String },
}
