//! ONNX Runtime, for the tests that need it.

use std::path::Path;

use peregrine_distill::teacher::Runtime;

/// The ONNX Runtime that the environment names.
pub fn onnx_runtime() -> Option<Runtime> {
    let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| Path::new(path).is_file());
    if path.is_none() {
        peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
    }
    path.map(|path| Runtime::open(Path::new(&path)).unwrap())
}
