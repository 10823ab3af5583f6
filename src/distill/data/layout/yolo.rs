//! YOLO label files: one line per object, `class cx cy w h`, in fractions of the image's width and
//! height.
//!
//! Read as well: a class written `2.0`, a byte order mark, a confidence as a sixth number, and the
//! outlines of segmentation and of oriented boxes (`class x1 y1 x2 y2 x3 y3 …`), which become the
//! boxes round them.

use std::path::Path;

use super::super::labels::{Object, Unit, CLIPPED};
use super::super::DataError;
use super::text::read_text;

/// What the lines of a data set's label files hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Columns {
    /// Number of classes.
    pub classes: usize,
    /// Numbers for keypoints behind `cx cy w h`.
    pub keypoints: usize,
    /// Whether to keep outlines.
    pub outlines: bool,
}

/// Reads the label file at `path`.
///
/// # Errors
/// [`DataError::Label`] names the first invalid line.
pub fn read(path: &Path, columns: Columns) -> Result<Vec<Object>, DataError> {
    parse(&read_text(path)?, path, columns)
}

/// Parses the text of the label file at `path`.
///
/// # Errors
/// See [`read`].
pub fn parse(text: &str, path: &Path, columns: Columns) -> Result<Vec<Object>, DataError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let object = |(i, line): (usize, &str)| {
        let at = |why| DataError::Label { path: path.to_owned(), line: i + 1, why };
        parse_line(line, columns).map_err(at)
    };
    lines.map(object).collect()
}

fn parse_line(line: &str, columns: Columns) -> Result<Object, String> {
    let mut fields = line.split_whitespace();
    let class = parse_class(fields.next().unwrap_or_default(), columns.classes)?;
    let numbers: Vec<f64> = fields
        .map(|f| f.parse().ok().filter(|v: &f64| v.is_finite()).ok_or_else(|| format!("{f:?} is not a number")))
        .collect::<Result<_, _>>()?;
    match numbers.as_slice() {
        &[cx, cy, w, h] | &[cx, cy, w, h, _] => parse_box(class, [cx, cy, w, h]),
        &[cx, cy, w, h, ..] if columns.keypoints > 0 && numbers.len() == 4 + columns.keypoints => {
            parse_box(class, [cx, cy, w, h])
        }
        outline if outline.len() >= 6 && outline.len() % 2 == 0 => parse_outline(class, outline, columns.outlines),
        _ => Err(format!(
            "{} numbers follow the class; `cx cy w h` are expected, or `cx cy w h confidence`, or an outline `x1 y1 x2 y2 \
             x3 y3 …`",
            numbers.len()
        )),
    }
}

/// A class by number; `2.0`, as array libraries write it, is 2.
fn parse_class(class: &str, classes: usize) -> Result<usize, String> {
    let whole = class.parse::<f64>().ok().filter(|c| *c >= 0.0 && c.fract() == 0.0 && *c < 1e9);
    let Some(number) = whole.map(|c| c as usize) else {
        return Err(format!("class {class:?} is not a whole number"));
    };
    if number >= classes {
        return Err(format!("class {number} is out of range: there are {classes} classes, numbered from 0"));
    }
    Ok(number)
}

fn parse_box(class: usize, [cx, cy, w, h]: [f64; 4]) -> Result<Object, String> {
    if w <= 0.0 || h <= 0.0 {
        return Err(format!("the box is {w} × {h}; its sides must be positive"));
    }
    let corners = [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0];
    let edge = 1.0 + CLIPPED;
    // A box of an object that the edge cuts may reach over it, but neither lie beyond it nor be
    // larger than the image.
    if w > edge || h > edge || [cx, cy].iter().any(|c| !(-CLIPPED..=edge).contains(c)) {
        let [x_min, y_min, x_max, y_max] = corners;
        let why = format!("the box [{x_min}, {x_max}] × [{y_min}, {y_max}] lies outside the image");
        return Err(why + units(&[cx, cy, w, h]));
    }
    Ok(Object::new(Some(class), corners, Unit::Fraction))
}

fn parse_outline(class: usize, numbers: &[f64], keep: bool) -> Result<Object, String> {
    if let Some(outside) = numbers.iter().find(|v| !(-CLIPPED..=1.0 + CLIPPED).contains(*v)) {
        return Err(format!("the outline's {outside} lies outside the image") + units(numbers));
    }
    let points: Vec<[f64; 2]> = numbers.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
    let mut object = Object::around(Some(class), &points, Unit::Fraction).ok_or("the outline has no points")?;
    let [x_min, y_min, x_max, y_max] = object.corners;
    if x_max <= x_min || y_max <= y_min {
        return Err("the outline encloses no area".into());
    }
    if keep {
        object.outlines.push(points);
    }
    Ok(object)
}

/// Numbers this large are no slip.
fn units(numbers: &[f64]) -> &'static str {
    if numbers.iter().any(|v| *v >= 2.0) {
        " (numbers are fractions of the image, not pixels)"
    } else {
        ""
    }
}
