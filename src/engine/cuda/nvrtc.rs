//! Compiling kernels with NVRTC, which is opened at run time and needs neither a GPU nor a toolkit.

use std::ffi::{c_char, CString};

use cudarc::nvrtc::{result, sys};

use super::kernels::KernelSource;
use super::CudaError;

/// The oldest architecture that the kernels are made for: the first with tensor cores for bytes.
pub const LEAST_ARCHITECTURE: u32 = 75;

/// Those that every kernel is compiled for in the tests, of the engine and of training: Turing, Ampere (A100, RTX 30,
/// Orin), Ada, Hopper, Blackwell (B200, B300, Thor, RTX 50).
pub const ARCHITECTURES: [u32; 10] = [LEAST_ARCHITECTURE, 80, 86, 87, 89, 90, 100, 103, 110, 120];

/// Whether NVRTC can be opened.
pub fn is_present() -> bool {
    // SAFETY: only asks whether the library can be opened.
    unsafe { sys::is_culib_present() }
}

/// NVRTC's version, such as (13, 0); `None` if it is absent.
pub fn version() -> Option<(i32, i32)> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both outlive the call; the library is there.
    (is_present() && unsafe { sys::nvrtcVersion(&mut major, &mut minor) }.result().is_ok()).then_some((major, minor))
}

/// The architectures that NVRTC compiles for, such as 87; none if it is absent.
pub fn architectures() -> Vec<u32> {
    let mut count = 0;
    // SAFETY: `count` outlives the call; the library is there.
    if !is_present() || unsafe { sys::nvrtcGetNumSupportedArchs(&mut count) }.result().is_err() {
        return Vec::new();
    }
    let mut known = vec![0; usize::try_from(count).unwrap_or(0)];
    // SAFETY: there is room for as many as NVRTC has said.
    if unsafe { sys::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().is_err() {
        return Vec::new();
    }
    known.into_iter().filter_map(|architecture| u32::try_from(architecture).ok()).collect()
}

/// A version as CUDA numbers it, such as 12040, in words: 12.4.
pub(super) fn spelled(version: u32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// Compiles `module` for `architecture`, such as 87, to a cubin. Takes some seconds for the
/// largest.
///
/// # Errors
/// [`CudaError::Compile`] with the first error of NVRTC's log.
pub fn compile(module: &KernelSource, architecture: u32) -> Result<Vec<u8>, CudaError> {
    let fault = |why: String| CudaError::Compile { module: module.name, architecture, why };
    let call = |e: result::NvrtcError| fault(e.to_string());
    let source = CString::new(module.text()).expect("sources have no NUL");
    let name = CString::new(format!("{}.cu", module.name)).expect("names have no NUL");
    let program = NvrtcProgram(result::create_program(&source, Some(&name)).map_err(call)?);
    let options = [format!("--gpu-architecture=sm_{architecture}"), "--std=c++17".into()];
    // SAFETY: the program lives until the end of this function, and so do the texts that it may
    // refer to.
    unsafe {
        if let Err(error) = result::compile_program(program.0, &options) {
            let log = result::get_program_log(program.0).unwrap_or_default();
            let log: String = log.iter().take_while(|&&c| c != 0).map(|&c| c as u8 as char).collect();
            return Err(fault(format!("{error}: {}", first_error(&log))));
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program.0, &mut size).result().map_err(call)?;
        let mut cubin = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast::<c_char>()).result().map_err(call)?;
        Ok(cubin)
    }
}

/// The line of a log that says what is wrong; the first one where none says so.
fn first_error(log: &str) -> &str {
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.clone().next().unwrap_or("it did not say why");
    lines.find(|line| line.contains("error")).unwrap_or(first)
}

/// Destroyed when dropped.
struct NvrtcProgram(sys::nvrtcProgram);

impl Drop for NvrtcProgram {
    fn drop(&mut self) {
        // SAFETY: created by `compile`, and destroyed here alone.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_log_the_first_error_is_told_in_one_line() {
        let log = "a.cu(3): warning #177-D: x was declared\n  int x;\n\na.cu(9): error: y is undefined\n  y = 1;\n1 error detected\n";
        assert_eq!(first_error(log), "a.cu(9): error: y is undefined");
        assert_eq!(first_error("\nnvrtc: invalid option\n"), "nvrtc: invalid option");
        assert_eq!(first_error(""), "it did not say why");
    }
}
