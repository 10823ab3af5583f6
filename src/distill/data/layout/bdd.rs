//! BDD100K's JSON: a list of frames, each with `name` and `labels` that have `category` and
//! `box2d`; or a file with `frames` and their `objects` for a single image. Areas and lanes have no
//! box and are left alone. A frame without labels is labelled as having no object.

use std::path::Path;

use serde::Deserialize;

use super::super::labels::{Object, Unit};
use super::super::{DataError, Skipped};
use super::near;
use super::text::read_json;
use super::{Classes, Entry, Labels, Listing, Request};

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum File {
    Set(Vec<Frame>),
    Image(Image),
    Named { frames: Vec<Frame> },
}

#[derive(Debug, Deserialize)]
struct Frame {
    name: String,
    labels: Option<Vec<Label>>,
}

/// The file of a single image.
#[derive(Debug, Deserialize)]
struct Image {
    name: String,
    frames: Vec<Objects>,
}

#[derive(Debug, Deserialize)]
struct Objects {
    #[serde(default)]
    objects: Vec<Label>,
}

#[derive(Debug, Deserialize)]
struct Label {
    category: String,
    box2d: Option<Box2d>,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    crowd: bool,
}

#[derive(Debug, Deserialize)]
struct Box2d {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
}

/// Whether the beginning of a JSON file is that of this layout.
pub fn is(beginning: &str) -> bool {
    let frames = beginning.trim_start().starts_with('[') || beginning.contains("\"frames\"");
    frames && beginning.contains("\"name\"") && (beginning.contains("\"labels\"") || beginning.contains("\"objects\""))
}

/// Reads the file at `path`.
///
/// # Errors
/// When it is invalid, or its images are not near it.
pub fn read(request: &Request, path: &Path) -> Result<Listing, DataError> {
    let frames = match read_json(path, true)? {
        File::Set(frames) | File::Named { frames } => frames,
        File::Image(Image { name, frames }) => {
            let labels = frames.into_iter().flat_map(|frame| frame.objects).collect();
            vec![Frame { name, labels: Some(labels) }]
        }
    };
    if frames.is_empty() {
        return Err(DataError::Config { path: path.to_owned(), why: "it has no frames".into() });
    }
    let names: Vec<String> = frames.iter().map(|frame| with_ending(&frame.name)).collect();
    let folder = near::folder_of(path, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
    let (config, config_path) = request.config_or(&[], path);
    let mut classes = Classes::new(&config.classes);
    let (mut entries, mut skipped) = (Vec::new(), Vec::new());
    for (frame, name) in frames.into_iter().zip(names) {
        let image = folder.join(&name);
        if !image.is_file() {
            skipped.push(Skipped { path: image, reason: format!("named in {}, but not there", path.display()) });
            continue;
        }
        let objects = frame.labels.unwrap_or_default().into_iter().filter_map(|label| {
            let Box2d { x1, y1, x2, y2 } = label.box2d?;
            let class = classes.number(&label.category);
            let class = (!label.attributes.crowd).then_some(class);
            Some(Object::new(class, [x1, y1, x2, y2], Unit::Pixel))
        });
        let labels = Ok(Labels::Objects(objects.collect()));
        entries.push(Entry { name, image, size: None, labels, label_file: Some(path.to_owned()) });
    }
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { layout: "BDD100K JSON", config, config_path, entries, skipped })
}

/// The older files name an image without its ending.
fn with_ending(name: &str) -> String {
    if Path::new(name).extension().is_some() {
        name.to_owned()
    } else {
        format!("{name}.jpg")
    }
}
