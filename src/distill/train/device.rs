//! The device of a training.

use std::fmt;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use anyhow::{bail, ensure, Context};
use candle_core::Device;
use clap::ValueEnum;
#[cfg(feature = "cuda")]
use peregrine_engine::cuda::Driver;

use super::config::StudentConfig;
use crate::gpu;
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
    /// The device for a training by `ranks`; `None` for the CPU.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); also when the device cannot do what the training asks for.
    pub fn open_for(self, config: &StudentConfig, ranks: &Ranks) -> anyhow::Result<Option<OpenDevice>> {
        if self == Self::Auto && (config.deterministic || !ranks.is_alone()) {
            return Ok(None);
        }
        ensure!(
            self == Self::Cpu || ranks.is_alone(),
            "{} ranks train on CPUs only: use --device cpu, or start one process",
            ranks.size()
        );
        let device = self.open(config.quantized_as.is_some())?;
        ensure!(
            !(config.deterministic && matches!(device, Some(OpenDevice::Candle(_)))),
            "deterministic = true: candle's CUDA adds up in another order each time: use --device cpu, or a distill built \
             with --features cuda"
        );
        Ok(device)
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
    Ok(OpenDevice::Cuda(gpu::open()?, if in_half { Precision::Half } else { Precision::Single }))
}

#[cfg(not(feature = "cuda"))]
fn own_kernels(_: bool) -> anyhow::Result<OpenDevice> {
    match gpu::open()? {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::threads::on_ranks;

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

    #[test]
    fn several_ranks_train_on_the_cpu_and_are_told_so() {
        let config = StudentConfig::default();
        let found = on_ranks(2, |ranks| {
            let open = |device: TrainDevice| device.open_for(&config, &ranks).map(|device| device.is_none());
            (open(TrainDevice::Auto).unwrap(), open(TrainDevice::Cuda).unwrap_err().to_string())
        });
        assert!(found[0].0 && found[0].1.contains("2 ranks") && found[0].1.contains("--device cpu"), "{found:?}");
    }
}
