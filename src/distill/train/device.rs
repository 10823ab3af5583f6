//! The device of a training.

use std::fmt;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use anyhow::ensure;
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
    /// The CPU, until our kernels for CUDA have been measured.
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
    /// By our own kernels.
    #[cfg(feature = "cuda")]
    Cuda(Arc<dyn Driver>, Precision),
}

impl fmt::Display for OpenDevice {
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables))]
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            #[cfg(feature = "cuda")]
            Self::Cuda(ref driver, Precision::Single) => f.write_str(&driver.device().name),
            #[cfg(feature = "cuda")]
            Self::Cuda(ref driver, Precision::Half) => write!(f, "{}, in half precision", driver.device().name),
        }
    }
}

impl TrainDevice {
    /// The device for a training by `ranks`; `None` for the CPU.
    ///
    /// # Errors
    /// Those of [`open`](Self::open); also when several ranks are to train on CUDA.
    pub fn open_for(self, config: &StudentConfig, ranks: &Ranks) -> anyhow::Result<Option<OpenDevice>> {
        ensure!(
            matches!(self, Self::Auto | Self::Cpu) || ranks.is_alone(),
            "{} ranks train on CPUs only: use --device cpu, or start one process",
            ranks.size()
        );
        self.open(config.quantized_as.is_some())
    }

    /// The device; `None` for the CPU, which has its own passes. `in_integers`: for
    /// quantization-aware training, which only those passes support.
    ///
    /// # Errors
    /// A sentence with the remedy, if CUDA is required and not available.
    pub fn open(self, in_integers: bool) -> anyhow::Result<Option<OpenDevice>> {
        let in_half = match self {
            Self::Auto | Self::Cpu => return Ok(None),
            Self::Cuda => false,
            Self::CudaHalf => true,
        };
        ensure!(!in_integers, "quantized_as is supported on the CPU only: use --device cpu");
        own_kernels(in_half).map(Some)
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
        for device in [TrainDevice::Auto, TrainDevice::Cpu] {
            assert!([true, false].into_iter().all(|in_integers| device.open(in_integers).unwrap().is_none()));
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
