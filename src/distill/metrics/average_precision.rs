//! Average precision as COCO defines it (Lin et al. 2014, and the figures of its reference
//! implementation): greedy matching by score, precision made monotonic, read at 101 recalls.

use peregrine_core::{BoundingBox, Detection};
use serde::Serialize;

/// The ten overlaps over which AP is averaged: 0.50, 0.55 … 0.95.
pub const OVERLAPS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
/// The largest number of detections of a class that count in an image.
const MAX_DETECTIONS: usize = 100;

/// One image's detections and labels, each with its class.
#[derive(Debug, Clone, Default)]
pub struct Evaluated {
    pub detections: Vec<Detection>,
    pub labels: Vec<(usize, BoundingBox)>,
    /// Regions in which unmatched detections are ignored (COCO's crowds, but for every class).
    pub ignore: Vec<BoundingBox>,
}

/// The labels that count, by the area of their box in pixels² (COCO's ranges; a label on the border
/// of two counts in both).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectSize {
    All,
    /// Up to 32².
    Small,
    /// 32² to 96².
    Medium,
    /// From 96² on.
    Large,
}

impl ObjectSize {
    fn holds(self, area: f64) -> bool {
        let (low, high) = match self {
            Self::All => (0.0, 1e10),
            Self::Small => (0.0, 32.0 * 32.0),
            Self::Medium => (32.0 * 32.0, 96.0 * 96.0),
            Self::Large => (96.0 * 96.0, 1e10),
        };
        low <= area && area <= high
    }
}

/// One class's figures, fractions of one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassPrecision {
    /// At an IoU of 0.5.
    #[serde(rename = "AP50")]
    pub ap50: f64,
    /// Mean over [`OVERLAPS`].
    #[serde(rename = "AP")]
    pub ap: f64,
    /// AP of the objects of each [`ObjectSize`]; `None` if there is none.
    #[serde(rename = "AP_small")]
    pub small: Option<f64>,
    #[serde(rename = "AP_medium")]
    pub medium: Option<f64>,
    #[serde(rename = "AP_large")]
    pub large: Option<f64>,
    /// Labelled objects.
    pub objects: usize,
}

/// The figures of `class` over all images; `None` if no object of it is labelled.
pub fn average_precision(images: &[Evaluated], class: usize) -> Option<ClassPrecision> {
    let mean = |at: &[f64; OVERLAPS.len()]| at.iter().sum::<f64>() / at.len() as f64;
    let of = |size| by_overlap(images, class, size).map(|at| mean(&at));
    let all = by_overlap(images, class, ObjectSize::All)?;
    Some(ClassPrecision {
        ap50: all[0],
        ap: mean(&all),
        small: of(ObjectSize::Small),
        medium: of(ObjectSize::Medium),
        large: of(ObjectSize::Large),
        objects: count(images, class, ObjectSize::All),
    })
}

/// The score of each detection of `class` that counts, and whether it is right at an IoU of
/// `overlap`.
pub fn outcomes(images: &[Evaluated], class: usize, overlap: f64) -> Vec<(f32, bool)> {
    images.iter().flat_map(|image| matches(image, class, overlap, ObjectSize::All)).collect()
}

fn count(images: &[Evaluated], class: usize, size: ObjectSize) -> usize {
    images.iter().flat_map(|i| &i.labels).filter(|l| l.0 == class && size.holds(area(&l.1))).count()
}

fn by_overlap(images: &[Evaluated], class: usize, size: ObjectSize) -> Option<[f64; OVERLAPS.len()]> {
    let objects = count(images, class, size);
    (objects > 0).then(|| OVERLAPS.map(|overlap| at_overlap(images, class, overlap, size, objects)))
}

fn at_overlap(images: &[Evaluated], class: usize, overlap: f64, size: ObjectSize, objects: usize) -> f64 {
    // Score, and whether it is a true positive; in the order of images, then of scores within each.
    let mut outcomes: Vec<(f32, bool)> = images.iter().flat_map(|image| matches(image, class, overlap, size)).collect();
    outcomes.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (mut recalls, mut precisions, mut right) = (Vec::new(), Vec::new(), 0.0);
    for (i, (_, hit)) in outcomes.iter().enumerate() {
        right += f64::from(u8::from(*hit));
        recalls.push(right / objects as f64);
        precisions.push(right / (i as f64 + 1.0));
    }
    for i in (1..precisions.len()).rev() {
        precisions[i - 1] = f64::max(precisions[i - 1], precisions[i]);
    }
    let read = |i: usize| {
        // As numpy.linspace rounds, since a recall often equals a threshold exactly.
        let recall = i as f64 * 0.01;
        precisions.get(recalls.partition_point(|&r| r < recall)).copied().unwrap_or(0.0)
    };
    (0..=100).map(read).sum::<f64>() / 101.0
}

/// Each detection takes the free label of `size` that it overlaps most, the most confident first.
/// Without one, a detection is ignored if it takes a label of another size, if the fraction
/// `overlap` of its area lies in a region to ignore, or if it is of another size itself.
fn matches(image: &Evaluated, class: usize, overlap: f64, size: ObjectSize) -> Vec<(f32, bool)> {
    let mut detections: Vec<&Detection> = image.detections.iter().filter(|d| d.class == class).collect();
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    detections.truncate(MAX_DETECTIONS);
    let labels = image.labels.iter().filter(|l| l.0 == class).map(|l| &l.1);
    let (counted, others): (Vec<&BoundingBox>, Vec<_>) = labels.partition(|l| size.holds(area(l)));
    let (mut taken, mut others_taken) = (vec![false; counted.len()], vec![false; others.len()]);
    let least = overlap.min(1.0 - 1e-10);
    let best = |d: &Detection, labels: &[&BoundingBox], taken: &[bool]| {
        let mut best: Option<(usize, f64)> = None;
        for (i, label) in labels.iter().enumerate().filter(|(i, _)| !taken[*i]) {
            let iou = iou(&d.bbox, label);
            if iou >= best.map_or(least, |b| b.1) {
                best = Some((i, iou));
            }
        }
        best
    };
    let outcome = |d: &Detection| {
        if let Some((i, _)) = best(d, &counted, &taken) {
            taken[i] = true;
            return Some((d.score, true));
        }
        let other = best(d, &others, &others_taken);
        let in_region = image.ignore.iter().map(|region| share_inside(&d.bbox, region)).fold(0.0, f64::max);
        match other {
            Some((i, iou)) if iou > in_region => others_taken[i] = true,
            None if in_region < least && size.holds(area(&d.bbox)) => return Some((d.score, false)),
            _ => {}
        }
        None
    };
    detections.into_iter().filter_map(outcome).collect()
}

/// In f64, since a rounded overlap may fall on the other side of a threshold.
pub(crate) fn iou(a: &BoundingBox, b: &BoundingBox) -> f64 {
    let common = common_area(a, b);
    ratio(common, area(a) + area(b) - common)
}

/// The fraction of `a` that lies in `region`.
pub(crate) fn share_inside(a: &BoundingBox, region: &BoundingBox) -> f64 {
    ratio(common_area(a, region), area(a))
}

fn common_area(a: &BoundingBox, b: &BoundingBox) -> f64 {
    side(a.x_min.max(b.x_min), a.x_max.min(b.x_max)) * side(a.y_min.max(b.y_min), a.y_max.min(b.y_max))
}

fn area(b: &BoundingBox) -> f64 {
    side(b.x_min, b.x_max) * side(b.y_min, b.y_max)
}

fn side(low: f32, high: f32) -> f64 {
    (f64::from(high) - f64::from(low)).max(0.0)
}

fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 {
        part / whole
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize)]
    struct Case {
        /// Per image: class, score, x_min, y_min, x_max, y_max.
        detections: Vec<Vec<(usize, f32, [f32; 4])>>,
        /// Per image: class and box.
        labels: Vec<Vec<(usize, [f32; 4])>>,
        /// Per image: boxes.
        ignore: Vec<Vec<[f32; 4]>>,
        /// For each class AP50, AP and AP of small, medium and large objects, from pycocotools.
        expected: Vec<[Option<f64>; 5]>,
    }

    const NAMES: [&str; 5] = ["AP50", "AP", "small", "medium", "large"];

    #[test]
    fn it_equals_pycocotools_on_random_cases() {
        let cases: Vec<Case> = serde_json::from_str(include_str!("../../../tests/reference/coco_ap.json")).unwrap();
        let bbox = |b: &[f32; 4]| BoundingBox::new(b[0], b[1], b[2], b[3]);
        for case in &cases {
            let mut images = Vec::new();
            for ((detections, labels), ignore) in case.detections.iter().zip(&case.labels).zip(&case.ignore) {
                let detection = |d: &(usize, f32, [f32; 4])| Detection { class: d.0, score: d.1, bbox: bbox(&d.2) };
                images.push(Evaluated {
                    detections: detections.iter().map(detection).collect(),
                    labels: labels.iter().map(|(class, b)| (*class, bbox(b))).collect(),
                    ignore: ignore.iter().map(bbox).collect(),
                });
            }
            for (class, expected) in case.expected.iter().enumerate() {
                let p = average_precision(&images, class).unwrap();
                let found = [Some(p.ap50), Some(p.ap), p.small, p.medium, p.large];
                for (name, (found, expected)) in NAMES.iter().zip(found.iter().zip(expected)) {
                    let near = found.zip(*expected).is_some_and(|(a, b)| (a - b).abs() < 1e-6);
                    assert!(near || found == expected, "{name} {found:?} instead of {expected:?}");
                }
            }
        }
    }

    #[test]
    fn a_class_without_labels_has_no_average_precision() {
        assert_eq!(average_precision(&[Evaluated::default()], 0), None);
    }
}
