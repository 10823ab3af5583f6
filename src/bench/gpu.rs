//! The NVIDIA GPU while it is measured: clock, temperature, power and what slows it, by NVML. The driver's library is
//! opened at run time; where there is none, there is nothing to say.

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::Nvml;
use serde::Serialize;

/// The GPU at one time. What it does not tell is none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct GpuSample {
    pub clock_mhz: Option<u32>,
    pub temperature_c: Option<u32>,
    pub power_w: Option<f64>,
    /// Whether heat or the power limit slows it down.
    pub throttled: bool,
}

/// The first GPU.
pub struct Gpu {
    nvml: Nvml,
}

/// Which GPU and driver a figure was measured with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GpuIdentity {
    pub name: String,
    pub driver: Option<String>,
    pub memory_mib: Option<u64>,
}

impl Gpu {
    /// None where there is no driver or no GPU.
    pub fn find() -> Option<Self> {
        let nvml = Nvml::init().ok()?;
        nvml.device_by_index(0).ok()?;
        Some(Self { nvml })
    }

    pub fn identity(&self) -> Option<GpuIdentity> {
        let device = self.nvml.device_by_index(0).ok()?;
        Some(GpuIdentity {
            name: device.name().ok()?,
            driver: self.nvml.sys_driver_version().ok(),
            memory_mib: device.memory_info().ok().map(|memory| memory.total >> 20),
        })
    }

    pub fn sample(&self) -> Option<GpuSample> {
        use nvml_wrapper::bitmasks::device::ThrottleReasons as Reasons;
        let device = self.nvml.device_by_index(0).ok()?;
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
    fn a_gpu_that_is_found_tells_of_itself_and_none_is_silence() {
        let Some(gpu) = Gpu::find() else {
            eprintln!("skipped: there is no NVIDIA GPU");
            return;
        };
        assert!(gpu.identity().is_some() && gpu.sample().is_some());
    }
}
