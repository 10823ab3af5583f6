//! What a layout gives: images and their labels, before the classes are mapped to a student's.

use std::collections::HashMap;
use std::path::PathBuf;

use super::super::config::DatasetConfig;
use super::super::labels::Object;
use super::super::{DataError, Skipped};

/// The images of one split.
#[derive(Debug)]
pub struct Listing {
    /// The layout, for people: "COCO JSON".
    pub layout: &'static str,
    /// The name of the set, its classes, and what they map to.
    pub config: DatasetConfig,
    /// The file that names the classes.
    pub config_path: PathBuf,
    pub entries: Vec<Entry>,
    /// What is not read, and why.
    pub skipped: Vec<Skipped>,
}

/// An image.
#[derive(Debug)]
pub struct Entry {
    /// Its path within the set, with `/` between folders.
    pub name: String,
    pub image: PathBuf,
    /// Width and height for which the labels were made, if they say.
    pub size: Option<(u32, u32)>,
    pub labels: Result<Labels, DataError>,
    /// The label file, for messages.
    pub label_file: Option<PathBuf>,
}

/// The labels of an image.
#[derive(Debug, Clone, PartialEq)]
pub enum Labels {
    Unlabelled,
    Objects(Vec<Object>),
    Mask(PathBuf),
}

/// Class names by number; grows as labels name new ones.
#[derive(Debug, Clone, Default)]
pub struct Classes {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Classes {
    /// Starts with `names`.
    pub fn new(names: &[String]) -> Self {
        let mut classes = Self::default();
        names.iter().for_each(|name| {
            classes.number(name);
        });
        classes
    }

    /// The number of a name, a new one if it has none yet.
    pub fn number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    pub fn into_names(self) -> Vec<String> {
        self.names
    }
}
