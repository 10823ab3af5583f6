//! The device of a training.

use std::fmt;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use anyhow::{bail, Context};
use candle_core::Device;
use clap::ValueEnum;
#[cfg(feature = "cuda")]
use peregrine_engine::cuda::{self, Driver};

#[cfg(feature = "cuda")]
use crate::net::cuda::kernels::Precision;
use crate::ranks::Ranks;

/// Device that computes the network in training; losses and teachers run on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TrainDevice {
    /// The CPU; CUDA only where this program is built with candle's (feature train-cuda).
    #[default]
    Auto,
    Cpu,
    /// CUDA, or an error.
    Cuda,
    /// CUDA with tensors and their gradients in half precision, weights in single; or an error.
    CudaHalf,
}

/// A device other than the CPU, made ready.
pub enum OpenDevice {
    /// By candle's operations.
    Candle(Device),
    /// By our own kernels.
    #[cfg(feature = "cuda")]
    Cuda(Arc<dyn Driver>, Precision),
}

impl fmt::Display for OpenDevice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Candle(_) => f.write_str("CUDA, by candle"),
            #[cfg(feature = "cuda")]
            Self::Cuda(driver, Precision::Single) => f.write_str(&driver.device().name),
            #[cfg(feature = "cuda")]
            Self::Cuda(driver, Precision::Half) => write!(f, "{}, in half precision", driver.device().name),
        }
    }
}

impl TrainDevice {
    /// As [`open`](Self::open), for one of `ranks`.
    ///
    /// # Errors
    /// Also for several ranks on another device than the CPU.
    pub fn open_for(self, ranks: &Ranks, in_integers: bool) -> anyhow::Result<Option<OpenDevice>> {
        match self {
            _ if ranks.is_alone() => self.open(in_integers),
            Self::Auto | Self::Cpu => Ok(None),
            Self::Cuda | Self::CudaHalf => {
                bail!("{} ranks train on CPUs only: use --device cpu, or start one process", ranks.size())
            }
        }
    }

    /// The device; `None` for the CPU, which has its own passes. `in_integers`: for
    /// quantization-aware training, which only those passes support.
    ///
    /// # Errors
    /// A sentence with the remedy, if CUDA is required and not available.
    pub fn open(self, in_integers: bool) -> anyhow::Result<Option<OpenDevice>> {
        let of_candle = candle_core::utils::cuda_is_available();
        match self {
            Self::Cpu => Ok(None),
            Self::Auto if !of_candle || in_integers => Ok(None),
            Self::Auto => {
                let device = Device::new_cuda(0).map_err(|e| tracing::warn!("training on the CPU: {e}"));
                Ok(device.ok().map(OpenDevice::Candle))
            }
            Self::Cuda | Self::CudaHalf if in_integers => {
                bail!("quantized_as is supported on the CPU only: use --device cpu")
            }
            Self::Cuda if of_candle => {
                let device = Device::new_cuda(0).context("CUDA does not start; check nvidia-smi, or use --device cpu");
                Ok(Some(OpenDevice::Candle(device?)))
            }
            Self::Cuda => own_kernels(false).map(Some),
            Self::CudaHalf if of_candle => bail!("candle trains in single precision only: use --device cuda"),
            Self::CudaHalf => own_kernels(true).map(Some),
        }
    }
}

#[cfg(feature = "cuda")]
fn own_kernels(in_half: bool) -> anyhow::Result<OpenDevice> {
    // The node has a parameter where distill has an option.
    let driver = cuda::open().map_err(|e| anyhow::anyhow!(e.to_string().replace("device: cpu", "--device cpu")))?;
    Ok(OpenDevice::Cuda(driver, if in_half { Precision::Half } else { Precision::Single }))
}

#[cfg(not(feature = "cuda"))]
fn own_kernels(_: bool) -> anyhow::Result<OpenDevice> {
    bail!("this distill was built without CUDA; build it with --features cuda (docs/gpu.md), or use --device cpu")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cuda_cannot_do_is_refused_and_auto_takes_the_cpu() {
        let refused = |device: TrainDevice, in_integers| match device.open(in_integers) {
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        for device in [TrainDevice::Cuda, TrainDevice::CudaHalf] {
            let why = refused(device, true).unwrap();
            assert!(["quantized_as", "--device cpu"].iter().all(|part| why.contains(part)), "{why}");
        }
        assert!(TrainDevice::Auto.open(true).unwrap().is_none());
        assert!(TrainDevice::Cpu.open(false).unwrap().is_none());
        if !candle_core::utils::cuda_is_available() {
            assert!(TrainDevice::Auto.open(false).unwrap().is_none());
        }
    }

    #[test]
    fn without_a_device_cuda_is_refused_with_a_remedy() {
        if let Err(error) = TrainDevice::Cuda.open(false) {
            let why = error.to_string();
            assert!(why.contains("--device cpu") || why.contains("nvidia-smi"), "{why}");
            assert!(!why.contains("device: cpu"), "{why}");
        }
    }
}
