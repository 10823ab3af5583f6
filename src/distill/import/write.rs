//! Writing images and labels in this project's layout.
//!
//! A file is written under another name and renamed when it is whole, so that an import may be
//! killed at any moment. An image has its original's time of change: by that and its length a
//! resumed import knows it.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Cursor, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use image::{GrayImage, ImageFormat};

use super::outline;
use crate::data::config::{DatasetConfig, SegmentationLabels, IGNORE};
use crate::data::files::stem;
use crate::data::labels::Object;
use crate::data::layout::{Classes, Entry, Labels};
use crate::data::{image_size, VOID};

/// The numbers by which classes are written.
#[derive(Debug)]
pub struct Numbers {
    /// That of regions to be ignored, if there are any.
    pub ignore: Option<usize>,
}

/// What was written for an image.
#[derive(Debug)]
pub struct Written {
    pub labelled: bool,
    /// Whether the image was there already.
    pub kept: bool,
}

/// A place for an image and its label, without endings for the label; or why there is none.
pub type Target = Result<PathBuf, String>;

/// Writes a split.
#[derive(Debug)]
pub struct Writer<'a> {
    images: PathBuf,
    labels: PathBuf,
    config: &'a DatasetConfig,
    numbers: &'a Numbers,
    masks: bool,
}

impl Numbers {
    /// Numbers for `entries`; a class for what is to be ignored is added to `classes` if need be.
    pub fn of(entries: &[Entry], classes: &mut Classes, masks: bool) -> Self {
        let ignored = |entry: &Entry| match &entry.labels {
            Ok(Labels::Objects(objects)) => objects.iter().any(|object| object.class.is_none()),
            _ => false,
        };
        let ignore = (!masks && entries.iter().any(ignored)).then(|| classes.number(IGNORE));
        Self { ignore }
    }

    pub fn ignore_name(&self) -> String {
        IGNORE.to_owned()
    }

    /// The configuration of masks of the same classes.
    pub fn masked(&self, config: DatasetConfig) -> DatasetConfig {
        let labels = SegmentationLabels { classes: config.classes.clone(), void: Some(VOID), colours: None };
        DatasetConfig { segmentation: Some(labels), detection: None, labelled: None, ..config }
    }
}

impl<'a> Writer<'a> {
    /// Makes the folders.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn new(folder: &Path, config: &'a DatasetConfig, numbers: &'a Numbers, masks: bool) -> anyhow::Result<Self> {
        let [images, labels] = ["images", "labels"].map(|part| folder.join(part));
        for part in [&images, &labels] {
            fs::create_dir_all(part).with_context(|| part.display().to_string())?;
        }
        anyhow::ensure!(
            !masks || config.classes.len() < usize::from(VOID),
            "--masks: {} classes do not fit into a mask's byte",
            config.classes.len()
        );
        Ok(Self { images, labels, config, numbers, masks })
    }

    /// Where each image goes: at its own name, but for images whose names differ in their ending
    /// alone and would share a label.
    pub fn targets(&self, entries: &[Entry]) -> Vec<Target> {
        let mut taken = HashSet::new();
        let target = |entry: &Entry| {
            let path = Path::new(&entry.name);
            if !path.components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!("its name {:?} leads out of the folder", entry.name));
            }
            let name = if taken.insert(stem(&entry.name).to_owned()) {
                entry.name.clone()
            } else {
                let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("image");
                format!("{}_{ending}.{ending}", stem(&entry.name))
            };
            taken.insert(stem(&name).to_owned());
            Ok(PathBuf::from(name))
        };
        entries.iter().map(target).collect()
    }

    /// Writes an image and its label. The inner error says why it is left out.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, entry: Entry, target: Target) -> anyhow::Result<Result<Written, String>> {
        let target = match target {
            Ok(target) => target,
            Err(why) => return Ok(Err(why)),
        };
        let label = self.labels.join(&target);
        let label = match self.label(&entry, &label) {
            Ok(label) => label,
            Err(why) => return Ok(Err(why)),
        };
        let kept = copy(&entry.image, &self.images.join(&target))?;
        let labelled = label.is_some();
        if let Some((path, bytes)) = label {
            if fs::read(&path).ok().as_deref() != Some(&bytes) {
                replace(&path, None, |file| file.write_all(&bytes))?;
            }
        }
        Ok(Ok(Written { labelled, kept }))
    }

    /// The label file of an entry, or why it has to be left out.
    fn label(&self, entry: &Entry, path: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, String> {
        let size = image_size(&entry.image).map_err(|e| e.reason())?;
        if let Some((width, height)) = entry.size.filter(|labelled| *labelled != size) {
            return Err(format!("its labels are for {width}×{height} pixels, but it has {}×{}", size.0, size.1));
        }
        match &entry.labels {
            Err(e) => Err(e.reason()),
            Ok(Labels::Unlabelled) => Ok(None),
            Ok(Labels::Objects(objects)) if self.masks => {
                let mask = outline::mask(objects, size)?;
                Ok(Some((path.with_extension("png"), png(&mask)?)))
            }
            Ok(Labels::Objects(objects)) => {
                Ok(Some((path.with_extension("txt"), self.lines(objects, size)?.into_bytes())))
            }
            Ok(Labels::Mask(mask)) => {
                let mask = self.config.load_mask(mask).map_err(|e| e.reason())?;
                if mask.dimensions() != size {
                    return Err(format!("its mask is {:?} pixels, the image {size:?}", mask.dimensions()));
                }
                Ok(Some((path.with_extension("png"), png(&mask)?)))
            }
        }
    }

    fn lines(&self, objects: &[Object], size: (u32, u32)) -> Result<String, String> {
        let (width, height) = (f64::from(size.0), f64::from(size.1));
        let line = |object: &Object| {
            let b = object.bbox(size)?;
            let class = object.class.or(self.numbers.ignore).ok_or("an ignored region without a class")?;
            let [x0, y0, x1, y1] = [b.x_min, b.y_min, b.x_max, b.y_max].map(f64::from);
            let (cx, cy) = ((x0 + x1) / 2.0 / width, (y0 + y1) / 2.0 / height);
            let (w, h) = ((x1 - x0) / width, (y1 - y0) / height);
            Ok(format!("{class} {cx:.9} {cy:.9} {w:.9} {h:.9}\n"))
        };
        objects.iter().map(line).collect()
    }
}

fn png(mask: &GrayImage) -> Result<Vec<u8>, String> {
    let mut bytes = Cursor::new(Vec::new());
    mask.write_to(&mut bytes, ImageFormat::Png).map_err(|e| e.to_string())?;
    Ok(bytes.into_inner())
}

/// Copies an image; returns whether it was there already.
fn copy(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let at = || from.display().to_string();
    let original = fs::metadata(from).with_context(at)?;
    let changed = original.modified().with_context(at)?;
    if fs::metadata(to).is_ok_and(|there| there.len() == original.len() && there.modified().ok() == Some(changed)) {
        return Ok(true);
    }
    let mut source = BufReader::new(File::open(from).with_context(at)?);
    replace(to, Some(changed), |file| std::io::copy(&mut source, file).map(|_| ()))?;
    Ok(false)
}

/// Writes a file under another name, and renames it.
fn replace(
    path: &Path,
    changed: Option<SystemTime>,
    write: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let part = path.with_file_name(format!(".{name}.part"));
    let all = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        let mut file = BufWriter::new(File::create(&part)?);
        write(&mut file)?;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        if let Some(changed) = changed {
            file.set_modified(changed)?;
        }
        fs::rename(&part, path)
    };
    all().with_context(|| path.display().to_string())
}
