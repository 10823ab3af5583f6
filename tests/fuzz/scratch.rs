//! A folder of this process's own, in memory where the system has such a place.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A folder whose files a target writes anew for each input.
pub struct Scratch(TempDir);

impl Scratch {
    /// With `files`: names and contents.
    ///
    /// # Panics
    /// When it cannot be written to.
    pub fn new(files: &[(&str, &[u8])]) -> Self {
        let memory = Path::new("/dev/shm");
        let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("peregrine-fuzz-").tempdir_in(parent).expect("a folder");
        let scratch = Self(folder);
        files.iter().for_each(|(name, bytes)| drop(scratch.write(name, bytes)));
        scratch
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Replaces the file called `name`, and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        if let Some(folder) = path.parent().filter(|folder| !folder.is_dir()) {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(&path, bytes).expect("a file");
        path
    }
}
