//! `manifest.json`: everything that is known of a student besides its weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Architecture;

/// Version of the package format that this code reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// The manifest of a student package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] at the time of writing.
    pub format_version: u32,
    pub name: String,
    pub architecture: Architecture,
    pub weights: WeightsFile,
    pub training: Training,
    /// Measured figures by data set and metric, such as `vehicles/val` → `AP50`; fractions of one.
    pub accuracy: BTreeMap<String, BTreeMap<String, f64>>,
    /// Licences and credits of what the weights were made from.
    pub notice: Vec<String>,
}

/// The safetensors file beside the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// File name, without a folder.
    pub file: String,
    /// Of the whole file, in hexadecimal.
    pub sha256: String,
}

/// How the weights came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The command that made them.
    pub command: String,
    /// Data sets, with what is known of their licences.
    pub data: Vec<String>,
    /// Teachers distilled from.
    pub teachers: Vec<String>,
    /// Where the backbone's weights started from.
    pub initialised_from: String,
    pub steps: u64,
    pub seed: u64,
}
