//! What all tests share: how a test that cannot run here says so, where data beside the repository
//! lies, and the repository's [`documents`].
//!
//! A test that needs what this machine lacks calls [`skip`] and returns. `make test` lists these at
//! its end, and `PEREGRINE_REQUIRE=ros,nvrtc` (comma-separated needs; `all` for every one) makes
//! them failures on a machine that is meant to have it all.

pub mod documents;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The variable that names what this machine must have.
pub const REQUIRE: &str = "PEREGRINE_REQUIRE";

/// The variable that names the file to which skips are appended, one line each.
pub const SKIPS: &str = "PEREGRINE_SKIPS";

/// Says that the calling test does not run, for want of `need` (one word: `gpu`, `nvrtc`, `shared`,
/// `onnxruntime`, …) and why.
///
/// # Panics
/// Where `PEREGRINE_REQUIRE` names the need.
pub fn skip(need: &str, why: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    assert!(!required(&std::env::var(REQUIRE).unwrap_or_default(), need), "{REQUIRE} has {need:?}, but {why}");
    let line = format!("{test}: needs {need}: {}\n", why.replace('\n', " "));
    eprint!("SKIPPED {line}");
    if let Some(file) = std::env::var_os(SKIPS) {
        // One write of one line, so that test programs that run beside each other do not mix
        // theirs.
        let appended = OpenOptions::new().create(true).append(true).open(&file);
        appended.and_then(|mut file| file.write_all(line.as_bytes())).unwrap_or_else(|e| panic!("{SKIPS}: {e}"));
    }
}

fn required(list: &str, need: &str) -> bool {
    list.split(',').map(str::trim).any(|word| word == need || word == "all")
}

/// Whether there is no ROS 2 environment; then the calling test is skipped, with a word.
pub fn ros_is_absent() -> bool {
    let absent = std::env::var_os("AMENT_PREFIX_PATH").is_none();
    if absent {
        skip("ros", "there is no ROS 2 environment; run `. launch/setup/env.sh` first");
    }
    absent
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A package of the network that `distill student` builds where nothing is imported, with trained weights: for tests
/// that name its layers. The embedded student is an imported network.
pub fn lite() -> PathBuf {
    root().join("models/peregrine-lite")
}

/// A file or folder of the data beside the repository: below `$PEREGRINE_SHARED`, else `../shared`.
/// Where it is absent the test is skipped, with a word.
pub fn shared(path: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("PEREGRINE_SHARED").map_or_else(|| root().join("../shared"), PathBuf::from);
    let found = folder.join(path);
    if !found.exists() {
        skip("shared", &format!("{} is not there", found.display()));
        return None;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_required_by_name_or_by_all() {
        assert!(required("ros, gpu", "gpu"));
        assert!(required("all", "gpu"));
        assert!(!required("", "gpu"));
        assert!(!required("gpus", "gpu"));
    }
}
