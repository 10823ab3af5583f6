//! The layouts in which people have labelled images: one file each.
//!
//! | layout | told by |
//! |---|---|
//! | [`own`]: this project's | `images/`, `labels/` |
//! | [`ultralytics`], Roboflow | `data.yaml` |
//! | [`coco`] JSON | `images`, `annotations` and `categories` in a JSON file |
//! | [`voc`] XML | `Annotations/` and `JPEGImages/`, or XML files beside the images |
//! | [`kitti`] | `image_2/` and `label_2/` |
//! | [`bdd`]: BDD100K JSON | frames with `labels` of `box2d` in a JSON file |
//! | [`cityscapes`] | `leftImg8bit/` and `gtFine/` |
//! | [`labelme`] JSON | JSON files with `shapes` beside the images |
//! | [`class_folders`] | a folder of images for each class of scenes |
//! | [`cvat`] XML | `annotations.xml` with `<image>` elements |
//!
//! The layout is told by folders and content that are its own, never by the name of the set.

pub mod bdd;
pub mod cityscapes;
pub mod class_folders;
pub mod coco;
pub mod cvat;
pub mod detect;
pub mod kitti;
pub mod labelme;
pub mod listing;
pub mod near;
pub mod own;
pub mod text;
pub mod ultralytics;
pub mod voc;
pub mod yolo;

use std::path::{Path, PathBuf};

use super::config::DatasetConfig;
use super::DataError;
pub use detect::{splits, Layout};
pub use listing::{Classes, Entry, Labels, Listing};

/// What is asked of a layout.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The data set's folder or file.
    pub path: PathBuf,
    /// One of its splits.
    pub split: Option<String>,
    /// The configuration to use instead of what the layout says, and where it comes from.
    pub given: Option<(DatasetConfig, PathBuf)>,
    /// Whether to keep objects' outlines.
    pub outlines: bool,
}

impl Request {
    /// The given configuration; otherwise one of these names, which `from` says.
    fn config_or(&self, names: &[String], from: &Path) -> (DatasetConfig, PathBuf) {
        match &self.given {
            Some(given) => given.clone(),
            None => (DatasetConfig::of_classes(&self.set_name(), names), from.to_owned()),
        }
    }

    /// As [`config_or`](Self::config_or), for labels that give classes by number: the given list of
    /// classes must be the layout's.
    fn numbered_config(&self, names: &[String], from: &Path) -> Result<(DatasetConfig, PathBuf), DataError> {
        let (mut config, path) = self.config_or(names, from);
        if config.classes.is_empty() {
            config.classes = names.to_vec();
        }
        if config.classes != names {
            let why = format!(
                "lists the classes {}, but {} lists {}; labels give classes by number, so both must be equal: correct one",
                config.classes.join(", "),
                from.display(),
                names.join(", ")
            );
            return Err(DataError::Config { path, why });
        }
        Ok((config, path))
    }

    /// The name of the data set's folder.
    fn set_name(&self) -> String {
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        // A YAML file describes its folder; other files are each a set of their own.
        let name = match path.is_file() {
            true if ultralytics::is_yaml(&path) => path.parent().and_then(Path::file_name),
            true => path.file_stem(),
            false => path.file_name(),
        };
        name.and_then(|name| name.to_str()).unwrap_or("data").to_owned()
    }
}
