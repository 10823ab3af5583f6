//! `manifest.json`: everything that is known of a student besides its weights.

use std::collections::BTreeMap;

use peregrine_engine::quantization::TensorScale;
use serde::{Deserialize, Serialize};

use super::Architecture;

/// Version of the package format of a student in floating point.
pub const FORMAT_VERSION: u32 = 1;

/// Version of the package format of a quantized student: version 1 with a `quantization`.
pub const QUANTIZED_FORMAT_VERSION: u32 = 2;

/// Version of the package format of a student with clustered weights: version 1 with
/// `weights.shared_bits`.
pub const CLUSTERED_FORMAT_VERSION: u32 = 3;

/// The manifest of a student package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT_VERSION`], [`QUANTIZED_FORMAT_VERSION`] or [`CLUSTERED_FORMAT_VERSION`].
    pub format_version: u32,
    pub name: String,
    pub architecture: Architecture,
    pub weights: WeightsFile,
    pub training: Training,
    /// Present in a quantized student.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<QuantizationSection>,
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
    /// Bits of a weight's code, 1 to 8, where weights are clustered (see
    /// [`clustered`](super::clustered)). In JSON `shared_bits`, the name that the format has had
    /// from its start.
    #[serde(rename = "shared_bits", default, skip_serializing_if = "Option::is_none")]
    pub cluster_bits: Option<u8>,
}

impl Manifest {
    /// The version of the format that holds what this manifest has.
    ///
    /// # Errors
    /// A sentence, when it has what no version holds.
    pub fn needed_version(&self) -> Result<u32, String> {
        match (&self.quantization, self.weights.cluster_bits) {
            (None, None) => Ok(FORMAT_VERSION),
            (Some(_), None) => Ok(QUANTIZED_FORMAT_VERSION),
            (None, Some(1..=8)) => Ok(CLUSTERED_FORMAT_VERSION),
            (None, Some(bits)) => Err(format!("weights.shared_bits is {bits}; it must be 1 to 8")),
            (Some(_), Some(_)) => Err("it has a quantization and weights.shared_bits; one of them is possible".into()),
        }
    }
}

/// How the weights came about.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Training {
    /// The command that made them.
    pub command: String,
    /// Git commit of the program that began the training, with `+changes` where its files differed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Data sets, with what is known of their licences.
    pub data: Vec<String>,
    /// SHA-256 over each data set's images and labels, by its name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub data_sha256: BTreeMap<String, String>,
    /// Teachers distilled from.
    pub teachers: Vec<String>,
    /// Where the backbone's weights started from.
    pub initialised_from: String,
    pub steps: u64,
    pub seed: u64,
}

/// What is quantized and how; the 8-bit weights and their scales are in the weights file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizationSection {
    /// The command that made it.
    pub command: String,
    /// SHA-256 of the weights file that it was made from; `None` where it was trained further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<String>,
    /// How the tensors' ranges were chosen: `min-max`, `percentile`, `mse` or `kl`.
    pub activations: String,
    /// How the weights' scales were chosen: `max` or `mse`.
    pub weights: String,
    /// Data sets calibrated on, with how many of their images.
    pub data: BTreeMap<String, usize>,
    /// Convolutions that stay in floating point.
    pub float_layers: Vec<String>,
    /// The scale of each layer's result.
    pub tensors: BTreeMap<String, TensorScale>,
}
