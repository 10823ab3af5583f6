//! A module's kernels for a device: the kept ones, or compiled now and kept.

use std::path::Path;

use super::driver::DeviceInfo;
use super::kernels::KernelSource;
use super::{cache, CudaError};

/// Makes a module's cubin for an architecture, as [`nvrtc::compile`](super::nvrtc::compile) does.
pub type Compiler = dyn Fn(&KernelSource, u32) -> Result<Vec<u8>, CudaError>;

/// The cubin of `module` for `device`, from `folder` or by `compiler` (`None` if NVRTC is absent).
/// A damaged file counts as absent, and is replaced.
///
/// # Errors
/// [`CudaError::NoCompiler`] when nothing is kept and `compiler` is `None`, and as `compiler`.
pub fn cubin(
    device: &DeviceInfo,
    module: &KernelSource,
    folder: Option<&Path>,
    compiler: Option<&Compiler>,
) -> Result<Vec<u8>, CudaError> {
    let (architecture, driver) = (device.architecture.to_string(), device.driver.to_string());
    let key = cache::key(module.name, &[&architecture, &driver, &module.text()]);
    if let Some(cubin) = folder.and_then(|f| cache::load(f, &key)) {
        return Ok(cubin);
    }
    let Some(compile) = compiler else {
        let cache = folder.map_or_else(|| "any cache".to_owned(), |f| f.display().to_string());
        return Err(CudaError::NoCompiler { device: device.name.clone(), cache });
    };
    let cubin = compile(module, device.architecture)?;
    if let Some(folder) = folder {
        cache::store(folder, &key, &cubin);
    }
    Ok(cubin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::kernels::Module;

    fn device(driver: u32) -> DeviceInfo {
        DeviceInfo { name: "Orin".into(), architecture: 87, multiprocessors: 16, integrated: true, driver }
    }

    #[test]
    fn compiled_kernels_are_reused_until_they_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let compiler: &Compiler = &|module, architecture| Ok(format!("{} {architecture}", module.name).into_bytes());
        let get = |driver, compiler| cubin(&device(driver), &Module::Image.whole(), Some(folder.path()), compiler);

        let error = get(12_060, None).unwrap_err().to_string();
        assert!(error.contains("nvidia-cuda-nvrtc") && error.contains("Orin"), "{error}");
        assert_eq!(get(12_060, Some(compiler)).unwrap(), b"image 87");
        assert_eq!(get(12_060, None).unwrap(), b"image 87");
        assert!(get(13_000, None).is_err(), "another driver wants its own");

        let kept = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&kept).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&kept, bytes).unwrap();
        assert!(get(12_060, None).is_err());
        assert_eq!(get(12_060, Some(compiler)).unwrap(), b"image 87");
        assert_eq!(get(12_060, None).unwrap(), b"image 87");
    }
}
