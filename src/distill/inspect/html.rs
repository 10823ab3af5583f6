//! The inspection as an HTML page with pictures.

use image::RgbImage;

use super::{Inspection, SetReport};
use crate::data::{load_image, Annotation, Dataset};
use peregrine_report::colour::{BLUE, GREEN, RED};
use peregrine_report::picture::{draw_box, shrink};
use peregrine_report::{Axis, Chart, Page, ReportError};

/// Side of a picture in pixels.
const PICTURE: u32 = 320;
/// Side of a heat map's cell in units of the drawing.
const CELL: u32 = 18;
/// Pictures per section.
const SHOWN: usize = 12;

/// The page. Images that cannot be read any more are skipped.
///
/// # Errors
/// When a picture cannot be encoded.
pub fn page(inspection: &Inspection, datasets: &[Dataset], classes: &[String]) -> Result<Page, ReportError> {
    let names: Vec<&str> = inspection.sets.iter().map(|s| s.name.as_str()).collect();
    let mut page = Page::new(&format!("Data: {}", names.join(", ")));
    for (report, dataset) in inspection.sets.iter().zip(datasets) {
        set(&mut page, report, dataset, classes)?;
    }
    contradictions(&mut page, inspection);
    across(&mut page, inspection, datasets)?;
    Ok(page)
}

fn set(page: &mut Page, report: &SetReport, dataset: &Dataset, classes: &[String]) -> Result<(), ReportError> {
    page.section(&report.name);
    page.paragraph(&format!(
        "{} images, {} unlabelled, {} files left out, {} suspicious labels. Red, green, blue: mean {:.0?}, standard \
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
    if !report.own.is_empty() {
        let header = ["class in the labels", "objects", "counts as"].map(str::to_owned).to_vec();
        let rows = report.own.iter().map(|o| vec![o.class.clone(), o.objects.to_string(), o.mapped.clone()]);
        page.table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
    }
    if report.heat.iter().flatten().any(|&n| n > 0) {
        page.figure(&heat_map(&report.heat).svg()?, "Heat map of the boxes over the image");
    }
    if !report.faults.is_empty() {
        page.subsection("Files left out");
        let header = vec!["file".to_owned(), "why".to_owned()];
        let rows = report.faults.iter().map(|(path, why)| vec![path.display().to_string(), why.clone()]);
        page.table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
    }
    if !report.suspects.is_empty() {
        page.subsection(&format!("Suspicious labels ({} in all)", report.suspects.len()));
        let pictures = report.suspects.iter().take(SHOWN).filter_map(|s| {
            let mut image = load_image(&dataset.samples[s.sample].image).ok()?;
            let thickness = line(&image);
            draw_box(&mut image, &s.bbox, RED, thickness);
            Some((shrink(&image, PICTURE), format!("{}: {}", s.image, s.why)))
        });
        page.pictures(&pictures.collect::<Vec<_>>())?;
    }
    page.subsection("Sample images with their labels");
    let step = dataset.samples.len().div_ceil(SHOWN).max(1);
    let pictures = dataset.samples.iter().step_by(step).filter_map(|sample| {
        let mut image = load_image(&sample.image).ok()?;
        let thickness = line(&image);
        let boxes = sample.boxes.as_deref().unwrap_or_default();
        boxes.iter().for_each(|b| draw_box(&mut image, &b.bbox, GREEN, thickness));
        Some((shrink(&image, PICTURE), format!("{}: {}", sample.file_name(), named(boxes, classes))))
    });
    page.pictures(&pictures.collect::<Vec<_>>())
}

/// The number of boxes over each cell of the image, darker for more.
fn heat_map(counts: &[Vec<u32>]) -> Chart {
    let (columns, rows) = (counts.first().map_or(0, Vec::len), counts.len());
    let most = f64::from(*counts.iter().flatten().max().unwrap_or(&1)).max(1.0);
    let [x, y] = [0.0..columns as f64, rows as f64..0.0].map(|range| Axis::linear(range, "").with_ticks(Vec::new()));
    let mut chart =
        Chart::new("heat map of boxes", x, y).with_width(CELL * columns as u32).with_height(CELL * rows as u32);
    for (y, row) in counts.iter().enumerate() {
        for (x, &count) in row.iter().enumerate().filter(|(_, &count)| count > 0) {
            let (x, y) = (x as f64, y as f64);
            chart.rectangle(x..x + 1.0, y..y + 1.0, BLUE, f64::from(count) / most);
        }
    }
    chart
}

fn contradictions(page: &mut Page, inspection: &Inspection) {
    if inspection.contradictions.is_empty() {
        return;
    }
    page.section(&format!("Duplicates with different labels ({} pairs)", inspection.contradictions.len()));
    page.paragraph("Byte-identical images whose labels contradict each other: correct one, or delete it.");
    let header = vec!["image".to_owned(), "duplicate".to_owned()];
    let rows =
        inspection.contradictions.iter().map(|pair| pair.iter().map(|(set, file)| format!("{set}/{file}")).collect());
    page.table(&std::iter::once(header).chain(rows).collect::<Vec<_>>());
}

fn across(page: &mut Page, inspection: &Inspection, datasets: &[Dataset]) -> Result<(), ReportError> {
    let across: Vec<_> = inspection.across().collect();
    page.section(&format!("Near-duplicates in different data sets ({} pairs)", across.len()));
    page.paragraph(&format!("{} more pairs are within one data set.", inspection.alike.len() - across.len()));
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
        page.pictures(&pictures.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Thickness of a line that is two pixels wide once the image is shrunk.
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
