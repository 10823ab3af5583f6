//! This project's layout: `images/` and, for each image of the same name but for the ending, a file
//! in `labels/`: YOLO text, a mask, VOC XML, labelme JSON or KITTI text. `dataset.toml` beside them
//! or a folder above describes the classes, or `data.yaml`, or `classes.txt`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::super::config::DatasetConfig;
use super::super::files::{stem, Files, IMAGES};
use super::super::labels::Object;
use super::super::mask::MASKS;
use super::super::{DataError, Skipped};
use super::yolo::Columns;
use super::{class_folders, kitti, labelme, ultralytics, voc, yolo};
use super::{Classes, Entry, Labels, Listing, Request};

/// What may stand behind an image's name in that of its mask: CamVid has `_L`.
const MASK_ENDS: [&str; 2] = ["_L", "_mask"];

/// Reads the folder.
///
/// # Errors
/// When there is no images/ folder, or nothing describes the classes.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let folder = &request.path;
    let images = folder.join("images");
    if !images.is_dir() {
        return Err(missing(folder));
    }
    read_pair(request, &images, &folder.join("labels"), &described(request)?)
}

/// What describes a set's classes.
#[derive(Debug)]
pub struct Described {
    pub config: DatasetConfig,
    pub path: PathBuf,
    /// Numbers for keypoints in each line.
    pub keypoints: usize,
}

/// Reads a folder of images and that of their labels.
///
/// # Errors
/// When a folder cannot be read, or two files differ in their ending alone.
pub fn read_pair(request: &Request, images: &Path, labels: &Path, described: &Described) -> Result<Listing, DataError> {
    let endings: Vec<&str> =
        if described.config.segmentation.is_some() { MASKS.to_vec() } else { ["txt", "xml", "json"].to_vec() };
    let images = Files::under(images, &IMAGES)?;
    let labels = Files::under_if_any(labels, &endings)?;
    let mut skipped = [images.others.clone(), labels.others.clone()].concat();
    for file in &mut skipped {
        explain(file, described.config.segmentation.is_some());
    }
    let images = images.found;
    let mut labels = labels.by_stem()?;
    refuse_twins(&images, &labels)?;
    let mut reader = Reader::new(request, described);
    let mut entries = Vec::with_capacity(images.len());
    for (name, image) in images {
        let mut label_file = labels.remove(stem(&name));
        if reader.masks && label_file.is_none() {
            label_file = MASK_ENDS.iter().find_map(|end| labels.remove(&format!("{}{end}", stem(&name))));
        }
        let (size, labels) = match &label_file {
            None => (None, Ok(Labels::Unlabelled)),
            Some(path) => reader.labels(path),
        };
        entries.push(Entry { name, image, size, labels, label_file });
    }
    let config = DatasetConfig { classes: reader.classes.into_names(), ..described.config.clone() };
    let left = labels.into_values().filter(|path| !is_list_of_classes(path));
    skipped.extend(left.map(|path| Skipped { path, reason: "a label without an image".into() }));
    Ok(Listing { layout: "images/ and labels/", config, config_path: described.path.clone(), entries, skipped })
}

/// Reads label files of several kinds.
struct Reader {
    classes: Classes,
    columns: Columns,
    masks: bool,
}

/// The size that a label file gives its image, if it gives one, and its objects.
type Found = (Option<(u32, u32)>, Vec<Object>);

impl Reader {
    fn new(request: &Request, described: &Described) -> Self {
        let columns = Columns {
            classes: described.config.classes.len(),
            keypoints: described.keypoints,
            outlines: request.outlines,
        };
        Self {
            classes: Classes::new(&described.config.classes),
            columns,
            masks: described.config.segmentation.is_some(),
        }
    }

    /// The labels, and the size of the image that they were made for, if they say.
    fn labels(&mut self, path: &Path) -> (Option<(u32, u32)>, Result<Labels, DataError>) {
        if self.masks {
            return (None, Ok(Labels::Mask(path.to_owned())));
        }
        let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match self.objects(path, &ending) {
            Ok((size, objects)) => (size, Ok(Labels::Objects(objects))),
            Err(e) => (None, Err(e)),
        }
    }

    fn objects(&mut self, path: &Path, ending: &str) -> Result<Found, DataError> {
        let outlines = self.columns.outlines;
        match ending {
            "xml" => voc::read_file(path, &mut self.classes).map(|file| (file.size, file.objects)),
            "json" => labelme::read_file(path, &mut self.classes, outlines).map(|file| (file.size, file.objects)),
            _ => {
                let text = super::text::read_text(path)?;
                let objects = if kitti::is(&text) {
                    kitti::parse(&text, path, &mut self.classes)?
                } else {
                    yolo::parse(&text, path, self.columns)?
                };
                Ok((None, objects))
            }
        }
    }
}

/// The given configuration, or that of the file beside the images that describes the classes.
fn described(request: &Request) -> Result<Described, DataError> {
    let folder =
        std::fs::canonicalize(&request.path).map_err(|source| DataError::Io { path: request.path.clone(), source })?;
    let near: Vec<&Path> = [Some(folder.as_path()), folder.parent()].into_iter().flatten().collect();
    let yaml = near.iter().find_map(|folder| ultralytics::find(folder).transpose()).transpose()?;
    // What lies in the folder above may be about another set.
    if let Some(yaml) = yaml.filter(|yaml| yaml.is_about(&folder)) {
        let names = yaml.names();
        // Masks are no concern of a list of boxes' classes.
        let masks = request.given.as_ref().is_some_and(|(config, _)| config.segmentation.is_some());
        let (mut config, path) =
            if masks { request.config_or(&names, &yaml.path) } else { request.numbered_config(&names, &yaml.path)? };
        if request.given.is_none() {
            config.name = set_name(&folder, &yaml.path);
        }
        return Ok(Described { config, path, keypoints: yaml.keypoints() });
    }
    if let Some((config, path)) = &request.given {
        return Ok(Described { config: config.clone(), path: path.clone(), keypoints: 0 });
    }
    for list in near.iter().map(|f| f.join("classes.txt")).chain([folder.join("labels/classes.txt")]) {
        if list.is_file() {
            let names: Vec<String> = super::text::read_text(&list)?.lines().map(|l| l.trim().to_owned()).collect();
            let names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
            let config = DatasetConfig::of_classes(&set_name(&folder, &list), &names);
            return Ok(Described { config, path: list, keypoints: 0 });
        }
    }
    // Labels that name their classes need no list of them.
    if Files::under_if_any(&folder.join("labels"), &["txt", "png", "bmp", "tif", "tiff"])?.found.is_empty() {
        let config = DatasetConfig::of_classes(&request.set_name(), &[]);
        return Ok(Described { config, path: folder.join("labels"), keypoints: 0 });
    }
    Err(DataError::NoConfig { folder, known: super::super::config::built_in().join(", ") })
}

/// The name of the folder that holds what describes the set.
fn set_name(folder: &Path, description: &Path) -> String {
    let of = description.parent().filter(|of| folder.starts_with(of)).unwrap_or(folder);
    let of = if of.ends_with("labels") { folder } else { of };
    of.file_name().and_then(|name| name.to_str()).unwrap_or("data").to_owned()
}

fn is_list_of_classes(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "classes.txt")
}

/// Says of a file that is not read what it looks like.
fn explain(file: &mut Skipped, masks: bool) {
    let ending = file.path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
    let looks = match ending.as_str() {
        "txt" if masks => "text (YOLO or KITTI boxes?), but dataset.toml has [segmentation], so labels are masks",
        "xml" if masks => "XML (VOC boxes?), but dataset.toml has [segmentation], so labels are masks",
        "json" if masks => "JSON (labelme?), but dataset.toml has [segmentation], so labels are masks",
        "png" | "bmp" | "tif" | "tiff" if !masks && file.path.components().any(|c| c.as_os_str() == "labels") => {
            "a mask, but dataset.toml has no [segmentation] with the masks' classes; add it"
        }
        "jpg" | "jpeg" if masks => "a JPEG, which changes a mask's values; save masks as PNG",
        "csv" => "CSV, which is not read; export it as COCO JSON, VOC XML or YOLO text",
        _ => return,
    };
    if file.reason.starts_with("not read") {
        file.reason = format!("not read: {looks}");
    }
}

/// Refuses images that would share a label file.
fn refuse_twins(images: &BTreeMap<String, PathBuf>, labels: &BTreeMap<String, PathBuf>) -> Result<(), DataError> {
    let mut seen: BTreeMap<&str, &PathBuf> = BTreeMap::new();
    for (name, path) in images {
        if let Some(twin) = seen.insert(stem(name), path) {
            if labels.contains_key(stem(name)) {
                let why =
                    format!("{} has the same stem, so their labels cannot be told apart; rename one", twin.display());
                return Err(DataError::Config { path: path.clone(), why });
            }
        }
    }
    Ok(())
}

/// Names the folder that was probably meant.
fn missing(folder: &Path) -> DataError {
    let is_split = |split: &&&str| {
        let folder = folder.join(**split);
        folder.join("images").is_dir() || class_folders::is(&folder)
    };
    let split = ["train", "val", "valid", "test"].iter().find(is_split);
    let hint = match split {
        Some(split) => format!("; did you mean {}?", folder.join(split).display()),
        None if folder.is_dir() => {
            "; put the pictures there, and their labels in labels/. Read as well: data.yaml (Ultralytics, Roboflow), COCO \
             JSON, VOC XML, KITTI, BDD100K, Cityscapes, labelme, CVAT: docs/training.md says by what each is told"
                .into()
        }
        None if folder.exists() => "; it is no data set file that is read (data.yaml, COCO or BDD100K JSON, CVAT XML)".into(),
        None => "; no such folder".into(),
    };
    DataError::Layout { folder: folder.to_owned(), hint }
}
