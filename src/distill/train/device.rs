//! The device of a training.

use anyhow::{bail, Context};
use candle_core::Device;
use clap::ValueEnum;

/// Device that computes the network in training; losses, teachers and the optimizer run on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TrainDevice {
    /// CUDA if this program is built with it and there is a device, else the CPU.
    #[default]
    Auto,
    Cpu,
    /// CUDA, or an error.
    Cuda,
}

impl TrainDevice {
    /// candle's device; `None` for the CPU, which has its own passes. `in_integers`: for
    /// quantization-aware training, which only those passes support.
    ///
    /// # Errors
    /// A sentence with the remedy, if CUDA is required and not available.
    pub fn open(self, in_integers: bool) -> anyhow::Result<Option<Device>> {
        let compiled = candle_core::utils::cuda_is_available();
        match self {
            Self::Cpu => Ok(None),
            Self::Auto if !compiled || in_integers => Ok(None),
            Self::Auto => Ok(Device::new_cuda(0).map_err(|e| tracing::warn!("training on the CPU: {e}")).ok()),
            Self::Cuda if in_integers => {
                bail!("quantized_as is supported on the CPU only: use --device cpu")
            }
            Self::Cuda if !compiled => bail!(
                "this distill was built without CUDA; build it with --features train-cuda (docs/gpu.md), \
                 or use --device cpu"
            ),
            Self::Cuda => {
                Device::new_cuda(0).context("CUDA does not start; check nvidia-smi, or use --device cpu").map(Some)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cuda_cannot_do_is_refused_and_auto_takes_the_cpu() {
        let refused = TrainDevice::Cuda.open(true).unwrap_err().to_string();
        assert!(["quantized_as", "--device cpu"].iter().all(|part| refused.contains(part)), "{refused}");
        assert!(TrainDevice::Auto.open(true).unwrap().is_none());
        assert!(TrainDevice::Cpu.open(false).unwrap().is_none());
        if !candle_core::utils::cuda_is_available() {
            let refused = TrainDevice::Cuda.open(false).unwrap_err().to_string();
            assert!(["train-cuda", "--device cpu"].iter().all(|part| refused.contains(part)), "{refused}");
            assert!(TrainDevice::Auto.open(false).unwrap().is_none());
        }
    }
}
