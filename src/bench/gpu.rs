//! Clock, temperature, power and throttling of the NVIDIA GPU, by NVML. The driver's library is
//! loaded at run time; without it there is no [`Gpu`].

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::{Device, Nvml};
use serde::Serialize;
use std::sync::OnceLock;

/// The GPU at one instant. `None` is what it does not report.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GpuSample {
    pub clock_mhz: Option<u32>,
    pub temperature_c: Option<u32>,
    pub power_w: Option<f64>,
    /// Whether heat or the power limit throttles it.
    pub throttled: bool,
}

/// The GPU that is measured: the one that [`choose`] was told of, else the first of the machine.
pub struct Gpu {
    nvml: Nvml,
}

/// Where it is on the bus.
static CHOSEN: OnceLock<String> = OnceLock::new();

/// Watches the GPU at a place of the bus, such as `0000:01:00.0`, from now on, in the whole process: NVML counts devices
/// in another order than CUDA. Of several calls the first holds.
pub fn choose(pci: String) {
    let _ = CHOSEN.set(pci);
}

/// The GPU and driver that a figure was measured with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuIdentity {
    pub name: String,
    pub driver: Option<String>,
    pub memory_mib: Option<u64>,
}

impl Gpu {
    /// `None` if there is no driver or no GPU.
    pub fn find() -> Option<Self> {
        let gpu = Self { nvml: Nvml::init().ok()? };
        gpu.device()?;
        Some(gpu)
    }

    fn device(&self) -> Option<Device<'_>> {
        match CHOSEN.get() {
            Some(pci) => self.nvml.device_by_pci_bus_id(pci.as_str()).ok(),
            None => self.nvml.device_by_index(0).ok(),
        }
    }

    /// Its name, driver and memory.
    pub fn identity(&self) -> Option<GpuIdentity> {
        let device = self.device()?;
        Some(GpuIdentity {
            name: device.name().ok()?,
            driver: self.nvml.sys_driver_version().ok(),
            memory_mib: device.memory_info().ok().map(|memory| memory.total >> 20),
        })
    }

    /// Its state now.
    pub fn sample(&self) -> Option<GpuSample> {
        use nvml_wrapper::bitmasks::device::ThrottleReasons as Reasons;
        let device = self.device()?;
        let slow = Reasons::SW_POWER_CAP
            | Reasons::HW_SLOWDOWN
            | Reasons::SW_THERMAL_SLOWDOWN
            | Reasons::HW_THERMAL_SLOWDOWN
            | Reasons::HW_POWER_BRAKE_SLOWDOWN;
        Some(GpuSample {
            clock_mhz: device.clock_info(Clock::SM).ok(),
            temperature_c: device.temperature(TemperatureSensor::Gpu).ok(),
            power_w: device.power_usage().ok().map(|milliwatts| f64::from(milliwatts) / 1e3),
            throttled: device.current_throttle_reasons().is_ok_and(|reasons| reasons.intersects(slow)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_reports_its_identity_and_state() {
        let Some(gpu) = Gpu::find() else {
            return peregrine_support::skip("gpu", "NVML finds no NVIDIA GPU");
        };
        assert!(gpu.identity().is_some() && gpu.sample().is_some());
    }
}
