//! Labelled images on disk.
//!
//! - [`config`]: `dataset.toml`: what a folder's classes mean to the student; four data sets are built in.
//! - [`dataset`]: a folder as a list of samples, in the order of their names.
//! - [`labels`]: YOLO label files.
//! - [`read`]: pictures and masks.
//! - [`copies`](mod@copies): images that are there twice.
//!
//! A folder holds `images/` (JPEG or PNG) and `labels/` with, for each image of the same stem, a YOLO text file or a mask
//! (PNG, one byte a pixel, the class's index). An image without a label file is kept as *unlabelled*: it serves to distil
//! from a teacher, and is neither trained on as an empty scene nor scored.

pub mod config;
pub mod copies;
pub mod dataset;
pub mod labels;
pub mod read;

use std::path::{Path, PathBuf};

pub use config::DatasetConfig;
pub use copies::{copies, Copy};
pub use dataset::{Annotation, Dataset, OnError, OpenOptions, Sample, Skipped, VOID};
pub use read::{load_image, load_mask};

/// How such files are left out: in every command that reads images, and in the configuration of a training.
const SKIP_BAD: &str = "--skip-bad (skip_bad = true in the configuration of a training)";

/// Why a data set, or one file of it, cannot be used. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{folder}: has no images/ folder{hint}")]
    Layout { folder: PathBuf, hint: String },
    #[error("{folder}: no usable image in images/ (.jpg, .jpeg and .png are read){first}")]
    Empty { folder: PathBuf, first: String },
    #[error(
        "{folder}: nothing says what its classes mean; write {folder}/dataset.toml (keys: name, classes, [detection]) or \
         name one with --config. Known without it, by the folder's name: {known}"
    )]
    NoConfig { folder: PathBuf, known: String },
    #[error("{path}: {why}")]
    Config { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}; correct the line, or leave the image out with {}", SKIP_BAD)]
    Label { path: PathBuf, line: usize, why: String },
    #[error("{path}: not a readable image: {why}; replace the file, or leave it out with {}", SKIP_BAD)]
    Image { path: PathBuf, why: String },
}

/// Says on the terminal how many files were left out, and why the first few were.
pub fn tell_left_out(skipped: &[Skipped]) {
    if !skipped.is_empty() {
        eprintln!("files left out: {}", skipped.len());
    }
    for file in skipped.iter().take(5) {
        eprintln!("  {}: {}", file.path.display(), file.reason);
    }
}

/// Refuses two folders whose data sets have one name: soft targets tell images apart by data set and file name.
///
/// # Errors
/// Names both.
pub fn refuse_namesakes<'a>(sets: impl Iterator<Item = (&'a Path, &'a Dataset)>) -> Result<(), DataError> {
    let mut seen: Vec<(&Path, &Dataset)> = Vec::new();
    for (folder, dataset) in sets {
        let elsewhere = |other: &Path| std::fs::canonicalize(other).ok() != std::fs::canonicalize(folder).ok();
        if let Some((other, _)) = seen.iter().find(|(other, d)| d.name == dataset.name && elsewhere(other)) {
            let why = format!(
                "is named {}, as is {}; give one of them another name in its dataset.toml",
                dataset.name,
                other.display()
            );
            return Err(DataError::Config { path: folder.to_owned(), why });
        }
        seen.push((folder, dataset));
    }
    Ok(())
}
