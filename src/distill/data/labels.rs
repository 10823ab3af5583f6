//! The labels of one image, as every layout gives them: objects with the data set's own classes.

use peregrine_core::BoundingBox;

use super::config::Mapped;

/// How far a box may exceed the image's edge, in fractions of its side, and still be clipped as a
/// rounding error. Beyond that the file probably belongs to another image, or is in other units.
pub const CLIPPED: f64 = 0.02;

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

/// An object as its label file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// Index among the data set's classes; `None` for a region that is to be ignored.
    pub class: Option<usize>,
    /// x_min, y_min, x_max, y_max, in `unit`s of the upright image.
    pub corners: [f64; 4],
    pub unit: Unit,
    /// The outlines in the same unit, if they were asked for; the object is what lies in any.
    pub outlines: Vec<Vec<[f64; 2]>>,
}

/// The unit of coordinates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Fractions of the image's width and height.
    Fraction,
    Pixel,
}

impl Object {
    /// An object without outline.
    pub fn new(class: Option<usize>, corners: [f64; 4], unit: Unit) -> Self {
        Self { class, corners, unit, outlines: Vec::new() }
    }

    /// The object round whose `points` the box is drawn; `None` without points.
    pub fn around(class: Option<usize>, points: &[[f64; 2]], unit: Unit) -> Option<Self> {
        let start = [f64::INFINITY, f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY];
        let grow = |b: [f64; 4], p: &[f64; 2]| [b[0].min(p[0]), b[1].min(p[1]), b[2].max(p[0]), b[3].max(p[1])];
        (!points.is_empty()).then(|| Self::new(class, points.iter().fold(start, grow), unit))
    }

    /// The box in pixels, clipped to an image of `size` = (width, height).
    ///
    /// # Errors
    /// A sentence when it is no box, or lies outside the image.
    pub fn bbox(&self, (width, height): (u32, u32)) -> Result<BoundingBox, String> {
        let (width, height) = (f64::from(width), f64::from(height));
        let [x_min, y_min, x_max, y_max] = match self.unit {
            Unit::Pixel => self.corners,
            Unit::Fraction => {
                let [a, b, c, d] = self.corners;
                [a * width, b * height, c * width, d * height]
            }
        };
        let [a, b, c, d] = self.corners;
        if ![x_min, y_min, x_max, y_max].iter().all(|v| v.is_finite()) || x_max <= x_min || y_max <= y_min {
            return Err(format!("the box from ({a}, {b}) to ({c}, {d}) has no area"));
        }
        let at = |v: f64, side: f64| v.clamp(0.0, side) as f32;
        let (x_min, x_max) = (at(x_min, width), at(x_max, width));
        let (y_min, y_max) = (at(y_min, height), at(y_max, height));
        let bbox = BoundingBox { x_min, y_min, x_max, y_max };
        if bbox.area() <= 0.0 {
            return Err(format!(
                "the box from ({a}, {b}) to ({c}, {d}) lies outside the image of {width}×{height} pixels"
            ));
        }
        Ok(bbox)
    }
}

/// Maps `objects` to a student's classes; `classes` says what each class of the data set maps to.
///
/// # Errors
/// A sentence about the first box that is none.
pub fn map(objects: &[Object], classes: &[Mapped], size: (u32, u32)) -> Result<ImageLabels, String> {
    let mut labels = ImageLabels::default();
    for object in objects {
        let bbox = object.bbox(size)?;
        match object.class.map_or(Mapped::Ignore, |class| classes[class]) {
            Mapped::Student(class) => labels.boxes.push(Annotation { class, bbox }),
            Mapped::Ignore => labels.ignore.push(bbox),
            Mapped::Background => {}
        }
    }
    Ok(labels)
}
