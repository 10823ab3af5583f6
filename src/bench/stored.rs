//! Results that `latency_bench --json` wrote, read again.

use std::fs;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::Deserialize;

use super::report::SCHEMA_VERSION;

/// Why a file is no result.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}; give a result that latency_bench --json wrote")]
    Format { path: PathBuf, why: String },
    #[error("{path}: schema version {found}; this program reads version {SCHEMA_VERSION}: measure it again")]
    Version { path: PathBuf, found: u64 },
}

/// What was measured.
#[derive(Debug, Deserialize, PartialEq)]
pub struct StoredSubject {
    weights_sha256: String,
    input_width: usize,
    input_height: usize,
    threads: usize,
    // Absent in results of earlier versions.
    #[serde(default)]
    device: Option<String>,
    #[serde(default)]
    pin_threads: bool,
    #[serde(default)]
    tracking: bool,
    #[serde(default)]
    realtime_priority: Option<i32>,
}

/// On what.
#[derive(Debug, Deserialize, PartialEq)]
pub struct StoredMachine {
    cpu_model: Option<String>,
    kernel: Option<String>,
    // Absent in results of earlier versions.
    #[serde(default)]
    jetson: Option<StoredBoard>,
}

/// A Jetson runs at another speed in another power mode.
#[derive(Debug, Deserialize, PartialEq)]
struct StoredBoard {
    power_mode: Option<String>,
}

/// Reads the fields of a result that `T` has.
///
/// # Errors
/// If the file cannot be read, is of another version, or lacks a field.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T, StoredError> {
    let text = fs::read_to_string(path).map_err(|source| StoredError::Io { path: path.into(), source })?;
    let format_error = |e: serde_json::Error| StoredError::Format { path: path.into(), why: e.to_string() };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(format_error)?;
    match value["schema_version"].as_u64() {
        Some(found) if found != u64::from(SCHEMA_VERSION) => Err(StoredError::Version { path: path.into(), found }),
        _ => serde_json::from_value(value).map_err(format_error),
    }
}
