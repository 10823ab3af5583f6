//! A folder of labelled images as a list of samples.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use image::GrayImage;
use peregrine_core::BoundingBox;
use peregrine_student::Architecture;

use super::config::{DatasetConfig, Mapped};
use super::labels::{self, Annotation};
use super::{read, DataError};

/// The byte of pixels without a class in the masks of [`Dataset::load_mask`].
pub const VOID: u8 = 255;

/// One split of a data set. Samples are in the order of their file names.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The configuration's name, and the folder's if it differs: `coco128`, `vehicles/train`.
    pub name: String,
    pub samples: Vec<Sample>,
    /// Skipped files, and why.
    pub skipped: Vec<Skipped>,
    pub config: DatasetConfig,
    /// For each student class, whether every object of it is labelled in this data set.
    pub labelled: Vec<bool>,
    /// From a mask's byte to a student's segmentation class, or [`VOID`].
    mask_classes: Box<[u8; 256]>,
    /// The student's segmentation classes.
    mask_names: Vec<String>,
}

/// An image and its ground truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub image: PathBuf,
    /// Pixels: width, height.
    pub size: (u32, u32),
    /// Its objects: `None` if the image is unlabelled, empty if it is labelled as having none.
    pub boxes: Option<Vec<Annotation>>,
    /// Regions in which detections count as neither right nor wrong.
    pub ignore: Vec<BoundingBox>,
    /// Segmentation ground truth, to be read with [`Dataset::load_mask`].
    pub mask: Option<PathBuf>,
}

/// A file that was skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: PathBuf,
    pub reason: String,
}

/// What to do with an image that cannot be decoded or whose labels are invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    #[default]
    Stop,
    /// Skip the image, and count it in [`Dataset::skipped`].
    Skip,
}

/// How to open a data set; by default for the default student's classes, stopping at the first
/// invalid file.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// The `dataset.toml` to use instead of the one found.
    pub config_path: Option<PathBuf>,
    /// The configuration to use instead of any file.
    pub config: Option<DatasetConfig>,
    /// The student's detection classes.
    pub classes: Vec<String>,
    /// The student's segmentation classes.
    pub segmentation: Vec<String>,
    pub on_error: OnError,
}

impl Default for OpenOptions {
    fn default() -> Self {
        let student = Architecture::default_student();
        Self {
            config_path: None,
            config: None,
            classes: student.detection_classes().to_vec(),
            segmentation: student.segmentation_classes().to_vec(),
            on_error: OnError::Stop,
        }
    }
}

impl Dataset {
    /// Opens `folder` for the default student's classes.
    ///
    /// # Errors
    /// See [`open_with`](Self::open_with).
    pub fn open(folder: &Path, config: Option<&Path>) -> Result<Self, DataError> {
        Self::open_with(folder, &OpenOptions { config_path: config.map(Path::to_owned), ..Default::default() })
    }

    /// Reads every label of `folder`, and every image's header.
    ///
    /// # Errors
    /// When the folder or its configuration is unusable or no image is left; and, with
    /// [`OnError::Stop`], at the first invalid image or label.
    pub fn open_with(folder: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let images = list(&folder.join("images"), &["jpg", "jpeg", "png"]).map_err(|e| explain_layout(e, folder))?;
        let (config, config_path) = match &options.config {
            Some(config) => (config.clone(), PathBuf::from("the given classes")),
            None => DatasetConfig::find(folder, options.config_path.as_deref())?,
        };
        let at_config = |why| DataError::Config { path: config_path.clone(), why };
        let classes = config.class_map(&options.classes).map_err(at_config)?;
        let labelled = config.labelled(&options.classes).map_err(at_config)?;
        let mask_classes = mask_classes(&config, &options.segmentation);
        let extension = if config.segmentation.is_some() { "png" } else { "txt" };
        let labels = folder.join("labels");
        let mut unused = if labels.is_dir() { list(&labels, &[extension])? } else { BTreeMap::new() };

        let (mut samples, mut skipped) = (Vec::new(), Vec::new());
        for (stem, image) in images {
            let label = unused.remove(&stem);
            match Sample::read(image.clone(), label, &config, &classes) {
                Ok(sample) => samples.push(sample),
                Err(e) if options.on_error == OnError::Stop => return Err(e),
                Err(e) => skipped.push(Skipped { path: image, reason: e.to_string() }),
            }
        }
        let mask_names = options.segmentation.clone();
        if samples.is_empty() {
            let first = skipped.first().map(|s| format!("; the first of {} skipped: {}", skipped.len(), s.reason));
            return Err(DataError::Empty { folder: folder.to_owned(), first: first.unwrap_or_default() });
        }
        skipped.extend(unused.into_values().map(|path| Skipped { path, reason: "a label without an image".into() }));
        Ok(Self {
            name: split_name(folder, &config.name),
            samples,
            skipped,
            config,
            labelled,
            mask_classes,
            mask_names,
        })
    }

    /// The classes whose indices [`load_mask`](Self::load_mask) returns.
    pub fn mask_names(&self) -> &[String] {
        &self.mask_names
    }

    /// Decodes a sample's mask into the student's segmentation classes and [`VOID`].
    ///
    /// # Errors
    /// When the file is not a valid mask, or holds a byte that `dataset.toml` does not list.
    pub fn load_mask(&self, path: &Path) -> Result<GrayImage, DataError> {
        let mut mask = read::load_mask(path)?;
        let listed = self.config.segmentation.as_ref().map_or(0, |s| s.classes.len());
        let void = self.config.segmentation.as_ref().and_then(|s| s.void);
        for byte in mask.iter_mut() {
            if usize::from(*byte) >= listed && void != Some(*byte) {
                let why = format!("holds class {byte}, but dataset.toml lists {listed} segmentation classes");
                return Err(DataError::Image { path: path.to_owned(), why });
            }
            *byte = self.mask_classes[usize::from(*byte)];
        }
        Ok(mask)
    }
}

impl Sample {
    /// The image's file name, its key within the data set.
    pub fn file_name(&self) -> &str {
        self.image.file_name().and_then(|n| n.to_str()).unwrap_or_default()
    }

    fn read(
        image: PathBuf,
        label: Option<PathBuf>,
        config: &DatasetConfig,
        classes: &[Mapped],
    ) -> Result<Self, DataError> {
        let size = read::dimensions(&image)?;
        let mut sample = Self { image, size, boxes: None, ignore: Vec::new(), mask: None };
        let Some(label) = label else { return Ok(sample) };
        if config.segmentation.is_some() {
            let mask_size = read::dimensions(&label)?;
            if mask_size != size {
                let why = format!("the mask is {mask_size:?} pixels, its image {size:?}; their sizes must be equal");
                return Err(DataError::Image { path: label, why });
            }
            sample.mask = Some(label);
        } else {
            let text = fs::read_to_string(&label).map_err(|source| DataError::Io { path: label.clone(), source })?;
            let labels = labels::parse(&text, &label, classes, size)?;
            sample.boxes = Some(labels.boxes);
            sample.ignore = labels.ignore;
        }
        Ok(sample)
    }
}

/// The files of `folder` with one of `extensions`, by stem.
fn list(folder: &Path, extensions: &[&str]) -> Result<BTreeMap<String, PathBuf>, DataError> {
    let at = |source| DataError::Io { path: folder.to_owned(), source };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        let lower = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let Some(stem) = path.file_stem().and_then(|s| s.to_str()) else { continue };
        if lower.is_some_and(|e| extensions.contains(&e.as_str())) && path.is_file() {
            let stem = stem.to_owned();
            if let Some(twin) = files.insert(stem, path.clone()) {
                let why =
                    format!("{} has the same stem, so their labels cannot be told apart; rename one", twin.display());
                return Err(DataError::Config { path, why });
            }
        }
    }
    Ok(files)
}

/// Names the folder that was probably meant.
fn explain_layout(error: DataError, folder: &Path) -> DataError {
    match error {
        DataError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            let split = ["train", "val", "test"].iter().find(|s| folder.join(s).join("images").is_dir());
            let hint = match split {
                Some(split) => format!("; did you mean {}?", folder.join(split).display()),
                None if folder.is_dir() => "; put the pictures there, and their labels in labels/".into(),
                None => "; no such folder".into(),
            };
            DataError::Layout { folder: folder.to_owned(), hint }
        }
        other => other,
    }
}

fn mask_classes(config: &DatasetConfig, student: &[String]) -> Box<[u8; 256]> {
    let mut map = Box::new([VOID; 256]);
    let Some(labels) = &config.segmentation else { return map };
    for (byte, class) in labels.classes.iter().enumerate().take(256) {
        if labels.void.map(usize::from) != Some(byte) {
            if let Some(i) = student.iter().position(|s| s == class) {
                map[byte] = i as u8;
            }
        }
    }
    map
}

fn split_name(folder: &Path, name: &str) -> String {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    match folder.file_name().and_then(|n| n.to_str()) {
        Some(split) if split != name => format!("{name}/{split}"),
        _ => name.to_owned(),
    }
}
