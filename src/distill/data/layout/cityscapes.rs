//! Cityscapes: `leftImg8bit/SPLIT/CITY/…_leftImg8bit.png` and
//! `gtFine/SPLIT/CITY/…_gtFine_labelIds.png` (or `gtCoarse`), masks of the classes' ids.

use std::path::{Path, PathBuf};

use super::super::config::{DatasetConfig, SegmentationLabels};
use super::super::files::{stem, Files, IMAGES};
use super::super::{DataError, Skipped};
use super::{Entry, Labels, Listing, Request};

/// The classes by id, as the set's own table has them; the id −1 of licence plates is stored as
/// 255.
const CLASSES: [&str; 34] = [
    "unlabeled",
    "ego vehicle",
    "rectification border",
    "out of roi",
    "static",
    "dynamic",
    "ground",
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
];
const IMAGE_FOLDER: &str = "leftImg8bit";
const IMAGE_END: &str = "_leftImg8bit";

/// The folder of masks, and how their names end.
fn masks(folder: &Path) -> Option<(PathBuf, &'static str)> {
    let kinds = [("gtFine", "_gtFine_labelIds"), ("gtCoarse", "_gtCoarse_labelIds")];
    kinds.into_iter().map(|(name, end)| (folder.join(name), end)).find(|(path, _)| path.is_dir())
}

/// Whether a folder holds this layout.
pub fn is(folder: &Path) -> bool {
    folder.join(IMAGE_FOLDER).is_dir() && masks(folder).is_some()
}

/// The splits that are there.
pub fn splits(folder: &Path) -> Vec<String> {
    let there = |split: &&&str| folder.join(IMAGE_FOLDER).join(**split).is_dir();
    ["train", "val", "test"].iter().filter(there).map(|split| (*split).to_owned()).collect()
}

/// Reads a split.
///
/// # Errors
/// When its folders cannot be read.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let folder = &request.path;
    let (masks, end) = masks(folder)
        .ok_or_else(|| DataError::Layout { folder: folder.clone(), hint: ", nor gtFine/ or gtCoarse/".into() })?;
    let split = request.split.as_deref().unwrap_or("train");
    let images = Files::under(&folder.join(IMAGE_FOLDER).join(split), &IMAGES)?;
    let mut skipped = images.others;
    let table = SegmentationLabels { classes: CLASSES.map(str::to_owned).to_vec(), void: Some(u8::MAX), colours: None };
    let (mut config, config_path) = request.config_or(&[], folder);
    config.segmentation.get_or_insert(table);
    let mut entries = Vec::with_capacity(images.found.len());
    for (name, image) in images.found {
        let Some(frame) = stem(&name).strip_suffix(IMAGE_END) else {
            skipped.push(Skipped { path: image, reason: format!("its name does not end in {IMAGE_END}.png") });
            continue;
        };
        let mask = masks.join(split).join(format!("{frame}{end}.png"));
        let label_file = Some(mask).filter(|mask| mask.is_file());
        let labels = Ok(label_file.clone().map_or(Labels::Unlabelled, Labels::Mask));
        entries.push(Entry { name, image, size: None, labels, label_file });
    }
    let config = DatasetConfig { classes: Vec::new(), ..config };
    Ok(Listing { layout: "Cityscapes", config, config_path, entries, skipped })
}
