//! `dataset.toml`: the mapping from the classes of a folder's label files to the student's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::DataError;

/// File name in a data set's folder, or in its parent if the splits share one.
pub const CONFIG_FILE: &str = "dataset.toml";

/// In `[detection]`, the value that turns a class's boxes into ignore regions, in which
/// `distill evaluate` counts detections as neither right nor wrong. Training treats them as
/// background.
pub const IGNORE: &str = "ignore";

/// Data sets that need no `dataset.toml`: selected by the name of the folder, or of its parent.
const BUILT_IN: [(&str, &str); 4] = [
    ("vehicles", include_str!("../../../models/datasets/vehicles.toml")),
    ("street", include_str!("../../../models/datasets/street.toml")),
    ("camvid", include_str!("../../../models/datasets/camvid.toml")),
    ("coco128", include_str!("../../../models/datasets/coco128.toml")),
];

/// The configuration of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetConfig {
    pub name: String,
    /// Classes of the YOLO label files, by index.
    #[serde(default)]
    pub classes: Vec<String>,
    /// Student classes of which every object is labelled; of the others, an unlabelled region is
    /// unknown instead of background. By default every student class that `detection` maps to.
    #[serde(default)]
    pub labelled: Option<Vec<String>>,
    #[serde(default)]
    pub licence: String,
    #[serde(default)]
    pub notes: String,
    /// From a class of the label files to a student class, or to `"ignore"`; a class that is absent
    /// is background. By default classes keep their names.
    #[serde(default)]
    pub detection: Option<BTreeMap<String, String>>,
    /// Set if the labels are masks.
    #[serde(default)]
    pub segmentation: Option<SegmentationLabels>,
}

/// The meaning of a mask's bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SegmentationLabels {
    /// Class names by byte; a name that is not the student's is void.
    pub classes: Vec<String>,
    /// The byte of pixels without a class.
    #[serde(default)]
    pub void: Option<u8>,
}

/// What a class of the label files maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapped {
    Student(usize),
    Ignore,
    Background,
}

impl DatasetConfig {
    /// The configuration of `folder`: the file `given`, or `dataset.toml` in the folder or its
    /// parent, or a built-in one.
    ///
    /// # Errors
    /// When there is none, or it is invalid.
    pub fn find(folder: &Path, given: Option<&Path>) -> Result<(Self, PathBuf), DataError> {
        if let Some(path) = given {
            return Self::read(path);
        }
        let folder = fs::canonicalize(folder).map_err(|source| DataError::Io { path: folder.to_owned(), source })?;
        let near = [Some(folder.as_path()), folder.parent()];
        for candidate in near.into_iter().flatten().map(|f| f.join(CONFIG_FILE)) {
            if candidate.is_file() {
                return Self::read(&candidate);
            }
        }
        let names = near.into_iter().flatten().filter_map(|f| f.file_name()?.to_str());
        for name in names {
            if let Some((_, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
                let path = PathBuf::from(format!("the built-in {name}.toml"));
                return Ok((Self::parse(text, &path)?, path));
            }
        }
        Err(DataError::NoConfig { folder, known: BUILT_IN.map(|(name, _)| name).join(", ") })
    }

    fn read(path: &Path) -> Result<(Self, PathBuf), DataError> {
        let text = fs::read_to_string(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok((Self::parse(&text, path)?, path.to_owned()))
    }

    fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| DataError::Config { path: path.to_owned(), why: e.to_string().trim_end().to_owned() })?;
        if config.name.is_empty() {
            return Err(DataError::Config { path: path.to_owned(), why: "name must not be empty".into() });
        }
        Ok(config)
    }

    /// For each class of the label files, what it maps to for a student of `classes`.
    ///
    /// # Errors
    /// A sentence naming the invalid key.
    pub fn class_map(&self, classes: &[String]) -> Result<Vec<Mapped>, String> {
        if let Some(unknown) = self.detection.iter().flatten().map(|(from, _)| from).find(|c| !self.classes.contains(c))
        {
            return Err(format!("detection.{unknown:?} is not among classes; correct its spelling or add it there"));
        }
        self.classes
            .iter()
            .map(|class| {
                let target = match &self.detection {
                    Some(map) => match map.get(class) {
                        Some(target) => target,
                        None => return Ok(Mapped::Background),
                    },
                    None => class,
                };
                match classes.iter().position(|c| c == target) {
                    Some(i) => Ok(Mapped::Student(i)),
                    None if target == IGNORE => Ok(Mapped::Ignore),
                    None if self.detection.is_none() => Ok(Mapped::Background),
                    None => Err(format!(
                        "detection.{class:?} maps to {target:?}; the student has {} (or write \"{IGNORE}\")",
                        classes.join(", ")
                    )),
                }
            })
            .collect()
    }

    /// For each of the student's `classes`, whether every object of it is labelled.
    ///
    /// # Errors
    /// A sentence naming the invalid key.
    pub fn labelled(&self, classes: &[String]) -> Result<Vec<bool>, String> {
        match &self.labelled {
            Some(labelled) => match labelled.iter().find(|l| !classes.contains(l)) {
                Some(unknown) => Err(format!("labelled names {unknown:?}, but the student has {}", classes.join(", "))),
                None => Ok(classes.iter().map(|c| labelled.contains(c)).collect()),
            },
            None => {
                let map = self.class_map(classes)?;
                Ok((0..classes.len()).map(|i| map.contains(&Mapped::Student(i))).collect())
            }
        }
    }
}
