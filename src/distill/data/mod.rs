//! Labelled images on disk.
//!
//! - [`address`]: how a set is named; [`layout`]: the layouts in which people have them, and how
//!   each is told.
//! - [`config`]: `dataset.toml`: the mapping from a set's classes to the student's; four data sets
//!   are built in, and taken where they are asked for.
//! - [`dataset`]: a set as a list of samples, sorted by name.
//! - [`labels`]: the objects of an image. - [`scene`]: what it shows as a whole. - [`names`]: names that are nearly the same.
//! - [`read`]: decoding images; [`mask`]: decoding masks; [`files`]: what lies in a folder.
//! - [`copies`](mod@copies): duplicate images.
//!
//! An image without a label is *unlabelled*: it can be used to distil from a teacher, and is
//! neither trained on as an empty scene nor scored.

pub mod address;
pub mod config;
pub mod copies;
pub mod dataset;
pub mod files;
pub mod labels;
pub mod layout;
pub mod mask;
pub mod names;
pub mod read;
pub mod scene;

use std::path::{Path, PathBuf};

use tracing::warn;

pub use address::Address;
pub use config::DatasetConfig;
pub use copies::{copies, Copy};
pub use dataset::{ClassObjects, Dataset, OnError, OpenOptions, Sample, Skipped, VOID};
pub use labels::Annotation;
pub use read::{dimensions as image_size, load_image};

/// How invalid files are skipped: in every command that reads images, and in the configuration of a
/// training.
const SKIP_BAD: &str = "--skip-bad (skip_bad = true in the configuration of a training)";

/// Why a data set, or one file of it, cannot be used. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{folder}: has no images/ folder{hint}")]
    Layout { folder: PathBuf, hint: String },
    #[error("{folder}: no usable image (.jpg, .jpeg, .jfif, .png, .webp, .bmp and .tif are read){first}")]
    Empty { folder: PathBuf, first: String },
    #[error(
        "{folder}: has no dataset.toml and no data.yaml, so that its classes are unknown; write {folder}/dataset.toml (keys: \
         name, classes, [detection]) or name one with --config (config = \"…\" in the configuration of a training). Built \
         in: {known}"
    )]
    NoConfig { folder: PathBuf, known: String },
    #[error("{path}: {why}")]
    Config { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}; correct the line, or skip the image with {}", SKIP_BAD)]
    Label { path: PathBuf, line: usize, why: String },
    #[error("{path}: {why}; correct it, or skip the image with {}", SKIP_BAD)]
    Labels { path: PathBuf, why: String },
    #[error("{path}: invalid image: {why}; replace the file, or skip it with {}", SKIP_BAD)]
    Image { path: PathBuf, why: String },
    #[error("{why}")]
    Store { why: String },
}

impl DataError {
    /// The sentence without the advice to skip the file, for where it has been skipped.
    pub fn reason(&self) -> String {
        match self {
            Self::Label { path, line, why } => format!("{}:{line}: {why}", path.display()),
            Self::Labels { path, why } => format!("{}: {why}", path.display()),
            Self::Image { path, why } => format!("{}: invalid image: {why}", path.display()),
            other => other.to_string(),
        }
    }
}

/// Logs how many files were skipped, and why the first few were.
pub fn log_skipped(skipped: &[Skipped]) {
    if !skipped.is_empty() {
        warn!("skipped files: {}", skipped.len());
    }
    for file in skipped.iter().take(5) {
        warn!("  {}: {}", file.path.display(), file.reason);
    }
}

/// Refuses two folders whose data sets have the same name: soft targets identify an image by data
/// set and file name.
///
/// # Errors
/// Names both.
pub fn refuse_same_names<'a>(sets: impl Iterator<Item = (&'a Path, &'a Dataset)>) -> Result<(), DataError> {
    let mut seen: Vec<(&Path, &Dataset)> = Vec::new();
    for (folder, dataset) in sets {
        let elsewhere =
            |other: &Path| Address::parse(other).whole_path().ok() != Address::parse(folder).whole_path().ok();
        if let Some((other, _)) = seen.iter().find(|(other, d)| d.name == dataset.name && elsewhere(other)) {
            let why = format!(
                "is named {}, as is {}; give one another name in its dataset.toml",
                dataset.name,
                other.display()
            );
            return Err(DataError::Config { path: folder.to_owned(), why });
        }
        seen.push((folder, dataset));
    }
    Ok(())
}
