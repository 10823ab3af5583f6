//! Labels that are valid but probably wrong.

use peregrine_core::BoundingBox;
use serde::Serialize;

use crate::data::{Annotation, Dataset, Sample};

/// Boxes with a larger IoU are the same object.
const SAME_OBJECT: f32 = 0.9;
/// Shorter sides, in pixels, are suspicious.
const LEAST_SIDE: f32 = 3.0;
/// A box over a larger fraction of the image is rarely an object.
const MOST_OF_IMAGE: f32 = 0.97;

/// A suspicious label.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Suspect {
    /// File name of the image.
    pub image: String,
    /// Index among the data set's samples.
    #[serde(skip)]
    pub sample: usize,
    /// In pixels of the image: left, top, right, bottom.
    #[serde(skip)]
    pub bbox: BoundingBox,
    pub why: String,
}

/// The suspicious labels of a data set, in the order of its samples.
pub fn find(dataset: &Dataset, classes: &[String]) -> Vec<Suspect> {
    let mut found = Vec::new();
    for (index, sample) in dataset.samples.iter().enumerate() {
        for (bbox, why) in in_sample(sample, classes) {
            found.push(Suspect { image: sample.file_name().to_owned(), sample: index, bbox, why });
        }
    }
    found
}

fn in_sample(sample: &Sample, classes: &[String]) -> Vec<(BoundingBox, String)> {
    let boxes = sample.boxes.as_deref().unwrap_or_default();
    let area = sample.size.0 as f32 * sample.size.1 as f32;
    let mut found = Vec::new();
    for (i, Annotation { class, bbox }) in boxes.iter().enumerate() {
        let name = &classes[*class];
        if bbox.width() < LEAST_SIDE || bbox.height() < LEAST_SIDE {
            found.push((*bbox, format!("a {name} of {:.1}×{:.1} pixels", bbox.width(), bbox.height())));
        }
        if bbox.area() > MOST_OF_IMAGE * area {
            found.push((*bbox, format!("a {name} over the whole image")));
        }
        let twins = boxes[..i].iter().filter(|other| other.bbox.iou(bbox) > SAME_OBJECT);
        for other in twins {
            let why = if other.class == *class {
                format!("the same {name} twice")
            } else {
                format!("one object as {} and as {name}", classes[other.class])
            };
            found.push((*bbox, why));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_contradicting_tiny_and_huge_boxes_are_found() {
        let at = |class, x: f32, side: f32| Annotation { class, bbox: BoundingBox::new(x, 0.0, x + side, side) };
        let sample = Sample {
            name: "a.jpg".into(),
            image: "a.jpg".into(),
            size: (100, 100),
            boxes: Some(vec![
                at(0, 0.0, 20.0),
                at(0, 0.3, 20.0),
                at(1, 0.0, 20.0),
                at(1, 50.0, 2.0),
                at(0, 0.0, 100.0),
                at(1, 60.0, 30.0),
            ]),
            ignore: vec![],
            mask: None,
            scene: Default::default(),
        };
        let why: Vec<String> = in_sample(&sample, &["car".into(), "bus".into()]).into_iter().map(|s| s.1).collect();
        assert_eq!(
            why,
            [
                "the same car twice",
                "one object as car and as bus",
                "one object as car and as bus",
                "a bus of 2.0×2.0 pixels",
                "a car over the whole image",
            ]
        );
    }
}
