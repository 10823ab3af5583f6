//! `distill inspect`: what a data set holds, before days are spent on training with it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use image::imageops::{self, FilterType};
use image::RgbImage;
use indicatif::ProgressBar;
use rayon::prelude::*;
use serde::Serialize;

use super::data::{load_image, Dataset, OnError, OpenOptions};
use crate::student::package::write_atomically;

/// Columns and rows of the brightness steps that [`fingerprint`] keeps: 256 bits.
const GRID: u32 = 16;
/// Objects of less than 32² and of more than 96² pixels are small and large, as COCO counts them.
const SMALL_LARGE: [f32; 2] = [32.0 * 32.0, 96.0 * 96.0];
/// Pairs of alike images that the text lists; the JSON has all.
const LISTED: usize = 5;

/// Look through data sets: class balance, object sizes, colours, broken files, and images that two of them share.
///
/// Name every split at once, so that near-duplicates between training and validation images show.
/// Example: distill inspect data/street/train data/street/val --json report.json
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Data set folders.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// The dataset.toml to use instead of the one found.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Where to write everything as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Images are alike when at most so many of their fingerprints' 256 bits differ.
    #[arg(long, default_value_t = 20)]
    alike: u32,
}

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Inspection {
    pub sets: Vec<SetReport>,
    /// Images that look the same, the most alike first.
    pub alike: Vec<Alike>,
}

/// One data set.
#[derive(Debug, Clone, Serialize)]
pub struct SetReport {
    pub name: String,
    /// Of those that can be read.
    pub images: usize,
    /// Images of which nothing is known.
    pub unlabelled: usize,
    /// Student classes of which every object is labelled.
    pub labelled: Vec<String>,
    pub classes: BTreeMap<String, ClassReport>,
    /// Mean and standard deviation of red, green and blue over all pixels, 0…255.
    pub mean: [f64; 3],
    pub std: [f64; 3],
    /// Files that cannot be used, and why.
    pub faults: Vec<(PathBuf, String)>,
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
}

/// Two images that look the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Alike {
    /// Data set and file name of each.
    pub images: [(String, String); 2],
    /// Bits of the fingerprints that differ, of 256.
    pub distance: u32,
}

/// 256 bits that stay nearly the same under rescaling, recompression and changes of brightness.
pub type Fingerprint = [u64; 4];

/// What one image's pixels say.
struct Pixels {
    fingerprint: Fingerprint,
    /// Pixels, then for each channel the sum of values and of their squares.
    count: f64,
    sums: [[f64; 2]; 3],
}

/// Runs the command.
///
/// # Errors
/// When a folder or its description is unusable. Single files at fault are part of the report.
pub fn run(args: &InspectArgs) -> anyhow::Result<()> {
    let options = OpenOptions { config: args.config.clone(), on_error: OnError::Skip, ..Default::default() };
    let datasets =
        args.data.iter().map(|folder| Dataset::open_with(folder, &options)).collect::<Result<Vec<_>, _>>()?;
    let progress = ProgressBar::new(datasets.iter().map(|d| d.samples.len() as u64).sum());
    let inspection = inspect(&datasets, &options.classes, args.alike, &|| progress.inc(1));
    progress.finish_and_clear();
    print!("{}", text(&inspection));
    if let Some(path) = &args.json {
        write_atomically(path, &serde_json::to_vec_pretty(&inspection)?)?;
    }
    Ok(())
}

/// Decodes every image once, on all cores; calls `step` after each. `alike` is the most bits that may differ.
pub fn inspect(datasets: &[Dataset], classes: &[String], alike: u32, step: &(dyn Fn() + Sync)) -> Inspection {
    let (mut sets, mut prints) = (Vec::new(), Vec::new());
    for dataset in datasets {
        let read = |path: &Path| {
            let pixels = load_image(path).map(|image| look(&image));
            step();
            pixels
        };
        let pixels: Vec<_> = dataset.samples.par_iter().map(|s| read(&s.image)).collect();
        let mut report = describe(dataset, classes);
        let (mut count, mut sums) = (0.0, [[0.0; 2]; 3]);
        for (sample, pixels) in dataset.samples.iter().zip(pixels) {
            match pixels {
                Ok(pixels) => {
                    report.images += 1;
                    count += pixels.count;
                    sums.iter_mut().flatten().zip(pixels.sums.iter().flatten()).for_each(|(sum, v)| *sum += v);
                    prints.push(((dataset.name.clone(), sample.file_name().to_owned()), pixels.fingerprint));
                }
                Err(e) => report.faults.push((sample.image.clone(), e.to_string())),
            }
        }
        report.mean = sums.map(|[sum, _]| sum / count);
        report.std = sums.map(|[sum, squares]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt());
        sets.push(report);
    }
    let pairs = |i: usize| {
        let (name, print) = &prints[i];
        let others = prints[i + 1..].iter().map(move |(other, p)| (other, distance(print, p)));
        let found = others.filter(|(_, distance)| *distance <= alike);
        found.map(|(other, distance)| Alike { images: [name.clone(), other.clone()], distance }).collect::<Vec<_>>()
    };
    let mut alike: Vec<Alike> = (0..prints.len()).into_par_iter().flat_map_iter(pairs).collect();
    alike.sort_by(|a, b| (a.distance, &a.images).cmp(&(b.distance, &b.images)));
    Inspection { sets, alike }
}

/// All that needs no pixels.
fn describe(dataset: &Dataset, classes: &[String]) -> SetReport {
    let mut reports = vec![ClassReport::default(); classes.len()];
    for boxes in dataset.samples.iter().filter_map(|s| s.boxes.as_ref()) {
        for (class, report) in reports.iter_mut().enumerate() {
            let areas = boxes.iter().filter(|b| b.class == class).map(|b| b.bbox.area());
            let before = report.objects;
            for area in areas {
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
    let labelled = classes.iter().zip(&dataset.labelled).filter(|(_, &l)| l).map(|(c, _)| c.clone());
    SetReport {
        name: dataset.name.clone(),
        images: 0,
        unlabelled: dataset.samples.iter().filter(|s| s.boxes.is_none() && s.mask.is_none()).count(),
        labelled: labelled.collect(),
        classes: classes.iter().cloned().zip(reports).filter(|(_, r)| r.objects > 0).collect(),
        mean: [0.0; 3],
        std: [0.0; 3],
        faults: dataset.skipped.iter().map(|s| (s.path.clone(), s.reason.clone())).collect(),
    }
}

fn look(image: &RgbImage) -> Pixels {
    let mut sums = [[0u64; 2]; 3];
    for pixel in image.pixels() {
        for (sum, &value) in sums.iter_mut().zip(&pixel.0) {
            sum[0] += u64::from(value);
            sum[1] += u64::from(value) * u64::from(value);
        }
    }
    let count = f64::from(image.width()) * f64::from(image.height());
    Pixels { fingerprint: fingerprint(image), count, sums: sums.map(|s| s.map(|v| v as f64)) }
}

/// For each cell of a 16×16 grid, whether the one to its right is brighter ("difference hash").
pub fn fingerprint(image: &RgbImage) -> Fingerprint {
    let grey = imageops::grayscale(image);
    let grid = imageops::resize(&grey, GRID + 1, GRID, FilterType::Triangle);
    let mut bits = [0; 4];
    for y in 0..GRID {
        for x in 0..GRID {
            let at = (y * GRID + x) as usize;
            bits[at / 64] |= u64::from(grid.get_pixel(x + 1, y).0 > grid.get_pixel(x, y).0) << (at % 64);
        }
    }
    bits
}

/// Bits that differ.
pub fn distance(a: &Fingerprint, b: &Fingerprint) -> u32 {
    a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum()
}

fn text(inspection: &Inspection) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    for set in &inspection.sets {
        let (images, unlabelled, faults) = (set.images, set.unlabelled, set.faults.len());
        let _ = writeln!(text, "{}: {images} images, {unlabelled} unlabelled, {faults} files at fault", set.name);
        if !set.classes.is_empty() {
            let _ = writeln!(
                text,
                "  {:<14}{:>9}{:>9}{:>8}{:>8}{:>8}",
                "class", "objects", "images", "small", "medium", "large"
            );
        }
        for (class, c) in &set.classes {
            let _ = writeln!(
                text,
                "  {class:<14}{:>9}{:>9}{:>8}{:>8}{:>8}",
                c.objects, c.images, c.small, c.medium, c.large
            );
        }
        let round = |v: [f64; 3]| v.map(|v| v.round());
        let _ = writeln!(text, "  red, green, blue: mean {:?}, deviation {:?}", round(set.mean), round(set.std));
        for (path, why) in set.faults.iter().take(LISTED) {
            let _ = writeln!(text, "  {}: {why}", path.display());
        }
    }
    let across = |a: &&Alike| a.images[0].0 != a.images[1].0;
    let between: Vec<&Alike> = inspection.alike.iter().filter(across).collect();
    let within = inspection.alike.len() - between.len();
    let _ = writeln!(text, "pairs of alike images: {within} within a data set, {} between two", between.len());
    for pair in between.iter().take(LISTED) {
        let [a, b] = &pair.images;
        let _ = writeln!(text, "  {}/{} and {}/{}: {} bits of 256 differ", a.0, a.1, b.0, b.1, pair.distance);
    }
    text
}
