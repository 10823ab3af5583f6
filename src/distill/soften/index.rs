//! A folder of soft targets: an `index.json`, and the [shards](super::shard) that it names.
//!
//! A shard is valid once the index has its hash, so that an interrupted run resumes with the first
//! missing shard, and with the images of it that `partial` has.

use std::path::Path;

use anyhow::Context;
use peregrine_core::files::{read_at_most, sha256, MAX_RESULT};
use peregrine_student::SceneHead;
use serde::{Deserialize, Serialize};

use super::part::Part;
use crate::data::Sample;

/// Name of the index in its folder.
pub(super) const INDEX: &str = "index.json";

/// The contents of a folder of soft targets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Index {
    /// Name of each teacher, and the hash of its network and description.
    pub teachers: Vec<(String, String)>,
    pub classes: Vec<String>,
    /// Those of `classes` that at least one teacher knows; all by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<Vec<String>>,
    /// The segmentation classes; `None` without a segmenter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segmentation: Option<Vec<String>>,
    /// The student's scene head; `None` without a classifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scene: Option<SceneHead>,
    /// The student's layers with features.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub features: Vec<String>,
    /// Whether the teachers saw each image mirrored, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flip: bool,
    /// What `--shard` makes it a share of; `None` if it is of all images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
    pub shards: Vec<Shard>,
}

/// Which share of a whole a folder has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Share {
    pub part: Part,
    /// In the order of the command.
    pub datasets: Vec<String>,
    /// Number of all parts' shards together.
    pub shards: usize,
    /// Whether all of this part's are there.
    pub complete: bool,
}

impl Share {
    /// Whether it is of the same whole, cut into as many parts.
    pub fn is_of(&self, other: &Self) -> bool {
        self.part.of == other.part.of && self.datasets == other.datasets && self.shards == other.shards
    }
}

/// One file of soft targets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shard {
    pub file: String,
    pub sha256: String,
    /// The data set's name, by which `distill student` finds it.
    pub dataset: String,
    /// The folder of the images.
    #[serde(default)]
    pub folder: String,
    pub images: Vec<String>,
    /// SHA-256 of each image's file. Without them the soft targets are of an older version, and
    /// nothing says which images they are of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hashes: Vec<String>,
    /// Images that could not be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
}

impl Shard {
    /// Whether the sample's image is still the one that its soft targets are of; `None` if it has none.
    pub fn is_of_image(&self, sample: &Sample) -> Option<bool> {
        let at = self.images.iter().position(|file| file == sample.file_name())?;
        Some(std::fs::read(&sample.image).is_ok_and(|bytes| self.hashes.get(at) == Some(&sha256(&bytes))))
    }

    /// Whether the sample's image could not be read.
    pub fn has_skipped(&self, sample: &Sample) -> bool {
        self.skipped.iter().any(|file| file == sample.file_name())
    }
}

impl Index {
    /// Whether it is of the same teachers, classes and features, and of the same views of the images.
    pub fn is_of(&self, other: &Self) -> bool {
        self.teachers == other.teachers
            && self.classes == other.classes
            && self.segmentation == other.segmentation
            && self.scene == other.scene
            && self.features == other.features
            && self.flip == other.flip
    }

    /// Number of classes of scenes; 0 without a classifier.
    pub fn scenes(&self) -> usize {
        self.scene.as_ref().map_or(0, |head| head.0.values().map(Vec::len).sum())
    }

    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = read_at_most(path, MAX_RESULT)
            .with_context(|| format!("{}: no soft targets here; `distill soften` makes them", path.display()))?;
        serde_json::from_slice(&bytes).with_context(|| format!("{}: invalid index of soft targets", path.display()))
    }
}
