//! The device of a training.

use std::fmt;
#[cfg(feature = "cuda")]
use std::sync::Arc;

use anyhow::{bail, ensure};
use clap::ValueEnum;
#[cfg(feature = "cuda")]
use peregrine_engine::cuda::Driver;

use super::config::StudentConfig;
use crate::gpu;
#[cfg(feature = "cuda")]
use crate::net::cuda::kernels::Precision;
use crate::ranks::Ranks;

/// Device that computes a training: network, losses, teachers and update.
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
    /// Those of [`open`](Self::open); also when the training asks for what several GPUs do not do
    /// together.
    pub fn open_for(self, config: &StudentConfig, ranks: &Ranks) -> anyhow::Result<Option<OpenDevice>> {
        if matches!(self, Self::Cuda | Self::CudaHalf) && !ranks.is_alone() {
            refuse_on_several_gpus(config, ranks.size())?;
        }
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

/// GPUs give each other gradients and running statistics, and no tensors of a step.
fn refuse_on_several_gpus(config: &StudentConfig, ranks: usize) -> anyhow::Result<()> {
    ensure!(
        !config.sync_batch_norm,
        "{ranks} ranks on GPUs normalise each by its own images: set sync_batch_norm = false, or use --device cpu"
    );
    if let Some(method) = config.methods.iter().map(|of| &of.method).find(|method| method.compares_examples()) {
        bail!(
            "[[method]] {} compares the examples of all {ranks} ranks, which their GPUs do not give each other: leave it \
             out, start one process, or use --device cpu",
            method.name()
        );
    }
    Ok(())
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
    fn what_several_gpus_do_not_do_together_is_refused_with_a_remedy() {
        let why = |text: &str| {
            let config: StudentConfig = toml::from_str(text).unwrap();
            on_ranks(2, |ranks| TrainDevice::Cuda.open_for(&config, &ranks).map(drop).unwrap_err().to_string())
                .remove(0)
        };
        assert!(why("").contains("sync_batch_norm = false"), "{}", why(""));
        let rkd = why("sync_batch_norm = false\n[teacher]\naverage = true\n[[method]]\nkind = 'rkd'");
        assert!(rkd.contains("[[method]] rkd") && rkd.contains("--device cpu"), "{rkd}");
        let found =
            on_ranks(2, |ranks| TrainDevice::Auto.open_for(&StudentConfig::default(), &ranks).unwrap().is_none());
        assert_eq!(found, [true, true]);
    }
}
