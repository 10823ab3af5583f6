//! labelme JSON: a file for each image, with `shapes`; objects become the boxes round them.

use std::path::Path;

use serde::Deserialize;

use super::super::files::{stem, Files, IMAGES};
use super::super::labels::{Object, Unit};
use super::super::{DataError, Skipped};
use super::near;
use super::text::read_json;
use super::{Classes, Entry, Labels, Listing, Request};

#[derive(Debug, Deserialize)]
struct File {
    shapes: Vec<Shape>,
    #[serde(rename = "imageWidth")]
    width: Option<u32>,
    #[serde(rename = "imageHeight")]
    height: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Shape {
    label: String,
    points: Vec<[f64; 2]>,
    #[serde(default)]
    shape_type: Option<String>,
}

/// One JSON file.
#[derive(Debug)]
pub struct LabelMeFile {
    pub size: Option<(u32, u32)>,
    pub objects: Vec<Object>,
}

/// Reads the file at `path`; new class names are added to `classes`.
///
/// # Errors
/// [`DataError::Label`] names the line.
pub fn read_file(path: &Path, classes: &mut Classes, outlines: bool) -> Result<LabelMeFile, DataError> {
    let file: File = read_json(path, false)?;
    let mut objects = Vec::with_capacity(file.shapes.len());
    for (number, shape) in file.shapes.into_iter().enumerate() {
        let at = |why: String| DataError::Config { path: path.to_owned(), why: format!("shapes[{number}]: {why}") };
        let points = outline(&shape).map_err(at)?;
        let class = classes.number(&shape.label);
        let mut object =
            Object::around(Some(class), &points, Unit::Pixel).ok_or_else(|| at("it has no points".into()))?;
        if outlines {
            object.outlines.push(points);
        }
        objects.push(object);
    }
    Ok(LabelMeFile { size: file.width.zip(file.height).filter(|(w, h)| *w > 0 && *h > 0), objects })
}

/// The corners of a shape: a circle is given by its centre and a point on it.
fn outline(shape: &Shape) -> Result<Vec<[f64; 2]>, String> {
    const CORNERS: usize = 64;
    let kind = shape.shape_type.as_deref().unwrap_or("polygon");
    match (kind, shape.points.as_slice()) {
        ("rectangle" | "mask", &[[x0, y0], [x1, y1]]) => Ok(vec![[x0, y0], [x1, y0], [x1, y1], [x0, y1]]),
        ("circle", &[[x, y], [on_x, on_y]]) => {
            let radius = (on_x - x).hypot(on_y - y);
            let corner = |i: usize| {
                let angle = std::f64::consts::TAU * i as f64 / CORNERS as f64;
                [x + radius * angle.cos(), y + radius * angle.sin()]
            };
            Ok((0..CORNERS).map(corner).collect())
        }
        ("polygon" | "rectangle" | "rotation", points) if points.len() >= 3 => Ok(points.to_vec()),
        ("point" | "points" | "line" | "linestrip", _) => {
            Err(format!("a {kind} encloses nothing; draw a polygon or a rectangle"))
        }
        (_, points) => Err(format!("a {kind} of {} points is not read", points.len())),
    }
}

/// Whether the beginning of a JSON file is that of this layout.
pub fn is_file(beginning: &str) -> bool {
    beginning.contains("\"shapes\"") || (beginning.contains("\"version\"") && beginning.contains("\"flags\""))
}

/// Whether a folder holds this layout.
pub fn is(folder: &Path) -> bool {
    near::beside(folder, "json", is_file)
}

/// Reads the folder.
///
/// # Errors
/// When it cannot be read.
pub fn read(request: &Request) -> Result<Listing, DataError> {
    let files = Files::under(&request.path, &IMAGES)?;
    let json = Files::under(&request.path, &["json"])?;
    let mut skipped: Vec<Skipped> =
        files.others.into_iter().filter(|f| f.path.extension().is_none_or(|e| e != "json")).collect();
    let mut labels = json.by_stem()?;
    let (config, config_path) = request.config_or(&[], &request.path);
    let mut classes = Classes::new(&config.classes);
    let mut entries = Vec::with_capacity(files.found.len());
    for (name, image) in files.found {
        let label_file = labels.remove(stem(&name));
        let (size, labels) = match &label_file {
            None => (None, Ok(Labels::Unlabelled)),
            Some(path) => match read_file(path, &mut classes, request.outlines) {
                Ok(file) => (file.size, Ok(Labels::Objects(file.objects))),
                Err(e) => (None, Err(e)),
            },
        };
        entries.push(Entry { name, image, size, labels, label_file });
    }
    skipped.extend(labels.into_values().map(|path| Skipped { path, reason: "a label without an image".into() }));
    let config = super::DatasetConfig { classes: classes.into_names(), ..config };
    Ok(Listing { layout: "labelme JSON", config, config_path, entries, skipped })
}
