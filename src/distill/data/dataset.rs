//! A folder of labelled images as a list of samples.

use std::fs;
use std::path::{Path, PathBuf};

use image::GrayImage;
use peregrine_core::BoundingBox;
use peregrine_student::{Architecture, SceneHead};
use rayon::prelude::*;

use super::config::{DatasetConfig, Mapped, Unmapped};
use super::labels::{self, Annotation};
use super::layout::{self, Entry, Labels, Listing};
use super::scene::{SceneLabeller, SceneLabels, CSV_FILE};
use super::{read, Address, DataError};

/// The byte of pixels without a class in the masks of [`Dataset::load_mask`].
pub const VOID: u8 = 255;

/// Classes that a warning names at most.
const WARNED: usize = 12;

/// One split of a data set. Samples are in the order of their names.
#[derive(Debug, Clone)]
pub struct Dataset {
    /// The configuration's name, and the folder's if it differs: `coco128`, `vehicles/train`.
    pub name: String,
    /// The layout that was read: "COCO JSON".
    pub layout: &'static str,
    pub samples: Vec<Sample>,
    /// Skipped files, and why.
    pub skipped: Vec<Skipped>,
    pub config: DatasetConfig,
    /// Its own classes: labelled objects, and what they map to.
    pub objects: Vec<ClassObjects>,
    /// Its classes that no class of the student stands for.
    pub unmapped: Vec<Unmapped>,
    /// For each student class, whether every object of it is labelled in this data set.
    pub labelled: Vec<bool>,
    /// From a mask's byte to a student's segmentation class, or [`VOID`].
    mask_classes: Box<[u8; 256]>,
    /// The student's segmentation classes.
    mask_names: Vec<String>,
    /// The student's scene head.
    scenes: Option<SceneHead>,
}

/// A class of the label files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassObjects {
    pub class: String,
    /// Labelled objects.
    pub objects: usize,
    pub mapped: Mapped,
}

/// An image and its ground truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The image's path within the data set, with `/` between folders.
    pub name: String,
    pub image: PathBuf,
    /// Pixels of the upright image: width, height.
    pub size: (u32, u32),
    /// Its objects: `None` if the image is unlabelled, empty if it is labelled as having none.
    pub boxes: Option<Vec<Annotation>>,
    /// Regions in which detections count as neither right nor wrong.
    pub ignore: Vec<BoundingBox>,
    /// Segmentation ground truth, to be read with [`Dataset::load_mask`].
    pub mask: Option<PathBuf>,
    /// What it shows as a whole.
    pub scene: SceneLabels,
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
    /// The `dataset.toml` to use instead of the one found, or `builtin:NAME`.
    pub config_path: Option<PathBuf>,
    /// The configuration to use instead of any file.
    pub config: Option<DatasetConfig>,
    /// The student's detection classes.
    pub classes: Vec<String>,
    /// The student's segmentation classes.
    pub segmentation: Vec<String>,
    /// The student's scene head.
    pub scene: Option<SceneHead>,
    pub on_error: OnError,
}

impl OpenOptions {
    /// To open a data set for the classes of a student.
    pub fn of(student: &Architecture) -> Self {
        Self {
            config_path: None,
            config: None,
            classes: student.detection_classes().to_vec(),
            segmentation: student.segmentation_classes().to_vec(),
            scene: student.scene.clone(),
            on_error: OnError::Stop,
        }
    }
}

/// For the default student's classes.
impl Default for OpenOptions {
    fn default() -> Self {
        Self::of(&Architecture::default_student())
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

    /// Reads every label of the data set at `path`, and every image's header. `path` is a folder or
    /// file of any of the [`layout`]s, by its [`Address`]; from an object store it is copied first.
    ///
    /// # Errors
    /// When the folder or its configuration is unusable or no image is left; and, with
    /// [`OnError::Stop`], at the first invalid image or label.
    pub fn open_with(path: &Path, options: &OpenOptions) -> Result<Self, DataError> {
        let address = Address::parse(path).here()?;
        if !address.path.exists() {
            return Err(DataError::Layout { folder: address.path, hint: "; no such folder".into() });
        }
        let given = match &options.config {
            Some(config) => Some((config.clone(), PathBuf::from("the given classes"))),
            None => {
                let config = address.config.as_deref().or(options.config_path.as_deref());
                DatasetConfig::find(&address.path, config)?
            }
        };
        let (listing, split) = layout::detect::read(&address, given, false)?;
        Self::of(&address.path, listing, split.as_deref(), options)
    }

    fn of(path: &Path, listing: Listing, split: Option<&str>, options: &OpenOptions) -> Result<Self, DataError> {
        let Listing { layout, config, config_path, entries, mut skipped } = listing;
        let at_config = |why| DataError::Config { path: config_path.clone(), why };
        let classes = config.class_map(&options.classes).map_err(at_config)?;
        let labelled = config.labelled(&options.classes).map_err(at_config)?;
        let unmapped = config.unmapped(&options.classes, &options.segmentation);
        let mask_classes = mask_classes(&config, &options.segmentation);

        let objects = count_objects(&config, &classes, &entries);
        let mut scenes = SceneLabeller::open(path, layout, (&config, &config_path), options.scene.as_ref())?;
        let others = std::mem::take(&mut skipped);
        let mut samples = Vec::with_capacity(entries.len());
        let read: Vec<_> =
            entries.into_par_iter().map(|entry| (entry.image.clone(), Sample::read(entry, &classes))).collect();
        for (image, sample) in read {
            match sample {
                Ok(sample) => {
                    let scene = scenes.of(&sample.name, &image)?;
                    samples.push(Sample { scene, ..sample });
                }
                Err(e) if options.on_error == OnError::Stop => return Err(e),
                Err(e) => skipped.push(Skipped { path: image, reason: e.reason() }),
            }
        }
        skipped.extend(scenes.left_over());
        skipped.extend(others);
        if samples.is_empty() {
            let first = skipped
                .first()
                .map(|s| format!("; the first of {} left out: {}: {}", skipped.len(), s.path.display(), s.reason));
            return Err(DataError::Empty { folder: path.to_owned(), first: first.unwrap_or_default() });
        }
        let dataset = Self {
            name: split_name(path, &config.name, split),
            layout,
            samples,
            skipped,
            config,
            labelled,
            objects,
            unmapped,
            mask_classes,
            mask_names: options.segmentation.clone(),
            scenes: options.scene.clone(),
        };
        dataset.warn_unmapped(&config_path);
        Ok(dataset)
    }

    /// Names the classes that count as background or void though nothing says so.
    fn warn_unmapped(&self, config: &Path) {
        if self.unmapped.is_empty() {
            return;
        }
        let name = |unmapped: &Unmapped| match &unmapped.near {
            Some(near) => format!("{:?} (did you mean {near:?}?)", unmapped.class),
            None => format!("{:?}", unmapped.class),
        };
        let mut names: Vec<String> = self.unmapped.iter().take(WARNED).map(name).collect();
        if self.unmapped.len() > WARNED {
            names.push(format!("{} more", self.unmapped.len() - WARNED));
        }
        tracing::warn!(
            "{}: no class of the student stands for {}: they count as background, in masks as void; map them in \
             dataset.toml, or rename them (classes from {})",
            self.name,
            names.join(", "),
            config.display()
        );
    }

    /// Whether a student can learn from the labels: an object of one of its classes, or a mask with
    /// one of them.
    pub fn teaches(&self) -> bool {
        let masks = self.mask_classes.iter().any(|class| *class != VOID);
        let teaches = |s: &Sample| {
            s.boxes.iter().flatten().next().is_some() || (masks && s.mask.is_some()) || s.scene.is_labelled()
        };
        self.samples.iter().any(teaches)
    }

    /// Whether something is labelled that concerns a student, be it that there is no object.
    pub fn is_labelled(&self) -> bool {
        let (boxes, masks) = (self.labelled.contains(&true), self.mask_classes.iter().any(|class| *class != VOID));
        let labelled =
            |s: &Sample| (boxes && s.boxes.is_some()) || (masks && s.mask.is_some()) || s.scene.is_labelled();
        self.samples.iter().any(labelled)
    }

    /// Why a student cannot learn from the labels, as the end of a sentence.
    pub fn why_it_teaches_nothing(&self) -> String {
        let of = |known: fn(&Sample) -> bool| self.samples.iter().filter(|s| known(s)).count();
        let (boxes, masks) = (of(|s| s.boxes.is_some()), of(|s| s.mask.is_some()));
        let images = self.samples.len();
        let mut why = match (boxes, masks) {
            (0, 0) => format!("none of its {images} images has a label that is read"),
            (_, 0) => format!("none of its {boxes} labelled images has an object of the student's classes"),
            _ => format!("its {masks} masks have none of the student's classes"),
        };
        if self.scenes.is_some() {
            why += &format!(", nor a scene (from {CSV_FILE}, folders by class, or scene in dataset.toml)");
        }
        if let Some(file) = self.skipped.iter().find(|file| file.reason.starts_with("not read")) {
            why += &format!(" ({} {})", file.path.display(), file.reason);
        }
        if let Some(unmapped) = self.unmapped.iter().find(|u| u.near.is_some()).or(self.unmapped.first()) {
            let near = unmapped.near.as_ref().map_or(String::new(), |near| format!("; did you mean {near:?}?"));
            why += &format!("; it has {:?}, which the student has not{near}", unmapped.class);
        }
        why
    }

    /// The classes whose indices [`load_mask`](Self::load_mask) returns.
    pub fn mask_names(&self) -> &[String] {
        &self.mask_names
    }

    /// The scene head whose classes the samples' labels are of.
    pub fn scenes(&self) -> Option<&SceneHead> {
        self.scenes.as_ref()
    }

    /// Decodes a sample's mask into the student's segmentation classes and [`VOID`].
    ///
    /// # Errors
    /// When the file is not a valid mask, or holds a byte that `dataset.toml` does not list.
    pub fn load_mask(&self, path: &Path) -> Result<GrayImage, DataError> {
        let mut mask = self.config.load_mask(path)?;
        mask.iter_mut().for_each(|byte| *byte = self.mask_classes[usize::from(*byte)]);
        Ok(mask)
    }
}

impl Sample {
    /// The image's path within the data set, its key there.
    pub fn file_name(&self) -> &str {
        &self.name
    }

    fn read(entry: Entry, classes: &[Mapped]) -> Result<Self, DataError> {
        let Entry { name, image, size: labelled_size, labels, label_file } = entry;
        let labels = labels?;
        let size = read::dimensions(&image)?;
        let file = image.clone();
        let at_label = |why| match &label_file {
            Some(path) => DataError::Labels { path: path.clone(), why },
            None => DataError::Image { path: file.clone(), why },
        };
        if let Some((width, height)) = labelled_size.filter(|labelled| *labelled != size) {
            return Err(at_label(format!(
                "the labels of {name} are for an image of {width}×{height} pixels, but it has {}×{} (turned upright as its \
                 EXIF tag says); label this image anew, or restore the other",
                size.0, size.1
            )));
        }
        let scene = SceneLabels::default();
        let mut sample = Self { name, image, size, boxes: None, ignore: Vec::new(), mask: None, scene };
        match labels {
            Labels::Unlabelled => {}
            Labels::Objects(objects) => {
                let labels =
                    labels::map(&objects, classes, size).map_err(|why| at_label(format!("{}: {why}", sample.name)))?;
                sample.boxes = Some(labels.boxes);
                sample.ignore = labels.ignore;
            }
            Labels::Mask(mask) => {
                let mask_size = read::dimensions(&mask)?;
                if mask_size != size {
                    let why =
                        format!("the mask is {mask_size:?} pixels, its image {size:?}; their sizes must be equal");
                    return Err(DataError::Image { path: mask, why });
                }
                sample.mask = Some(mask);
            }
        }
        Ok(sample)
    }
}

fn count_objects(config: &DatasetConfig, classes: &[Mapped], entries: &[Entry]) -> Vec<ClassObjects> {
    let of = |(class, &mapped): (&String, &Mapped)| ClassObjects { class: class.clone(), objects: 0, mapped };
    let mut counts: Vec<ClassObjects> = config.classes.iter().zip(classes).map(of).collect();
    for entry in entries {
        if let Ok(Labels::Objects(objects)) = &entry.labels {
            objects.iter().filter_map(|object| object.class).for_each(|class| counts[class].objects += 1);
        }
    }
    counts
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

fn split_name(path: &Path, name: &str, split: Option<&str>) -> String {
    let folder = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = Some(folder).filter(|folder| folder.is_dir());
    let last = split.or_else(|| folder.as_deref()?.file_name()?.to_str());
    match last {
        Some(split) if split != name => format!("{name}/{split}"),
        _ => name.to_owned(),
    }
}
