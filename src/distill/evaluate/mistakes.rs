//! The worst errors of a student, and an HTML page that shows them.

use image::{imageops, Rgb, RgbImage};
use peregrine_core::BoundingBox;
use peregrine_report::colour::{GREEN, ORANGE, RED};
use peregrine_report::picture::{draw_box, shrink};
use peregrine_report::Page;
use peregrine_student::Architecture;

use super::observe::{Observations, Observed};
use super::report::{Evaluation, CONFIDENT};
use crate::data::{load_image, Dataset, VOID};
use crate::metrics::average_precision::{iou, share_inside};
use crate::metrics::Evaluated;

/// IoU from which a detection matches an object.
const FOUND: f64 = 0.5;
/// Side of a picture in pixels.
const PICTURE: u32 = 320;

/// The type of an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MistakeKind {
    /// False negative: a labelled object without a detection of any class.
    Missed,
    /// False positive: a detection without an object of any class.
    Invented,
    /// A detection on an object of another class.
    Confused,
}

/// One error.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistake {
    pub kind: MistakeKind,
    /// Index among the data set's samples.
    pub sample: usize,
    pub bbox: BoundingBox,
    /// Of the detection, or of the missed label.
    pub class: usize,
    /// Of the label, if the classes were confused.
    pub labelled: Option<usize>,
    /// Severity: the score of a wrong detection, or the area of a missed label in pixels².
    pub weight: f32,
}

/// The errors of each kind, the worst first. Counts only detections with a score of at least
/// [`CONFIDENT`], and only classes that the data set labels.
pub fn mistakes(observations: &Observations, labelled_classes: &[bool]) -> [Vec<Mistake>; 3] {
    let mut all = [MistakeKind::Missed, MistakeKind::Invented, MistakeKind::Confused].map(|_| Vec::new());
    for image in &observations.images {
        let Some(objects) = &image.objects else { continue };
        for mistake in in_image(image, objects, labelled_classes) {
            all[mistake.kind as usize].push(mistake);
        }
    }
    for list in &mut all {
        list.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    }
    all
}

fn in_image(image: &Observed, objects: &Evaluated, labelled_classes: &[bool]) -> Vec<Mistake> {
    let sample = image.sample;
    let sure = || objects.detections.iter().filter(|d| d.score >= CONFIDENT);
    let mut found = Vec::new();
    for &(class, bbox) in objects.labels.iter().filter(|(class, _)| labelled_classes[*class]) {
        if !sure().any(|d| iou(&d.bbox, &bbox) >= FOUND) {
            found.push(Mistake { kind: MistakeKind::Missed, sample, bbox, class, labelled: None, weight: bbox.area() });
        }
    }
    for d in sure().filter(|d| labelled_classes[d.class]) {
        let on = objects.labels.iter().map(|(class, bbox)| (*class, iou(&d.bbox, bbox)));
        let mut on: Vec<_> = on.filter(|(_, overlap)| *overlap >= FOUND).collect();
        // The same class first, then by overlap.
        on.sort_by(|a, b| (b.0 == d.class).cmp(&(a.0 == d.class)).then(b.1.total_cmp(&a.1)));
        let (kind, labelled) = match on.first() {
            Some((class, _)) if *class == d.class => continue,
            Some((class, _)) => (MistakeKind::Confused, Some(*class)),
            None if objects.ignore.iter().any(|r| share_inside(&d.bbox, r) >= FOUND) => continue,
            None => (MistakeKind::Invented, None),
        };
        found.push(Mistake { kind, sample, bbox: d.bbox, class: d.class, labelled, weight: d.score });
    }
    found
}

/// The page with the `most` worst errors of each kind, and the worst masks.
///
/// # Errors
/// When an image cannot be read any more.
pub fn page(
    evaluation: &Evaluation,
    dataset: &Dataset,
    observations: &Observations,
    architecture: &Architecture,
    most: usize,
) -> anyhow::Result<Page> {
    let classes = architecture.detection_classes();
    let mut page = Page::new(&format!("Worst errors of {} on {}", evaluation.model, evaluation.dataset));
    page.preformatted(&evaluation.table());
    let titles = [
        "False negatives, the largest first",
        "False positives, the most confident first",
        "Wrong classes, the most confident first",
    ];
    for (title, list) in titles.iter().zip(mistakes(observations, &dataset.labelled)) {
        if evaluation.ap50.is_none() {
            break;
        }
        page.section(&format!("{title} ({} in all)", list.len()));
        let shown: Vec<_> = list.iter().take(most).collect();
        let pictures = shown.into_iter().map(|m| {
            let image = load_image(&dataset.samples[m.sample].image)?;
            let objects = observations.images.iter().find(|i| i.sample == m.sample).and_then(|i| i.objects.as_ref());
            let (file, class) = (dataset.samples[m.sample].file_name(), &classes[m.class]);
            let caption = match (m.kind, m.labelled) {
                (MistakeKind::Missed, _) => {
                    format!("{file}: {class} of {:.0}×{:.0} pixels", m.bbox.width(), m.bbox.height())
                }
                (_, Some(labelled)) => format!("{file}: {class} {:.2}, labelled {}", m.weight, classes[labelled]),
                _ => format!("{file}: {class} {:.2}", m.weight),
            };
            Ok((picture(image, objects, &m.bbox), caption))
        });
        page.pictures(&pictures.collect::<anyhow::Result<Vec<_>>>()?)?;
    }
    page.paragraph("Green: labels. Orange: detections with a score of at least 0.3. Red: the error.");

    let mut masks: Vec<&Observed> = observations.images.iter().filter(|i| i.mask.is_some()).collect();
    if !masks.is_empty() {
        let accuracy = |image: &Observed| image.mask.as_ref().map_or(1.0, |m| m.1);
        masks.sort_by(|a, b| accuracy(a).total_cmp(&accuracy(b)));
        page.section("Masks with the lowest pixel accuracy");
        let pictures = masks.iter().take(most).map(|i| {
            let caption = format!(
                "{}: {:.1} % of the pixels correct",
                dataset.samples[i.sample].file_name(),
                100.0 * accuracy(i)
            );
            Ok((wrong_pixels(dataset, i)?, caption))
        });
        page.pictures(&pictures.collect::<anyhow::Result<Vec<_>>>()?)?;
        page.paragraph("Red: pixels with a wrong class.");
    }
    Ok(page)
}

/// The crop around `bbox`, with all boxes in it.
fn picture(mut image: RgbImage, objects: Option<&Evaluated>, bbox: &BoundingBox) -> RgbImage {
    // Lines that are two pixels wide once the picture is shrunk.
    let (x, y, width, height) = surroundings(bbox, image.dimensions());
    let thickness = (width.max(height) / 160).max(1);
    for (_, label) in objects.iter().flat_map(|o| &o.labels) {
        draw_box(&mut image, label, GREEN, thickness);
    }
    for d in objects.iter().flat_map(|o| &o.detections).filter(|d| d.score >= CONFIDENT) {
        draw_box(&mut image, &d.bbox, ORANGE, thickness);
    }
    draw_box(&mut image, bbox, RED, thickness);
    shrink(&imageops::crop_imm(&image, x, y, width, height).to_image(), PICTURE)
}

/// Left, top, width and height of a crop three times as large as `bbox`, at least 160 pixels.
fn surroundings(bbox: &BoundingBox, (width, height): (u32, u32)) -> (u32, u32, u32, u32) {
    let around = |low: f32, high: f32, limit: u32| {
        let side = (3.0 * (high - low)).max(160.0).min(limit as f32);
        let start = (0.5 * (low + high) - 0.5 * side).clamp(0.0, limit as f32 - side);
        (start as u32, (side as u32).max(1))
    };
    let (x, w) = around(bbox.x_min, bbox.x_max, width);
    let (y, h) = around(bbox.y_min, bbox.y_max, height);
    (x, y, w, h)
}

fn wrong_pixels(dataset: &Dataset, observed: &Observed) -> anyhow::Result<RgbImage> {
    let sample = &dataset.samples[observed.sample];
    let mut image = load_image(&sample.image)?;
    if let (Some(path), Some((mask, _))) = (&sample.mask, &observed.mask) {
        let labels = dataset.load_mask(path)?;
        let size = (labels.width() as usize, labels.height() as usize);
        for (x, y, label) in labels.enumerate_pixels().filter(|(_, _, label)| label.0[0] != VOID) {
            if mask.at(x as usize, y as usize, size).is_some_and(|class| class != label.0[0]) {
                let pixel = image.get_pixel_mut(x, y);
                *pixel = Rgb([0, 1, 2].map(|c| ((u16::from(pixel.0[c]) + u16::from(RED.0[c])) / 2) as u8));
            }
        }
    }
    Ok(shrink(&image, PICTURE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Calibration, Confusion};
    use peregrine_core::Detection;

    #[test]
    fn errors_are_classified_and_the_worst_come_first() {
        let at = |x: f32, side: f32| BoundingBox::new(x, 0.0, x + side, side);
        let detection = |class, score, bbox| Detection { class, score, bbox };
        let objects = Evaluated {
            labels: vec![(0, at(0.0, 10.0)), (0, at(100.0, 10.0)), (0, at(200.0, 30.0)), (1, at(300.0, 10.0))],
            detections: vec![
                detection(0, 0.9, at(0.0, 10.0)),
                detection(0, 0.8, at(300.0, 10.0)),
                detection(0, 0.4, at(400.0, 10.0)),
                detection(0, 0.6, at(500.0, 10.0)),
                detection(0, 0.7, at(600.0, 10.0)),
                detection(0, 0.2, at(700.0, 10.0)),
                detection(2, 0.9, at(800.0, 10.0)),
            ],
            ignore: vec![at(590.0, 40.0)],
        };
        let observations = Observations {
            images: vec![Observed { sample: 0, objects: Some(objects), mask: None }],
            confusion: Confusion::new(1),
            mask_calibration: Calibration::default(),
            scenes: super::super::scene::SceneCounts::new(None),
            skipped: Vec::new(),
        };
        let [missed, invented, confused] = mistakes(&observations, &[true, true, false]);
        let places = |list: &[Mistake]| list.iter().map(|m| m.bbox.x_min).collect::<Vec<_>>();
        assert_eq!(places(&missed), [200.0, 100.0]);
        assert_eq!(places(&invented), [500.0, 400.0]);
        assert_eq!((places(&confused), confused[0].labelled), (vec![300.0], Some(1)));
    }

    #[test]
    fn a_crop_stays_within_the_image() {
        assert_eq!(surroundings(&BoundingBox::new(0.0, 90.0, 10.0, 100.0), (1000, 100)), (0, 0, 160, 100));
    }
}
