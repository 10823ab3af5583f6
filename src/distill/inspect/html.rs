//! The inspection as one page with pictures.

use image::RgbImage;

use super::{Inspection, SetReport};
use crate::data::{load_image, Annotation, Dataset};
use crate::page::{draw_box, heat_map, shrink, Page, GREEN, RED};

/// Side of a picture in pixels.
const PICTURE: u32 = 320;
/// Pictures of a kind.
const SHOWN: usize = 12;

/// The page. Pictures that cannot be read any more are left out.
pub fn page(inspection: &Inspection, datasets: &[Dataset], classes: &[String]) -> String {
    let names: Vec<&str> = inspection.sets.iter().map(|s| s.name.as_str()).collect();
    let mut page = Page::new(&format!("Data: {}", names.join(", ")));
    for (report, dataset) in inspection.sets.iter().zip(datasets) {
        set(&mut page, report, dataset, classes);
    }
    contradictions(&mut page, inspection);
    across(&mut page, inspection, datasets);
    page.finish()
}

fn set(page: &mut Page, report: &SetReport, dataset: &Dataset, classes: &[String]) {
    page.heading(2, &report.name);
    page.paragraph(&format!(
        "{} images, {} unlabelled, {} files at fault, {} labels to look at again. Red, green, blue: mean {:.0?}, \
         deviation {:.0?}.",
        report.images,
        report.unlabelled,
        report.faults.len(),
        report.suspects.len(),
        report.mean,
        report.std
    ));
    if !report.classes.is_empty() {
        page.table(&report.class_rows());
    }
    if !report.pixels.is_empty() {
        page.table(&report.pixel_rows());
    }
    if report.heat.iter().flatten().any(|&n| n > 0) {
        let most = f64::from(*report.heat.iter().flatten().max().unwrap_or(&1));
        let rows: Vec<Vec<f64>> =
            report.heat.iter().map(|r| r.iter().map(|&n| f64::from(n) / most).collect()).collect();
        page.raw(&heat_map(&rows, "Where objects lie: boxes over each place of the image"));
    }
    if !report.faults.is_empty() {
        page.heading(3, "Files at fault");
        let header = vec!["file".to_owned(), "why".to_owned()];
        let rows = report.faults.iter().map(|(path, why)| vec![path.display().to_string(), why.clone()]);
        page.table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
    }
    if !report.suspects.is_empty() {
        page.heading(3, &format!("Labels to look at again ({} in all)", report.suspects.len()));
        let pictures = report.suspects.iter().take(SHOWN).filter_map(|s| {
            let mut image = load_image(&dataset.samples[s.sample].image).ok()?;
            let thickness = line(&image);
            draw_box(&mut image, &s.bbox, RED, thickness);
            Some((shrink(&image, PICTURE), format!("{}: {}", s.image, s.why)))
        });
        page.pictures(&pictures.collect::<Vec<_>>());
    }
    page.heading(3, "Some of the images, with their labels");
    let step = dataset.samples.len().div_ceil(SHOWN).max(1);
    let pictures = dataset.samples.iter().step_by(step).filter_map(|sample| {
        let mut image = load_image(&sample.image).ok()?;
        let thickness = line(&image);
        let boxes = sample.boxes.as_deref().unwrap_or_default();
        boxes.iter().for_each(|b| draw_box(&mut image, &b.bbox, GREEN, thickness));
        Some((shrink(&image, PICTURE), format!("{}: {}", sample.file_name(), named(boxes, classes))))
    });
    page.pictures(&pictures.collect::<Vec<_>>());
}

fn contradictions(page: &mut Page, inspection: &Inspection) {
    if inspection.contradictions.is_empty() {
        return;
    }
    page.heading(2, &format!("Copies with other labels ({} pairs)", inspection.contradictions.len()));
    page.paragraph("One picture, byte for byte, with two opinions of what is in it: correct one, or delete it.");
    let header = vec!["image".to_owned(), "its copy".to_owned()];
    let rows =
        inspection.contradictions.iter().map(|pair| pair.iter().map(|(set, file)| format!("{set}/{file}")).collect());
    page.table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
}

fn across(page: &mut Page, inspection: &Inspection, datasets: &[Dataset]) {
    let across: Vec<_> = inspection.across().collect();
    page.heading(2, &format!("Images that two data sets share ({} pairs)", across.len()));
    page.paragraph(&format!("{} further pairs lie within one data set.", inspection.alike.len() - across.len()));
    let find = |(set, file): &(String, String)| {
        let dataset = datasets.iter().find(|d| d.name == *set)?;
        let sample = dataset.samples.iter().find(|s| s.file_name() == file)?;
        load_image(&sample.image).ok()
    };
    for pair in across.iter().take(SHOWN) {
        let pictures = pair.images.iter().filter_map(|name| {
            let image = find(name)?;
            Some((shrink(&image, PICTURE), format!("{}/{} ({} bits of 256 differ)", name.0, name.1, pair.distance)))
        });
        page.pictures(&pictures.collect::<Vec<_>>());
    }
}

/// Pixels of a line that is two pixels wide once the image is shrunk.
fn line(image: &RgbImage) -> u32 {
    (image.width().max(image.height()) / (PICTURE / 2)).max(1)
}

fn named(boxes: &[Annotation], classes: &[String]) -> String {
    let count = |class: usize| boxes.iter().filter(|b| b.class == class).count();
    let counts = classes.iter().enumerate().map(|(class, name)| (name, count(class))).filter(|(_, n)| *n > 0);
    let list: Vec<String> = counts.map(|(name, n)| format!("{n} {name}")).collect();
    if list.is_empty() {
        "no labelled objects".into()
    } else {
        list.join(", ")
    }
}
