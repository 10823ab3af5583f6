//! KITTI's object labels: `image_2/` and `label_2/`, a text file for each image, with lines of
//! `type truncated occluded alpha x_min y_min x_max y_max` and seven numbers in space. `DontCare`
//! are ignore regions.

use std::path::{Path, PathBuf};

use super::super::files::{stem, Files, IMAGES};
use super::super::labels::{Object, Unit};
use super::super::{DataError, Skipped};
use super::text::{number, read_text};
use super::{Classes, Entry, Labels, Listing, Request};

/// The least number of fields in a line; results have one more, a score.
const FIELDS: usize = 15;
const DONT_CARE: &str = "DontCare";

/// Whether a text is of this layout, and not YOLO's.
pub fn is(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mut fields = first.split_whitespace();
    let named = fields.next().is_some_and(|class| number(class).is_none());
    named && fields.count() + 1 >= FIELDS
}

/// Parses the text of the label file at `path`; new class names are added to `classes`.
///
/// # Errors
/// [`DataError::Label`] names the first invalid line.
pub fn parse(text: &str, path: &Path, classes: &mut Classes) -> Result<Vec<Object>, DataError> {
    let mut objects = Vec::new();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |why: String| DataError::Label { path: path.to_owned(), line: i + 1, why };
        let fields: Vec<&str> = line.split_whitespace().collect();
        if fields.len() < FIELDS {
            return Err(at(format!("{} fields; KITTI's lines have {FIELDS}", fields.len())));
        }
        let mut corners = [0.0; 4];
        for (corner, field) in corners.iter_mut().zip(&fields[4..8]) {
            *corner = number(field).ok_or_else(|| at(format!("{field:?} is not a number")))?;
        }
        if corners[2] <= corners[0] || corners[3] <= corners[1] {
            return Err(at(format!("the box {corners:?} has no area")));
        }
        let class = (fields[0] != DONT_CARE).then(|| classes.number(fields[0]));
        objects.push(Object::new(class, corners, Unit::Pixel));
    }
    Ok(objects)
}

/// The folders of a split, the archive's own being `training` and `testing`.
fn folders(folder: &Path, split: Option<&str>) -> Option<(PathBuf, PathBuf)> {
    let splits = split.map_or(vec!["", "training"], |split| vec![split]);
    let pair = |split: &str| {
        let images = ["image_2", "image_02", "images"].map(|name| folder.join(split).join(name));
        let labels = ["label_2", "label_02"].map(|name| folder.join(split).join(name));
        let labels = labels.into_iter().find(|path| path.is_dir())?;
        Some((images.into_iter().find(|path| path.is_dir())?, labels))
    };
    splits.into_iter().find_map(pair)
}

/// Whether a folder holds this layout.
pub fn is_folder(folder: &Path) -> bool {
    folders(folder, None).is_some()
}

/// Reads the folder.
///
/// # Errors
/// When a folder is missing or cannot be read.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let (images, labels) = folders(&request.path, request.split.as_deref()).ok_or_else(|| DataError::Layout {
        folder: request.path.clone(),
        hint: ", nor image_2/ and label_2/".into(),
    })?;
    let images = Files::under(&images, &IMAGES)?;
    let texts = Files::under(&labels, &["txt"])?;
    let mut skipped = [images.others, texts.others.clone()].concat();
    let mut texts = texts.by_stem()?;
    let (config, config_path) = request.config_or(&[], &labels);
    let mut classes = Classes::new(&config.classes);
    let mut entries = Vec::with_capacity(images.found.len());
    for (name, image) in images.found {
        let label_file = texts.remove(stem(&name));
        let labels = match &label_file {
            None => Ok(Labels::Unlabelled),
            Some(path) => read_text(path).and_then(|text| parse(&text, path, &mut classes)).map(Labels::Objects),
        };
        entries.push(Entry { name, image, size: None, labels, label_file });
    }
    skipped.extend(texts.into_values().map(|path| Skipped { path, reason: "a label without an image".into() }));
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    Ok(Listing { layout: "KITTI", config, config_path, entries, skipped })
}
