//! Labelled images on disk.
//!
//! - [`config`]: `dataset.toml`: what a folder's classes mean to the student; four data sets are built in.
//! - [`dataset`]: a folder as a list of samples, in the order of their names.
//! - [`labels`]: YOLO label files.
//! - [`read`]: pictures and masks.
//!
//! A folder holds `images/` (JPEG or PNG) and `labels/` with, for each image of the same stem, a YOLO text file or a mask
//! (PNG, one byte a pixel, the class's index). An image without a label file is kept as *unlabelled*: it serves to distil
//! from a teacher, and is neither trained on as an empty scene nor scored.

pub mod config;
pub mod dataset;
pub mod labels;
pub mod read;

use std::path::PathBuf;

pub use config::DatasetConfig;
pub use dataset::{Annotation, Dataset, OnError, OpenOptions, Sample, Skipped, VOID};
pub use read::{load_image, load_mask};

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
    #[error("{path}:{line}: {why}; correct the line, or leave the image out with --skip-bad")]
    Label { path: PathBuf, line: usize, why: String },
    #[error("{path}: not a readable image: {why}; replace the file, or leave it out with --skip-bad")]
    Image { path: PathBuf, why: String },
}
