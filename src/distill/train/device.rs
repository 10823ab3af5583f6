//! Where a training computes.

use anyhow::{bail, Context};
use candle_core::Device;
use clap::ValueEnum;

/// Where the network in training is computed; losses, teachers and the optimizer stay on the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum TrainDevice {
    /// On CUDA where this program has it and there is a device, else on the CPU.
    #[default]
    Auto,
    Cpu,
    /// On CUDA or not at all.
    Cuda,
}

impl TrainDevice {
    /// The device of candle's; none for the CPU, which has passes of its own. `in_integers`: of a quantization-aware
    /// training, which those passes alone can do.
    ///
    /// # Errors
    /// A sentence with the remedy, where only CUDA will do and does not.
    pub fn open(self, in_integers: bool) -> anyhow::Result<Option<Device>> {
        let compiled = candle_core::utils::cuda_is_available();
        match self {
            Self::Cpu => Ok(None),
            Self::Auto if !compiled || in_integers => Ok(None),
            Self::Auto => Ok(Device::new_cuda(0).map_err(|e| eprintln!("training on the CPU: {e}")).ok()),
            Self::Cuda if in_integers => {
                bail!("quantized_as trains as the CPU's integer engine rounds, and on the CPU alone: use --device cpu")
            }
            Self::Cuda if !compiled => bail!(
                "this distill was built without CUDA; build it with --features train-cuda (README, \"On an NVIDIA GPU\"), \
                 or use --device cpu"
            ),
            Self::Cuda => Device::new_cuda(0).context("CUDA does not start; check nvidia-smi, or use --device cpu").map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cuda_cannot_do_is_refused_in_a_sentence_and_auto_goes_on_without() {
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
