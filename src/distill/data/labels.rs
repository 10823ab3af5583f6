//! YOLO label files: one line per object, `class cx cy w h`, in fractions of the image's width and
//! height.

use std::path::Path;

use peregrine_core::BoundingBox;

use super::config::Mapped;
use super::DataError;

/// How far a box may exceed the image's edge, in fractions of its side, and still be clipped as a
/// rounding error. Beyond that the file probably belongs to another image, or is in pixels.
const CLIPPED: f64 = 0.02;

/// A labelled object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Annotation {
    /// Index among the student's classes.
    pub class: usize,
    /// Pixels of the source image.
    pub bbox: BoundingBox,
}

/// The objects of one image, and its ignore regions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageLabels {
    pub boxes: Vec<Annotation>,
    pub ignore: Vec<BoundingBox>,
}

/// Parses the text of the label file at `path`, for an image of `size` = (width, height) pixels.
///
/// # Errors
/// [`DataError::Label`] names the first invalid line.
pub fn parse(text: &str, path: &Path, classes: &[Mapped], size: (u32, u32)) -> Result<ImageLabels, DataError> {
    let mut labels = ImageLabels::default();
    for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let (class, bbox) = parse_line(line, classes.len(), size).map_err(|why| DataError::Label {
            path: path.to_owned(),
            line: i + 1,
            why,
        })?;
        match classes[class] {
            Mapped::Student(class) => labels.boxes.push(Annotation { class, bbox }),
            Mapped::Ignore => labels.ignore.push(bbox),
            Mapped::Background => {}
        }
    }
    Ok(labels)
}

fn parse_line(line: &str, classes: usize, (width, height): (u32, u32)) -> Result<(usize, BoundingBox), String> {
    let mut fields = line.split_whitespace();
    let class = fields.next().unwrap_or_default();
    let class: usize = class.parse().map_err(|_| format!("class {class:?} is not a whole number"))?;
    if class >= classes {
        return Err(format!("class {class} is out of range: dataset.toml lists {classes} classes, numbered from 0"));
    }
    let numbers: Vec<f64> = fields
        .map(|f| f.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| format!("{f:?} is not a number")))
        .collect::<Result<_, _>>()?;
    let &[cx, cy, w, h] = numbers.as_slice() else {
        return Err(format!("{} numbers follow the class; `cx cy w h` are expected", numbers.len()));
    };
    if w <= 0.0 || h <= 0.0 {
        return Err(format!("the box is {w} × {h}; its sides must be positive"));
    }
    let (x, y) = ([cx - w / 2.0, cx + w / 2.0], [cy - h / 2.0, cy + h / 2.0]);
    if [x, y].iter().any(|&[low, high]| low < -CLIPPED || high > 1.0 + CLIPPED) {
        let hint = if cx > 1.0 || cy > 1.0 { " (numbers are fractions of the image, not pixels)" } else { "" };
        return Err(format!("the box {x:?} × {y:?} lies outside the image{hint}"));
    }
    let at = |fraction: f64, side: u32| (fraction.clamp(0.0, 1.0) * f64::from(side)) as f32;
    let bbox = BoundingBox {
        x_min: at(x[0], width),
        y_min: at(y[0], height),
        x_max: at(x[1], width),
        y_max: at(y[1], height),
    };
    if bbox.area() <= 0.0 {
        return Err("the box has no area inside the image".into());
    }
    Ok((class, bbox))
}
