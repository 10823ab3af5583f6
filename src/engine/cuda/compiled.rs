//! A module's kernels for a device: the kept ones, or compiled now, and kept once they have been loaded.

use std::path::Path;

use super::driver::DeviceInfo;
use super::kernels::KernelSource;
use super::{cache, nvrtc, CudaError};

/// Makes a module's cubin for an architecture, as [`nvrtc::compile`] does.
pub type Compiler<'a> = dyn Fn(&KernelSource, u32) -> Result<Vec<u8>, CudaError> + 'a;

/// NVRTC, as far as kept kernels depend on it.
#[derive(Clone, Copy)]
pub struct CompilerInUse<'a> {
    /// Major and minor, such as (13, 0).
    pub version: (i32, i32),
    pub compile: &'a Compiler<'a>,
}

impl CompilerInUse<'_> {
    /// The NVRTC of this machine; `None` if it is absent.
    pub fn installed() -> Option<Self> {
        nvrtc::version().map(|version| Self { version, compile: &nvrtc::compile })
    }
}

/// The cubin of `module` for `device`, loaded by `load`: a kept one of `folder`, or made by `compiler` (`None` if NVRTC is
/// absent). One that was made is kept once `load` has taken it, under a name with the versions of driver and NVRTC; without
/// NVRTC any that was made for this driver will do. A kept one that is damaged, or that `load` refuses
/// ([`CudaError::KernelRefused`]), counts as absent, and is replaced.
///
/// # Errors
/// [`CudaError::NoCompiler`] when nothing is kept and `compiler` is `None`, [`CudaError::CompilerTooNew`] when the driver
/// is of an earlier CUDA than `compiler`, and as `compiler` and `load`.
pub fn load<T>(
    device: &DeviceInfo,
    module: &KernelSource,
    folder: Option<&Path>,
    compiler: Option<CompilerInUse<'_>>,
    load: impl Fn(&[u8]) -> Result<T, CudaError>,
) -> Result<T, CudaError> {
    let (architecture, driver) = (device.architecture.to_string(), device.driver.to_string());
    let key = cache::key(module.name, &[&architecture, &driver, &module.text()]);
    let kept = folder.map_or_else(Vec::new, |folder| kept(folder, &key, compiler.map(|c| c.version)));
    for cubin in &kept {
        match load(cubin) {
            Err(CudaError::KernelRefused { .. }) => {}
            ended => return ended,
        }
    }
    let Some(CompilerInUse { version, compile }) = compiler else {
        let cache = folder.map_or_else(|| "any cache".to_owned(), |f| f.display().to_string());
        return Err(CudaError::NoCompiler { device: device.name.clone(), cache });
    };
    let drivers_major = device.driver / 1000;
    if u32::try_from(version.0).is_ok_and(|major| major > drivers_major) {
        let found = format!("{}.{}", version.0, version.1);
        return Err(CudaError::CompilerTooNew { found, driver: nvrtc::spelled(device.driver), drivers_major });
    }
    let cubin = compile(module, device.architecture)?;
    let loaded = load(&cubin)?;
    if let Some(folder) = folder {
        cache::store(folder, &of_compiler(&key, version), &cubin);
    }
    Ok(loaded)
}

fn of_compiler(key: &str, (major, minor): (i32, i32)) -> String {
    format!("{key}-nvrtc{major}.{minor}")
}

/// What is kept of `key`, by a compiler of `version`, or by any if that is not known.
fn kept(folder: &Path, key: &str, version: Option<(i32, i32)>) -> Vec<Vec<u8>> {
    let names: Vec<String> = match version {
        Some(version) => vec![of_compiler(key, version)],
        None => {
            let begins = format!("{key}-nvrtc");
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|name| name.starts_with(&begins)).collect();
            names.sort();
            names
        }
    };
    names.iter().filter_map(|name| cache::load(folder, name)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::cuda::kernels::Module;

    fn device(driver: u32) -> DeviceInfo {
        DeviceInfo { name: "Orin".into(), architecture: 87, multiprocessors: 16, integrated: true, driver }
    }

    fn compile(module: &KernelSource, architecture: u32) -> Result<Vec<u8>, CudaError> {
        Ok(format!("{} {architecture}", module.name).into_bytes())
    }

    const NVRTC_12: CompilerInUse<'static> = CompilerInUse { version: (12, 6), compile: &compile };

    fn get(folder: &Path, driver: u32, compiler: Option<CompilerInUse<'_>>) -> Result<Vec<u8>, CudaError> {
        load(&device(driver), &Module::Image.whole(), Some(folder), compiler, |cubin| Ok(cubin.to_vec()))
    }

    #[test]
    fn compiled_kernels_are_reused_until_they_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let error = get(folder, 12_060, None).unwrap_err().to_string();
        assert!(error.contains("nvidia-cuda-nvrtc") && error.contains("Orin"), "{error}");
        assert_eq!(get(folder, 12_060, Some(NVRTC_12)).unwrap(), b"image 87");
        assert_eq!(get(folder, 12_060, None).unwrap(), b"image 87");
        assert!(get(folder, 13_000, None).is_err(), "another driver wants its own");

        let kept = std::fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let mut bytes = std::fs::read(&kept).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&kept, bytes).unwrap();
        assert!(get(folder, 12_060, None).is_err());
        assert_eq!(get(folder, 12_060, Some(NVRTC_12)).unwrap(), b"image 87");
        assert_eq!(get(folder, 12_060, None).unwrap(), b"image 87");
    }

    #[test]
    fn each_version_of_the_compiler_has_its_own_kernels() {
        let folder = tempfile::tempdir().unwrap();
        let made = Cell::new(0);
        let count = |_: &KernelSource, _: u32| {
            made.set(made.get() + 1);
            Ok(vec![made.get()])
        };
        let with = |version| {
            let compiler = CompilerInUse { version, compile: &count };
            load(&device(13_000), &Module::Image.whole(), Some(folder.path()), Some(compiler), |c| Ok(c[0])).unwrap()
        };
        assert_eq!([(12, 6), (12, 8), (12, 6), (13, 0), (12, 8)].map(with), [1, 2, 1, 3, 2]);
    }

    #[test]
    fn kernels_are_kept_only_once_they_have_been_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let refuses = |_: &[u8]| Err::<(), _>(CudaError::KernelRefused { why: "in a test".into() });
        let attempt = |compiler| load(&device(12_060), &Module::Image.whole(), Some(folder.path()), compiler, refuses);
        assert!(attempt(Some(NVRTC_12)).unwrap_err().to_string().contains("in a test"));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        // What is kept and no longer loads is made again.
        get(folder.path(), 12_060, Some(NVRTC_12)).unwrap();
        let again = |_: &KernelSource, _: u32| Ok(b"anew".to_vec());
        let compiler = CompilerInUse { version: (12, 6), compile: &again };
        let takes = |cubin: &[u8]| if cubin == b"anew" { Ok(()) } else { refuses(cubin) };
        load(&device(12_060), &Module::Image.whole(), Some(folder.path()), Some(compiler), takes).unwrap();
        assert_eq!(get(folder.path(), 12_060, None).unwrap(), b"anew");
        // A device that fails is no reason to compile.
        let lost = |_: &[u8]| Err::<(), _>(CudaError::Failed { call: "loading a kernel", why: "lost".into() });
        let never = |_: &KernelSource, _: u32| panic!("it compiles");
        let compiler = CompilerInUse { version: (12, 6), compile: &never };
        assert!(load(&device(12_060), &Module::Image.whole(), Some(folder.path()), Some(compiler), lost).is_err());
    }

    #[test]
    fn a_compiler_that_is_newer_than_the_driver_is_told_before_it_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let never = |_: &KernelSource, _: u32| panic!("it compiles");
        let newer = CompilerInUse { version: (13, 1), compile: &never };
        let told = get(folder.path(), 12_040, Some(newer)).unwrap_err().to_string();
        assert!(["13.1", "CUDA 12.4", "nvidia-cuda-nvrtc-cu12"].iter().all(|part| told.contains(part)), "{told}");
        // A minor version makes no difference, nor does an older compiler.
        let nvrtc = |version| Some(CompilerInUse { version, compile: &compile });
        assert!(get(folder.path(), 12_040, nvrtc((12, 8))).is_ok());
        assert!(get(folder.path(), 13_000, nvrtc((12, 8))).is_ok());
    }
}
