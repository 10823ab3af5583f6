//! Finding a CUDA device, and why the engine cannot be used. The driver's library is opened at run
//! time, so that one binary runs with and without it; [`super::real`] opens what is found.

use std::fmt;

use cudarc::driver::result::{self, device};
use cudarc::driver::sys::{self, CUdevice_attribute_enum};

use super::driver::DeviceInfo;
use super::{nvrtc, CudaError};

/// A device that the driver offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaDevice {
    /// As the driver gives it.
    pub name: String,
    /// Major and minor, such as (8, 7) for Orin.
    pub compute_capability: (i32, i32),
    /// Where it is on the bus, such as `0000:01:00.0`, by which NVML and `nvidia-smi` know it, too.
    pub pci: String,
}

/// Why there is no CUDA device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCudaDevice {
    /// libcuda.so.1 cannot be opened.
    #[error("the CUDA driver (libcuda.so.1) is not installed; install the NVIDIA driver, or use device: cpu")]
    NoDriver,
    /// The driver does not start; its words.
    #[error("the CUDA driver does not start ({0}); check nvidia-smi")]
    Driver(String),
    /// The driver lacks a function, by its name.
    #[error("the CUDA driver (libcuda.so.1) lacks {0}; update the NVIDIA driver, or use device: cpu")]
    Lacks(&'static str),
    /// There are devices, but not that many. Numbers count from 0.
    #[allow(missing_docs, reason = "said above, and by the message")]
    #[error("there is no CUDA device {number}: the driver offers {count}, numbered from 0; check nvidia-smi -L and CUDA_VISIBLE_DEVICES")]
    NoSuchDevice { number: u32, count: u32 },
    /// The driver finds no GPU.
    #[error("the CUDA driver offers no device; check nvidia-smi and CUDA_VISIBLE_DEVICES")]
    NoDevice,
}

impl fmt::Display for CudaDevice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let (major, minor) = self.compute_capability;
        write!(f, "{} (sm_{major}{minor})", self.name)
    }
}

/// The calls of [`find_device`], and those that tell what is wrong.
const CALLS: [&str; 9] = [
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceGetPCIBusId",
    "cuGetErrorName",
    "cuGetErrorString",
];

/// Whether the driver has these calls. cudarc looks for each when it is first made, and panics
/// where it is missing.
///
/// # Errors
/// Names one that is missing.
pub(super) fn has_all(calls: &[&'static str]) -> Result<(), NoCudaDevice> {
    // SAFETY: the library is there, as the caller has asked; an address is looked up, and not used.
    let lacks = |call: &&&str| unsafe { sys::culib().get::<*const ()>(call.as_bytes()) }.is_err();
    calls.iter().find(lacks).map_or(Ok(()), |call| Err(NoCudaDevice::Lacks(call)))
}

/// An error's name and the driver's words for it.
pub(super) fn describe(error: result::DriverError) -> String {
    let name = error.error_name().map_or_else(|_| format!("{error:?}"), |n| n.to_string_lossy().into_owned());
    let text = error.error_string().map_or_else(|_| String::new(), |s| s.to_string_lossy().into_owned());
    format!("{name}: {text}")
}

/// Device `number` of the CUDA driver, from 0, in the driver's order.
///
/// # Errors
/// A sentence with the remedy, when there is no driver or no such device.
pub fn find_device(number: u32) -> Result<CudaDevice, NoCudaDevice> {
    // SAFETY: only asks whether the library can be opened.
    if !unsafe { sys::is_culib_present() } {
        return Err(NoCudaDevice::NoDriver);
    }
    has_all(&CALLS)?;
    let driver = |e: result::DriverError| NoCudaDevice::Driver(describe(e));
    result::init().map_err(driver)?;
    let count = device::get_count().map_err(driver)?.max(0).unsigned_abs();
    if count == 0 {
        return Err(NoCudaDevice::NoDevice);
    }
    if number >= count {
        return Err(NoCudaDevice::NoSuchDevice { number, count });
    }
    let found = device::get(number as i32).map_err(driver)?;
    let attribute = |which| {
        // SAFETY: `found` came from the driver just now.
        unsafe { device::get_attribute(found, which) }.map_err(driver)
    };
    let mut pci = [0; 32];
    // SAFETY: the driver writes at most that many bytes, a closing zero among them, for a device that it gave just now.
    unsafe { sys::cuDeviceGetPCIBusId(pci.as_mut_ptr(), pci.len() as i32, found) }.result().map_err(driver)?;
    Ok(CudaDevice {
        pci: pci.iter().take_while(|&&c| c != 0).map(|&c| char::from(c as u8)).collect(),
        name: device::get_name(found).map_err(driver)?,
        compute_capability: (
            attribute(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
    })
}

/// The oldest driver, as CUDA numbers it.
const LEAST_DRIVER: u32 = 12_000;

/// Whether the engine can use a device.
///
/// # Errors
/// A sentence with the remedy, where its driver or itself is too old.
pub fn check(device: &DeviceInfo) -> Result<(), CudaError> {
    if device.driver < LEAST_DRIVER {
        let [found, needed] = [device.driver, LEAST_DRIVER].map(nvrtc::spelled);
        return Err(CudaError::DriverTooOld { found, needed });
    }
    if device.architecture < nvrtc::LEAST_ARCHITECTURE {
        return Err(CudaError::Architecture { device: device.name.clone(), architecture: device.architecture });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_drivers_and_old_devices_are_refused_with_a_remedy() {
        let device = |architecture, driver| DeviceInfo {
            name: "GeForce GTX 1080".into(),
            architecture,
            multiprocessors: 20,
            integrated: false,
            driver,
        };
        assert_eq!(check(&device(75, 12_000)), Ok(()));
        let old_driver = check(&device(87, 11_040)).unwrap_err().to_string();
        assert!(["11.4", "12.0", "update"].iter().all(|part| old_driver.contains(part)), "{old_driver}");
        let old_device = check(&device(61, 13_000)).unwrap_err().to_string();
        assert!(
            ["GTX 1080", "sm_61", "sm_75", "device: cpu"].iter().all(|part| old_device.contains(part)),
            "{old_device}"
        );
    }

    #[test]
    fn a_device_is_found_or_the_error_names_the_remedy() {
        match find_device(0) {
            Ok(found) => assert!(found.compute_capability.0 > 0, "{found}"),
            Err(none) => assert!(none.to_string().contains("nvidia-smi") || none.to_string().contains("device: cpu")),
        }
    }
}
