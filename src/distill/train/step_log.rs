//! `log.jsonl` in a run's folder: a line of JSON for every ten steps.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use peregrine_core::files::{write_atomically, FileError};
use serde::Serialize;
use serde_json::Value;

/// The log, open at its end.
pub struct StepLog {
    path: PathBuf,
    file: File,
}

impl StepLog {
    /// Opens the log of a run that is resumed after `done` steps. Lines of later steps are removed,
    /// since those steps come again, and so is a line that was half written when the run was
    /// killed.
    ///
    /// # Errors
    /// When the file cannot be read or written; names it.
    pub fn open(path: &Path, done: u64) -> Result<Self, FileError> {
        let at = |source| FileError::new(path, source);
        let mut before = String::new();
        if done > 0 {
            match fs::read(path) {
                Ok(bytes) => before = String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => return Err(at(e)),
            }
        }
        let stays = |line: &&str| {
            let step = serde_json::from_str::<Value>(line).ok().and_then(|line| line["step"].as_u64());
            line.ends_with('\n') && step.is_some_and(|step| step <= done)
        };
        write_atomically(path, before.split_inclusive('\n').filter(stays).collect::<String>().as_bytes())?;
        let file = OpenOptions::new().append(true).open(path).map_err(at)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Adds a line.
    ///
    /// # Errors
    /// When the disk is full; names the file.
    pub fn add(&mut self, line: &impl Serialize) -> Result<(), FileError> {
        let mut json = serde_json::to_vec(line).expect("a line is plain data");
        json.push(b'\n');
        self.file.write_all(&json).map_err(|source| FileError::new(&self.path, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_resumed_run_logs_each_step_once_and_after_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        fs::write(&path, "{\"step\":10}\n{\"step\":10,\"reconfigured\":{}}\n{\"step\":20}\n{\"step\":30}\n{\"st")
            .unwrap();
        let mut log = StepLog::open(&path, 20).unwrap();
        log.add(&json!({ "step": 30 })).unwrap();
        let expected = "{\"step\":10}\n{\"step\":10,\"reconfigured\":{}}\n{\"step\":20}\n{\"step\":30}\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        StepLog::open(&path, 0).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "", "a fresh run");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_full_disk_is_an_error_that_names_the_file() {
        let error = StepLog::open(Path::new("/dev/full"), 0).and_then(|mut log| log.add(&1)).unwrap_err().to_string();
        assert!(error.contains("/dev/full"), "{error}");
    }
}
