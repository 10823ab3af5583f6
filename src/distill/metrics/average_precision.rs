//! Average precision as COCO defines it (Lin et al. 2014, and the figures of its reference implementation): greedy matching
//! by score, precision made monotonic, read at 101 recalls.

use crate::decode::{BoundingBox, Detection};

/// The ten overlaps over which AP is averaged: 0.50, 0.55 … 0.95.
pub const OVERLAPS: [f64; 10] = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95];
/// Most detections of a class that count in an image.
const MAX_DETECTIONS: usize = 100;

/// One image's detections and labels, each with its class.
#[derive(Debug, Clone, Default)]
pub struct Evaluated {
    pub detections: Vec<Detection>,
    pub labels: Vec<(usize, BoundingBox)>,
    /// Regions in which a detection without a label is neither right nor wrong (COCO's crowds, but of every class).
    pub ignore: Vec<BoundingBox>,
}

/// One class's figures, fractions of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassPrecision {
    /// At an overlap of 0.5.
    pub ap50: f64,
    /// Mean over [`OVERLAPS`].
    pub ap: f64,
    /// Labelled objects.
    pub objects: usize,
}

/// The figures of `class` over all images; `None` where no object of it is labelled.
pub fn average_precision(images: &[Evaluated], class: usize) -> Option<ClassPrecision> {
    let objects = images.iter().flat_map(|i| &i.labels).filter(|l| l.0 == class).count();
    if objects == 0 {
        return None;
    }
    let at: Vec<f64> = OVERLAPS.iter().map(|&overlap| at_overlap(images, class, overlap, objects)).collect();
    Some(ClassPrecision { ap50: at[0], ap: at.iter().sum::<f64>() / at.len() as f64, objects })
}

fn at_overlap(images: &[Evaluated], class: usize, overlap: f64, objects: usize) -> f64 {
    // Score, and whether it is a true positive; in the order of images, then of scores within each.
    let mut outcomes: Vec<(f32, bool)> = images.iter().flat_map(|image| matches(image, class, overlap)).collect();
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

/// Each detection takes the free label that it overlaps most, the most confident first. One that finds none and lies, by
/// the share `overlap` of its own area, in a region to ignore is left out.
fn matches(image: &Evaluated, class: usize, overlap: f64) -> Vec<(f32, bool)> {
    let mut detections: Vec<&Detection> = image.detections.iter().filter(|d| d.class == class).collect();
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    detections.truncate(MAX_DETECTIONS);
    let labels: Vec<&BoundingBox> = image.labels.iter().filter(|l| l.0 == class).map(|l| &l.1).collect();
    let mut taken = vec![false; labels.len()];
    let outcome = |d: &Detection| {
        let mut best: Option<(usize, f64)> = None;
        for (i, label) in labels.iter().enumerate().filter(|(i, _)| !taken[*i]) {
            let iou = iou(&d.bbox, label);
            if iou >= best.map_or(overlap.min(1.0 - 1e-10), |b| b.1) {
                best = Some((i, iou));
            }
        }
        if let Some((i, _)) = best {
            taken[i] = true;
        } else if image.ignore.iter().any(|region| share_inside(&d.bbox, region) >= overlap) {
            return None;
        }
        Some((d.score, best.is_some()))
    };
    detections.into_iter().filter_map(outcome).collect()
}

/// In f64, since a rounded overlap may fall on the other side of a threshold.
fn iou(a: &BoundingBox, b: &BoundingBox) -> f64 {
    let common = common_area(a, b);
    ratio(common, area(a) + area(b) - common)
}

/// The share of `a` that lies in `region`.
fn share_inside(a: &BoundingBox, region: &BoundingBox) -> f64 {
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
        /// For each class AP50 and AP, from pycocotools.
        expected: Vec<(f64, f64)>,
    }

    #[test]
    fn equals_pycocotools_on_random_cases() {
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
            for (class, (ap50, ap)) in case.expected.iter().enumerate() {
                let found = average_precision(&images, class).unwrap();
                assert!((found.ap50 - ap50).abs() < 1e-6, "AP50 {} instead of {ap50}", found.ap50);
                assert!((found.ap - ap).abs() < 1e-6, "AP {} instead of {ap}", found.ap);
            }
        }
    }

    #[test]
    fn a_class_without_labels_has_no_figure() {
        assert_eq!(average_precision(&[Evaluated::default()], 0), None);
    }
}
