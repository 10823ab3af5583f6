//! COCO JSON: one file for a split, with `images`, `annotations` and `categories`.
//!
//! Crowds (`iscrowd`) are ignore regions. An image of the file without an annotation is labelled as
//! having no object.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::labels::{Object, Unit};
use super::super::{names, DataError, Skipped};
use super::near;
use super::text::read_json;
use super::{Classes, Entry, Labels, Listing, Request};

/// The file, as far as it is read.
#[derive(Debug, Deserialize)]
struct File {
    images: Vec<Picture>,
    annotations: Option<Vec<Annotation>>,
    #[serde(default)]
    categories: Vec<Category>,
}

#[derive(Debug, Deserialize)]
struct Picture {
    id: serde_json::Value,
    file_name: String,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Category {
    id: i64,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Annotation {
    image_id: serde_json::Value,
    category_id: i64,
    bbox: Option<Vec<f64>>,
    #[serde(default)]
    iscrowd: i64,
    #[serde(default)]
    segmentation: Segmentation,
}

/// Outlines; a run-length code is left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Segmentation {
    Outlines(Vec<Vec<f64>>),
    Other(serde::de::IgnoredAny),
    #[default]
    None,
}

/// Whether the beginning of a JSON file is that of this layout.
pub fn is(beginning: &str) -> bool {
    beginning.trim_start().starts_with('{')
        && ["\"images\"", "\"annotations\"", "\"categories\""].iter().filter(|key| beginning.contains(**key)).count()
            > 0
        && !beginning.contains("\"shapes\"")
}

/// The COCO files of a folder: in `annotations/`, in it, or Roboflow's in its splits; by split.
pub fn files(folder: &Path) -> Vec<(String, PathBuf)> {
    let places = [folder.to_owned(), folder.join("annotations")].into_iter();
    let splits = ["train", "valid", "val", "test"].map(|split| folder.join(split));
    let mut found = Vec::new();
    for place in places.chain(splits) {
        let Ok(entries) = std::fs::read_dir(&place) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let json = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) && path.is_file();
            if json && is(&near::beginning(&path)) && names_images(&path) {
                found.push((split(&path), path));
            }
        }
    }
    found.sort();
    found
}

/// Captions and keypoints of the same images are other files: only those with boxes are meant.
fn names_images(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    !["captions_", "image_info_", "stuff_", "panoptic_"].iter().any(|other| stem.starts_with(other))
}

fn split(path: &Path) -> String {
    let stem = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    if stem == "_annotations.coco" {
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        return folder.unwrap_or("data").to_owned();
    }
    stem.strip_prefix("instances_").unwrap_or(stem).to_owned()
}

/// Reads the file at `path`.
///
/// # Errors
/// When it is invalid, or its images are not near it.
pub fn read(request: &Request, path: &Path) -> Result<Listing, DataError> {
    let file: File = read_json(path, true)?;
    let at = |why: String| DataError::Config { path: path.to_owned(), why };
    let annotations = file.annotations.unwrap_or_default();
    let (config, config_path) = request.config_or(&[], path);
    let mut classes = Classes::new(&config.classes);
    let categories: Vec<String> = file.categories.iter().map(|c| c.name.clone()).collect();
    if let Some(name) = names::doubled(&categories) {
        return Err(at(format!("categories has {name:?} twice; give each a name of its own")));
    }
    let numbers: HashMap<i64, usize> = file.categories.iter().map(|c| (c.id, classes.number(&c.name))).collect();
    let folder = near::folder_of(path, &file.images.iter().map(|p| p.file_name.as_str()).collect::<Vec<_>>())?;

    let (mut entries, mut places, mut skipped) = (Vec::new(), HashMap::new(), Vec::new());
    for picture in file.images {
        let image = folder.join(&picture.file_name);
        if !image.is_file() {
            skipped.push(Skipped { path: image, reason: format!("named in {}, but not there", path.display()) });
            places.insert(picture.id.to_string(), None);
            continue;
        }
        if places.insert(picture.id.to_string(), Some(entries.len())).is_some() {
            return Err(at(format!("images has the id {} twice; number them anew", picture.id)));
        }
        let sides = picture.width.zip(picture.height).map(|(w, h)| (w as u32, h as u32));
        entries.push(Entry {
            name: picture.file_name,
            image,
            size: sides.filter(|(w, h)| *w > 0 && *h > 0),
            labels: Ok(Labels::Objects(Vec::new())),
            label_file: Some(path.to_owned()),
        });
    }
    for (number, annotation) in annotations.into_iter().enumerate() {
        let id = annotation.image_id.to_string();
        let place = places.get(&id).ok_or_else(|| {
            at(format!("annotations[{number}] has the image_id {id}, which images has not; correct it"))
        })?;
        let Some(place) = *place else { continue };
        let entry: &mut Entry = &mut entries[place];
        match object(&annotation, &numbers, request.outlines) {
            Ok(object) => {
                if let Ok(Labels::Objects(objects)) = &mut entry.labels {
                    objects.push(object);
                }
            }
            Err(why) => entry.labels = Err(at(format!("annotations[{number}] of {}: {why}", entry.name))),
        }
    }
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { layout: "COCO JSON", config, config_path, entries, skipped })
}

fn object(annotation: &Annotation, numbers: &HashMap<i64, usize>, outlines: bool) -> Result<Object, String> {
    let id = annotation.category_id;
    let class = *numbers.get(&id).ok_or_else(|| format!("category_id is {id}, which categories has not"))?;
    let class = (annotation.iscrowd == 0).then_some(class);
    let polygons: Vec<Vec<[f64; 2]>> = match &annotation.segmentation {
        Segmentation::Outlines(lists) => {
            lists.iter().map(|list| list.chunks_exact(2).map(|p| [p[0], p[1]]).collect()).collect()
        }
        _ => Vec::new(),
    };
    let mut object = match annotation.bbox.as_deref() {
        Some(&[x, y, w, h]) if w > 0.0 && h > 0.0 => Object::new(class, [x, y, x + w, y + h], Unit::Pixel),
        Some([_, _, w, h]) => return Err(format!("the bbox is {w} × {h}; its sides must be positive")),
        Some(other) => return Err(format!("bbox has {} numbers instead of x, y, width, height", other.len())),
        None => Object::around(class, &polygons.concat(), Unit::Pixel).ok_or("it has neither bbox nor outline")?,
    };
    if outlines {
        object.outlines = polygons;
    }
    Ok(object)
}
