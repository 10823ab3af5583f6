//! Trees of files for tests: made by a test, or recorded on a machine.
//!
//! A recorded tree is the `files` of `latency_bench --doctor --json`. `virtual-x86` was recorded, and shortened.
//! `laptop-x86` and `jetson-orin` are put together from what the kernel's and NVIDIA's documentation say that such
//! machines write; a recording of a real one may replace either.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::Root;

/// The machines whose trees lie in `src/bench/sysfs/trees`.
pub const RECORDED: [&str; 3] = ["laptop-x86", "virtual-x86", "jetson-orin"];

/// A tree that exists as long as this does.
pub struct Tree(TempDir);

impl Tree {
    /// Of files with their texts.
    pub fn of(files: &[(&str, &str)]) -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        files.iter().for_each(|(path, text)| tree.write(path, text.as_bytes()));
        tree
    }

    /// That of a machine.
    pub fn recorded(machine: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("sysfs/trees/{machine}.json"));
        let text = fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
        let files = recorded["files"].as_object().expect("the files of --doctor --json").iter();
        Self::of(&files.map(|(path, text)| (path.as_str(), text.as_str().unwrap())).collect::<Vec<_>>())
    }

    /// Where it is.
    pub fn root(&self) -> Root {
        Root::at(self.0.path())
    }

    /// Writes a file of it.
    pub fn write(&self, path: &str, text: &[u8]) {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The paths of all its files.
    pub fn paths(&self) -> Vec<String> {
        let mut found = vec![];
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push(path.strip_prefix(self.0.path()).unwrap().to_str().unwrap().to_owned());
                }
            }
        }
        found.sort();
        found
    }

    /// Removes a file of it.
    pub fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }
}
