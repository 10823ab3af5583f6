//! `distill inspect`: statistics and errors of a data set, before training on it.
//!
//! - [`alike`]: near-duplicate images. - [`suspects`]: probably wrong labels. - [`html`]: the
//!   report.

pub mod alike;
pub mod html;
pub mod suspects;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde::Serialize;

use super::data::config::Mapped;
use super::data::layout::splits;
use super::data::{copies, load_image, ClassObjects, DataError, Dataset, OnError, OpenOptions, Sample};
use crate::log::show;
use crate::meant::MeantStudent;
pub use alike::{distance, fingerprint, Alike, Fingerprint};
use peregrine_core::files::write_atomically;
use suspects::Suspect;

/// Objects of less than 32² and of more than 96² pixels are small and large, as COCO counts them.
const SMALL_LARGE: [f32; 2] = [32.0 * 32.0, 96.0 * 96.0];
/// Most files, labels and pairs listed in the text; the JSON has all.
const LISTED: usize = 5;
/// Columns and rows of the heat map of boxes.
const HEAT: (usize, usize) = (32, 24);

/// Inspect data sets: class balance, object sizes, colours, files left out, suspicious labels,
/// near-duplicates.
///
/// Give all splits at once, so that near-duplicates between training and validation are found.
///
/// Example: distill inspect data/street/train data/street/val --json report.json --html report.html
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Data sets in any layout that is read (docs/training.md#data); of several splits, all are
    /// taken.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    #[command(flatten)]
    student: MeantStudent,
    /// The dataset.toml to use instead of the one found, or builtin:NAME.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Write the report as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Write the report as an HTML page with pictures to this file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Images are near-duplicates if at most this many of their fingerprints' 256 bits differ.
    #[arg(long, default_value_t = 20)]
    alike: u32,
}

/// The report.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    pub sets: Vec<SetReport>,
    /// Near-duplicates, the most similar first.
    pub alike: Vec<Alike>,
    /// Byte-identical images with different labels: data set and file name of each.
    pub contradictions: Vec<[(String, String); 2]>,
}

/// One data set.
#[derive(Debug, Clone, Serialize)]
pub struct SetReport {
    pub name: String,
    /// The layout that was read: "COCO JSON".
    pub layout: String,
    /// The data set's own classes.
    pub own: Vec<OwnClass>,
    /// Number of readable images.
    pub images: usize,
    /// Number of unlabelled images.
    pub unlabelled: usize,
    /// Student classes of which every object is labelled.
    pub labelled: Vec<String>,
    pub classes: BTreeMap<String, ClassReport>,
    /// Mean and standard deviation of red, green and blue over all pixels, 0…255.
    pub mean: [f64; 3],
    pub std: [f64; 3],
    /// Files that cannot be used, and why.
    pub faults: Vec<(PathBuf, String)>,
    /// Labels that are valid but probably wrong.
    pub suspects: Vec<Suspect>,
    /// Heat map: the number of boxes over each cell of the image, 24 rows of 32 columns.
    pub heat: Vec<Vec<u32>>,
    /// Fraction of the masks' pixels by segmentation class, including void.
    pub pixels: BTreeMap<String, f64>,
}

/// A class of the label files.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OwnClass {
    pub class: String,
    pub objects: usize,
    /// The student's class that it maps to, `ignore` or `background`.
    pub mapped: String,
}

/// One class's labelled objects.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ClassReport {
    pub objects: usize,
    /// Images with at least one.
    pub images: usize,
    pub small: usize,
    pub medium: usize,
    pub large: usize,
    /// 10th, 50th and 90th percentile of √area in pixels.
    pub side: [f32; 3],
    /// Median of width over height.
    pub aspect: f32,
}

/// Statistics of one image's pixels.
struct Pixels {
    fingerprint: Fingerprint,
    /// Number of pixels, and for each channel the sum of values and of squares.
    count: f64,
    sums: [[f64; 2]; 3],
    /// Pixels of the mask by student class, the last for void; empty without a mask.
    mask: Vec<u64>,
}

/// Runs the command.
///
/// # Errors
/// When a folder or its configuration is unusable. Invalid files are part of the report.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let student = args.student.architecture()?;
    let options =
        OpenOptions { config_path: args.config.clone(), on_error: OnError::Skip, ..OpenOptions::of(&student) };
    let splits = args.data.iter().map(|name| splits(name)).collect::<Result<Vec<_>, _>>()?.concat();
    let datasets = splits.iter().map(|split| Dataset::open_with(split, &options)).collect::<Result<Vec<_>, _>>()?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {per_sec:.0}, ETA {eta}")?;
    let count = datasets.iter().map(|d| d.samples.len() as u64).sum();
    let progress = show(ProgressBar::new(count).with_style(style));
    let inspection = inspect(&datasets, &options.classes, args.alike, &|| progress.inc(1))?;
    progress.finish_and_clear();
    print!("{}", text(&inspection));
    if let Some(path) = &args.json {
        write_atomically(path, &serde_json::to_vec_pretty(&inspection)?)?;
    }
    if let Some(path) = &args.html {
        html::page(&inspection, &datasets, &options.classes)?.write(path)?;
        println!("report: {}", path.display());
    }
    Ok(())
}

/// Decodes every image once, on all cores; calls `step` after each. `alike` is the largest Hamming
/// distance of near-duplicates.
///
/// # Errors
/// When an image has disappeared since its data set was opened.
pub fn inspect(
    datasets: &[Dataset],
    classes: &[String],
    alike: u32,
    step: &(dyn Fn() + Sync),
) -> Result<Inspection, DataError> {
    let (mut sets, mut prints) = (Vec::new(), Vec::new());
    for dataset in datasets {
        let read = |sample: &Sample| {
            let pixels = pixel_statistics(dataset, sample);
            step();
            pixels
        };
        let pixels: Vec<_> = dataset.samples.par_iter().map(read).collect();
        let mut report = label_statistics(dataset, classes);
        let (mut count, mut sums, mut mask) = (0.0, [[0.0; 2]; 3], vec![0; dataset.mask_names().len() + 1]);
        for (sample, pixels) in dataset.samples.iter().zip(pixels) {
            match pixels {
                Ok(pixels) => {
                    report.images += 1;
                    count += pixels.count;
                    sums.iter_mut().flatten().zip(pixels.sums.iter().flatten()).for_each(|(sum, v)| *sum += v);
                    mask.iter_mut().zip(&pixels.mask).for_each(|(sum, n)| *sum += n);
                    prints.push(((dataset.name.clone(), sample.file_name().to_owned()), pixels.fingerprint));
                }
                Err(e) => report.faults.push((sample.image.clone(), e.reason())),
            }
        }
        report.mean = sums.map(|[sum, _]| sum / count);
        report.std = sums.map(|[sum, squares]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt());
        let all: u64 = mask.iter().sum();
        let names = dataset.mask_names().iter().cloned().chain(["void".to_owned()]);
        report.pixels = names.zip(mask).filter(|(_, n)| *n > 0).map(|(c, n)| (c, n as f64 / all as f64)).collect();
        sets.push(report);
    }
    let named = |(set, sample): (usize, usize)| {
        let dataset = &datasets[set];
        (dataset.name.clone(), dataset.samples[sample].file_name().to_owned())
    };
    let copies = copies(&datasets.iter().collect::<Vec<_>>())?;
    let contradictions = copies.iter().filter(|c| !c.same_labels).map(|c| [c.first, c.copy].map(named)).collect();
    Ok(Inspection { sets, alike: alike::pairs(&prints, alike), contradictions })
}

impl Inspection {
    /// The near-duplicates in different data sets.
    pub fn across(&self) -> impl Iterator<Item = &Alike> {
        self.alike.iter().filter(|a| a.images[0].0 != a.images[1].0)
    }
}

impl SetReport {
    fn class_rows(&self) -> Vec<Vec<String>> {
        let header = ["class", "objects", "images", "small", "medium", "large", "side 10 %", "50 %", "90 %", "w/h"];
        let row = |(class, c): (&String, &ClassReport)| {
            let counts = [c.objects, c.images, c.small, c.medium, c.large].map(|n| n.to_string());
            let sides = c.side.map(|v| format!("{v:.0}"));
            [&[class.clone()][..], &counts, &sides, &[format!("{:.1}", c.aspect)]].concat()
        };
        std::iter::once(header.map(str::to_owned).to_vec()).chain(self.classes.iter().map(row)).collect()
    }

    fn pixel_rows(&self) -> Vec<Vec<String>> {
        let row = |(class, share): (&String, &f64)| vec![class.clone(), format!("{:.1}", 100.0 * share)];
        std::iter::once(vec!["class".into(), "% of pixels".into()]).chain(self.pixels.iter().map(row)).collect()
    }
}

/// The statistics that need no pixels.
fn label_statistics(dataset: &Dataset, classes: &[String]) -> SetReport {
    let mut reports = vec![ClassReport::default(); classes.len()];
    let (mut sides, mut aspects) = (vec![Vec::new(); classes.len()], vec![Vec::new(); classes.len()]);
    for boxes in dataset.samples.iter().filter_map(|s| s.boxes.as_ref()) {
        for (class, report) in reports.iter_mut().enumerate() {
            let of_class = boxes.iter().filter(|b| b.class == class).map(|b| b.bbox);
            let before = report.objects;
            for bbox in of_class {
                let area = bbox.area();
                sides[class].push(area.sqrt());
                aspects[class].push(bbox.width() / bbox.height());
                report.objects += 1;
                match SMALL_LARGE.iter().filter(|&&limit| area >= limit).count() {
                    0 => report.small += 1,
                    1 => report.medium += 1,
                    _ => report.large += 1,
                }
            }
            report.images += usize::from(report.objects > before);
        }
    }
    for (report, (sides, aspects)) in reports.iter_mut().zip(sides.iter_mut().zip(&mut aspects)) {
        report.side = [0.1, 0.5, 0.9].map(|share| quantile(sides, share));
        report.aspect = quantile(aspects, 0.5);
    }
    let labelled = classes.iter().zip(&dataset.labelled).filter(|(_, &l)| l).map(|(c, _)| c.clone());
    SetReport {
        name: dataset.name.clone(),
        layout: dataset.layout.to_owned(),
        own: own_classes(dataset, classes),
        images: 0,
        unlabelled: dataset.samples.iter().filter(|s| s.boxes.is_none() && s.mask.is_none()).count(),
        labelled: labelled.collect(),
        classes: classes.iter().cloned().zip(reports).filter(|(_, r)| r.objects > 0).collect(),
        mean: [0.0; 3],
        std: [0.0; 3],
        faults: dataset.skipped.iter().map(|s| (s.path.clone(), s.reason.clone())).collect(),
        suspects: suspects::find(dataset, classes),
        heat: heat(dataset),
        pixels: BTreeMap::new(),
    }
}

fn own_classes(dataset: &Dataset, classes: &[String]) -> Vec<OwnClass> {
    let mapped = |mapped| match mapped {
        Mapped::Student(class) => classes[class].clone(),
        Mapped::Ignore => "ignore".into(),
        Mapped::Background => "background".into(),
    };
    let of =
        |own: &ClassObjects| OwnClass { class: own.class.clone(), objects: own.objects, mapped: mapped(own.mapped) };
    dataset.objects.iter().map(of).collect()
}

fn quantile(values: &mut [f32], share: f64) -> f32 {
    values.sort_by(f32::total_cmp);
    values.get(((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// The number of boxes over the centre of each cell.
fn heat(dataset: &Dataset) -> Vec<Vec<u32>> {
    let (columns, rows) = HEAT;
    let mut heat = vec![vec![0; columns]; rows];
    for sample in &dataset.samples {
        for b in sample.boxes.iter().flatten().map(|a| a.bbox) {
            let covered = |low: f32, high: f32, size: u32, cells: usize| {
                let at = |v: f32| (v / size as f32 * cells as f32).round().clamp(0.0, cells as f32) as usize;
                at(low)..at(high)
            };
            let across = covered(b.x_min, b.x_max, sample.size.0, columns);
            for row in covered(b.y_min, b.y_max, sample.size.1, rows) {
                heat[row][across.clone()].iter_mut().for_each(|n| *n += 1);
            }
        }
    }
    heat
}

fn pixel_statistics(dataset: &Dataset, sample: &Sample) -> Result<Pixels, DataError> {
    let image = load_image(&sample.image)?;
    let mut mask = Vec::new();
    if let Some(path) = &sample.mask {
        let classes = dataset.mask_names().len();
        mask.resize(classes + 1, 0);
        dataset.load_mask(path)?.iter().for_each(|&byte| mask[usize::from(byte).min(classes)] += 1);
    }
    Ok(Pixels { mask, ..colours(&image) })
}

fn colours(image: &RgbImage) -> Pixels {
    let mut sums = [[0u64; 2]; 3];
    for pixel in image.pixels() {
        for (sum, &value) in sums.iter_mut().zip(&pixel.0) {
            sum[0] += u64::from(value);
            sum[1] += u64::from(value) * u64::from(value);
        }
    }
    let count = f64::from(image.width()) * f64::from(image.height());
    Pixels { fingerprint: fingerprint(image), count, sums: sums.map(|s| s.map(|v| v as f64)), mask: Vec::new() }
}

fn text(inspection: &Inspection) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for set in &inspection.sets {
        let (images, unlabelled, faults) = (set.images, set.unlabelled, set.faults.len());
        let _ = writeln!(text, "{}: {images} images, {unlabelled} unlabelled, {faults} files left out", set.name);
        let _ = writeln!(text, "  read as {}", set.layout);
        for own in set.own.iter().filter(|own| own.objects > 0 && own.class != own.mapped) {
            let _ = writeln!(text, "  {} labelled {:?} count as {}", own.objects, own.class, own.mapped);
        }
        for rows in [set.class_rows(), set.pixel_rows()].into_iter().filter(|rows| rows.len() > 1) {
            for row in rows {
                let cells: String = row[1..].iter().map(|cell| format!("{cell:>11}")).collect();
                let _ = writeln!(text, "  {:<14}{cells}", row[0]);
            }
        }
        let round = |v: [f64; 3]| v.map(|v| v.round());
        let _ =
            writeln!(text, "  red, green, blue: mean {:?}, standard deviation {:?}", round(set.mean), round(set.std));
        for (path, why) in set.faults.iter().take(LISTED) {
            let path = path.display().to_string();
            let why = if why.starts_with(&path) { why.clone() } else { format!("{path}: {why}") };
            let _ = writeln!(text, "  {why}");
        }
        if set.faults.len() > LISTED {
            let _ = writeln!(text, "  and {} more; --json lists all", set.faults.len() - LISTED);
        }
        if !set.suspects.is_empty() {
            let _ = writeln!(text, "  suspicious labels: {}, such as", set.suspects.len());
        }
        for suspect in set.suspects.iter().take(LISTED) {
            let _ = writeln!(text, "    {}: {}", suspect.image, suspect.why);
        }
    }
    if !inspection.contradictions.is_empty() {
        let _ = writeln!(text, "duplicates with different labels: {}, such as", inspection.contradictions.len());
    }
    for [a, b] in inspection.contradictions.iter().take(LISTED) {
        let _ = writeln!(text, "  {}/{} and {}/{}", a.0, a.1, b.0, b.1);
    }
    let between: Vec<&Alike> = inspection.across().collect();
    let within = inspection.alike.len() - between.len();
    let _ =
        writeln!(text, "near-duplicates: {within} pairs within a data set, {} pairs between data sets", between.len());
    for pair in between.iter().take(LISTED) {
        let [a, b] = &pair.images;
        let _ = writeln!(text, "  {}/{} and {}/{}: {} bits of 256 differ", a.0, a.1, b.0, b.1, pair.distance);
    }
    text
}
