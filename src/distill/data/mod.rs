//! Labelled images on disk.
//!
//! - [`config`]: `dataset.toml`: the mapping from a folder's classes to the student's; four data
//!   sets are built in.
//! - [`dataset`]: a folder as a list of samples, sorted by file name.
//! - [`labels`]: YOLO label files.
//! - [`read`]: decoding images and masks.
//! - [`copies`](mod@copies): duplicate images.
//!
//! A folder holds `images/` (JPEG or PNG) and `labels/` with, for each image of the same stem, a
//! YOLO text file or a mask (PNG, one byte per pixel: the class index). An image without a label
//! file is *unlabelled*: it can be used to distil from a teacher, and is neither trained on as an
//! empty scene nor scored.

pub mod config;
pub mod copies;
pub mod dataset;
pub mod labels;
pub mod read;

use std::path::{Path, PathBuf};

use tracing::warn;

pub use config::DatasetConfig;
pub use copies::{copies, Copy};
pub use dataset::{Dataset, OnError, OpenOptions, Sample, Skipped, VOID};
pub use labels::Annotation;
pub use read::{dimensions as read_size, load_image, load_mask};

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
    #[error("{folder}: no usable image in images/ (.jpg, .jpeg and .png are read){first}")]
    Empty { folder: PathBuf, first: String },
    #[error(
        "{folder}: has no dataset.toml, so that its classes are unknown; write {folder}/dataset.toml (keys: name, classes, \
         [detection]) or name one with --config. Built in, by the folder's name: {known}"
    )]
    NoConfig { folder: PathBuf, known: String },
    #[error("{path}: {why}")]
    Config { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}; correct the line, or skip the image with {}", SKIP_BAD)]
    Label { path: PathBuf, line: usize, why: String },
    #[error("{path}: invalid image: {why}; replace the file, or skip it with {}", SKIP_BAD)]
    Image { path: PathBuf, why: String },
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
        let elsewhere = |other: &Path| std::fs::canonicalize(other).ok() != std::fs::canonicalize(folder).ok();
        if let Some((other, _)) = seen.iter().find(|(other, d)| d.name == dataset.name && elsewhere(other)) {
            let why =
                format!("is named {}, as is {}; rename one of them in its dataset.toml", dataset.name, other.display());
            return Err(DataError::Config { path: folder.to_owned(), why });
        }
        seen.push((folder, dataset));
    }
    Ok(())
}
