//! Pascal VOC: an XML file for each image, in `Annotations/` beside `JPEGImages/`, or beside the
//! images. `ImageSets/Main/SPLIT.txt` lists the images of a split.
//!
//! Coordinates are taken as edges in pixels. The original sets (`<database>The VOC2007 Database`)
//! number pixels from 1 and include the last: there one is subtracted from xmin and ymin, as the
//! development kit says. Objects marked `difficult` are ignore regions, as VOC's own evaluation has
//! it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use roxmltree::Node;

use super::super::files::{stem, Files, IMAGES};
use super::super::labels::{Object, Unit};
use super::super::{DataError, Skipped};
use super::text::{child, child_text, line, number, parse_xml, read_text, read_xml};
use super::{Classes, Entry, Labels, Listing, Request};

/// One XML file.
#[derive(Debug, Default)]
pub struct VocFile {
    /// Width and height, if given.
    pub size: Option<(u32, u32)>,
    pub objects: Vec<Object>,
}

/// Reads the file at `path`; new class names are added to `classes`.
///
/// # Errors
/// [`DataError::Label`] names the line.
pub fn read_file(path: &Path, classes: &mut Classes) -> Result<VocFile, DataError> {
    let text = read_xml(path, false)?;
    let document = parse_xml(&text, path)?;
    let at = |node: Node, why: String| DataError::Label { path: path.to_owned(), line: line(node), why };
    let root = document.root_element();
    if !root.has_tag_name("annotation") {
        let why = format!("the root is <{}>, not <annotation> as in VOC XML", root.tag_name().name());
        return Err(at(root, why));
    }
    let database = child(root, "source").and_then(|source| child_text(source, "database")).unwrap_or_default();
    let from_one = database.starts_with("The VOC") && database.ends_with("Database");
    let mut file = VocFile { size: child(root, "size").and_then(size), objects: Vec::new() };
    for node in root.children().filter(|node| node.has_tag_name("object")) {
        let name = child_text(node, "name").filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| at(node, "an <object> without <name>".into()))?;
        let mut corners = corners(node).map_err(|why| at(node, why))?;
        if from_one {
            corners[0] -= 1.0;
            corners[1] -= 1.0;
        }
        let difficult = child_text(node, "difficult").is_some_and(|d| d == "1" || d.eq_ignore_ascii_case("true"));
        let class = classes.number(name);
        file.objects.push(Object::new((!difficult).then_some(class), corners, Unit::Pixel));
    }
    Ok(file)
}

fn corners(object: Node) -> Result<[f64; 4], String> {
    let node = child(object, "bndbox").ok_or("an <object> without <bndbox>")?;
    let side = |name: &str| {
        let text = child_text(node, name).ok_or_else(|| format!("a <bndbox> without <{name}>"))?;
        number(text).ok_or_else(|| format!("<{name}> is {text:?}, not a number"))
    };
    let corners = [side("xmin")?, side("ymin")?, side("xmax")?, side("ymax")?];
    let [x_min, y_min, x_max, y_max] = corners;
    if x_max <= x_min || y_max <= y_min {
        return Err(format!("the box from ({x_min}, {y_min}) to ({x_max}, {y_max}) has no area"));
    }
    Ok(corners)
}

/// Some tools write a size of 0 where they do not know it.
fn size(node: Node) -> Option<(u32, u32)> {
    let side = |name: &str| child_text(node, name)?.parse::<u32>().ok().filter(|side| *side > 0);
    Some((side("width")?, side("height")?))
}

/// The folders of images and of XML files.
fn folders(folder: &Path) -> (PathBuf, PathBuf) {
    let annotations = folder.join("Annotations");
    let annotations = if annotations.is_dir() { annotations } else { folder.to_owned() };
    let images = ["JPEGImages", "images"].map(|name| folder.join(name)).into_iter().find(|path| path.is_dir());
    (images.unwrap_or_else(|| folder.to_owned()), annotations)
}

/// The splits that `ImageSets/Main` lists; a file for a class, such as `car_train.txt`, is none.
pub fn splits(folder: &Path) -> Vec<String> {
    let there = |split: &&&str| folder.join(format!("ImageSets/Main/{split}.txt")).is_file();
    ["train", "val", "test", "trainval"].iter().filter(there).map(|split| (*split).to_owned()).collect()
}

/// Whether a folder holds this layout.
pub fn is(folder: &Path) -> bool {
    if folder.join("Annotations").is_dir() {
        return folder.join("JPEGImages").is_dir() || folder.join("images").is_dir();
    }
    super::near::beside(folder, "xml", |text| text.contains("<annotation") && text.contains("<object"))
}

/// Reads the folder.
///
/// # Errors
/// When a folder cannot be read, or there is no such split.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let (images, annotations) = folders(&request.path);
    let chosen: Option<HashSet<String>> = match &request.split {
        None => None,
        Some(split) => {
            let text = read_text(&request.path.join(format!("ImageSets/Main/{split}.txt")))?;
            Some(text.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
        }
    };
    let image_files = Files::under(&images, &IMAGES)?;
    let xml_files = Files::under(&annotations, &["xml"])?;
    let both = images == annotations;
    let mut skipped: Vec<Skipped> = if both {
        // Each is another's label or image.
        image_files.others.into_iter().filter(|f| f.path.extension().is_none_or(|e| e != "xml")).collect()
    } else {
        [image_files.others, xml_files.others.clone()].concat()
    };
    let mut labels = xml_files.by_stem()?;
    let (config, config_path) = request.config_or(&[], &annotations);
    let mut classes = Classes::new(&config.classes);
    let mut entries = Vec::new();
    for (name, image) in image_files.found {
        let label_file = labels.remove(stem(&name));
        if chosen.as_ref().is_some_and(|chosen| !chosen.contains(stem(&name))) {
            continue;
        }
        let (size, labels) = match &label_file {
            None => (None, Ok(Labels::Unlabelled)),
            Some(path) => match read_file(path, &mut classes) {
                Ok(file) => (file.size, Ok(Labels::Objects(file.objects))),
                Err(e) => (None, Err(e)),
            },
        };
        entries.push(Entry { name, image, size, labels, label_file });
    }
    if chosen.is_none() {
        let orphans = labels.into_values();
        skipped.extend(orphans.map(|path| Skipped { path, reason: "a label without an image".into() }));
    }
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    Ok(Listing { layout: "Pascal VOC XML", config, config_path, entries, skipped })
}
