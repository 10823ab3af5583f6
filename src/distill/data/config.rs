//! `dataset.toml`: the mapping from the classes of a folder's label files to the student's.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use peregrine_core::files::{read_text_at_most, MAX_DESCRIPTION};
use serde::{Deserialize, Serialize};

use super::{names, scene, DataError};

/// File name in a data set's folder, or in its parent if the splits share one.
pub const CONFIG_FILE: &str = "dataset.toml";

/// In `[detection]`, the value that turns a class's boxes into ignore regions, in which
/// `distill evaluate` counts detections as neither right nor wrong. Training treats them as
/// background.
pub const IGNORE: &str = "ignore";

/// What stands before the name of a built-in description where a file is asked for:
/// `builtin:vehicles`.
const BUILT_IN_PREFIX: &str = "builtin:";

/// Descriptions of public data sets. They are taken only where they are asked for: a folder of the
/// same name may hold anything.
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
    /// The scene of all images that no file labels: a class, or a list with one of each group.
    #[serde(default, deserialize_with = "scene::one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub scene: Vec<String>,
    /// From a label of scenes to a student's class, or to `"ignore"`; by default labels keep their
    /// names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scene_classes: BTreeMap<String, String>,
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
    /// For masks that are stored as colours: the colour (red, green, blue) of each class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colours: Option<Vec<[u8; 3]>>,
}

/// What a class of the label files maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mapped {
    Student(usize),
    Ignore,
    Background,
}

/// A class of the data set that nothing maps, and the student's class that was probably meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmapped {
    pub class: String,
    pub near: Option<String>,
}

/// The built-in descriptions, as they are asked for.
pub fn built_in() -> Vec<String> {
    BUILT_IN.iter().map(|(name, _)| format!("{BUILT_IN_PREFIX}{name}")).collect()
}

impl DatasetConfig {
    /// The configuration that is `given`: a file, or `builtin:NAME`; otherwise `dataset.toml` in
    /// the folder `near` or its parent.
    ///
    /// # Errors
    /// When the given one does not exist, or is invalid.
    pub fn find(near: &Path, given: Option<&Path>) -> Result<Option<(Self, PathBuf)>, DataError> {
        if let Some(path) = given {
            let name = path.to_str().and_then(|text| text.strip_prefix(BUILT_IN_PREFIX));
            return name.map_or_else(|| Self::read(path), |name| Self::built_in(name, path)).map(Some);
        }
        let near = fs::canonicalize(near).map_err(|source| DataError::Io { path: near.to_owned(), source })?;
        let folders = near.ancestors().take(if near.is_dir() { 2 } else { 3 });
        let found = folders.map(|folder| folder.join(CONFIG_FILE)).find(|path| path.is_file());
        found.map(|path| Self::read(&path)).transpose()
    }

    /// One of these classes and nothing else.
    pub fn of_classes(name: &str, classes: &[String]) -> Self {
        Self {
            name: name.to_owned(),
            classes: classes.to_vec(),
            labelled: None,
            licence: String::new(),
            notes: String::new(),
            detection: None,
            segmentation: None,
            scene: Vec::new(),
            scene_classes: BTreeMap::new(),
        }
    }

    fn built_in(name: &str, given: &Path) -> Result<(Self, PathBuf), DataError> {
        let names = BUILT_IN.map(|(name, _)| name.to_owned());
        let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) else {
            let near = names::did_you_mean(name, &names);
            let why = format!("there is no such description{near}; built in are {}", built_in().join(", "));
            return Err(DataError::Config { path: given.to_owned(), why });
        };
        Ok((Self::parse(text, given)?, given.to_owned()))
    }

    fn read(path: &Path) -> Result<(Self, PathBuf), DataError> {
        let text =
            read_text_at_most(path, MAX_DESCRIPTION).map_err(|e| DataError::Io { path: e.path, source: e.source })?;
        Ok((Self::parse(&text, path)?, path.to_owned()))
    }

    fn parse(text: &str, path: &Path) -> Result<Self, DataError> {
        let config: Self = toml::from_str(text)
            .map_err(|e| DataError::Config { path: path.to_owned(), why: e.to_string().trim_end().to_owned() })?;
        config.check().map_err(|why| DataError::Config { path: path.to_owned(), why })?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() {
            return Err("name must not be empty".into());
        }
        if let Some(name) = names::doubled(&self.classes) {
            return Err(format!("classes has {name:?} twice; give each class a name of its own"));
        }
        let Some(masks) = &self.segmentation else { return Ok(()) };
        if masks.classes.is_empty() || masks.classes.len() > 256 {
            return Err(format!("segmentation.classes has {} classes; 1 to 256 are possible", masks.classes.len()));
        }
        if let Some(colours) = &masks.colours {
            if colours.len() != masks.classes.len() {
                let (colours, classes) = (colours.len(), masks.classes.len());
                return Err(format!("segmentation.colours has {colours} colours for {classes} classes; give each one"));
            }
            if let Some((i, colour)) = colours.iter().enumerate().find(|(i, c)| colours[..*i].contains(c)) {
                return Err(format!("segmentation.colours[{i}] is {colour:?}, which stands there already"));
            }
        }
        Ok(())
    }

    /// The classes of the label files that no class of the student stands for, although nothing
    /// says that they are background: without a table `detection` all of them, with one those that
    /// differ from a student's class in case, hyphens or a plural alone. The same for masks.
    pub fn unmapped(&self, classes: &[String], segmentation: &[String]) -> Vec<Unmapped> {
        let of = |class: &String, known: &[String]| Unmapped {
            class: class.clone(),
            near: names::nearest(class, known).map(str::to_owned),
        };
        let absent = |class: &&String| match &self.detection {
            None => !classes.contains(class) && *class != IGNORE,
            Some(map) => !map.contains_key(*class) && same_but_for_case(class, classes),
        };
        let boxes = self.classes.iter().filter(absent).map(|class| of(class, classes));
        let void = self.segmentation.as_ref().and_then(|masks| masks.void).map(usize::from);
        let masks = self.segmentation.iter().flat_map(|masks| masks.classes.iter().enumerate());
        let masks = masks.filter(|(byte, class)| Some(*byte) != void && !segmentation.contains(class));
        boxes.chain(masks.map(|(_, class)| of(class, segmentation))).collect()
    }

    /// For each class of the label files, what it maps to for a student of `classes`.
    ///
    /// # Errors
    /// A sentence naming the invalid key.
    pub fn class_map(&self, classes: &[String]) -> Result<Vec<Mapped>, String> {
        let from = self.detection.iter().flatten().map(|(from, _)| from);
        if let Some(unknown) = from.into_iter().find(|class| !self.classes.contains(class)) {
            let near = names::did_you_mean(unknown, &self.classes);
            return Err(format!(
                "detection.{unknown:?} is not among classes{near}; correct its spelling or add it there"
            ));
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
                        "detection.{class:?} maps to {target:?}; the student has {} (or write \"{IGNORE}\"){}",
                        classes.join(", "),
                        names::did_you_mean(target, classes)
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

fn same_but_for_case(class: &str, classes: &[String]) -> bool {
    classes.iter().any(|other| names::plain(other) == names::plain(class))
}
