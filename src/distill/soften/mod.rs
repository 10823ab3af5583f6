//! `distill soften`: teachers look at every image once, and their soft targets go to disk.
//!
//! - [`targets`]: what lies on disk, and how `distill student` reads it.

pub mod targets;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, ensure, Context};
use clap::Args;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};

use super::data::{load_image, refuse_namesakes, tell_left_out, Dataset, OnError, OpenOptions, Sample, Skipped};
use super::teacher::description::Family;
use super::teacher::{ensemble, Description, Opinion, PackageTeacher, Runtime, SoftMask, Teacher};
use crate::decode::mask::MASK_STRIDE;
use crate::student::package::{sha256, write_atomically};
use crate::student::Architecture;
pub use targets::SoftTargets;
use targets::{HalfMask, Index, Shard, Softened, INDEX};

const IMAGES_PER_SHARD: usize = 128;

/// Let teachers look at images, and write their soft targets for `distill student`.
///
/// Example: distill soften --teacher models/teachers/nanodet_416.toml=nanodet_416.onnx --teacher models/peregrine-s --out soft
/// vehicles/train camvid/train
#[derive(Debug, Args)]
pub struct SoftenArgs {
    /// Data set folders, labelled or not.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// A teacher as DESCRIPTION.toml=NETWORK.onnx, a detector or segmenter, or the folder of a Peregrine package, which is
    /// asked for boxes; several are averaged.
    #[arg(long = "teacher", required = true)]
    teachers: Vec<String>,
    /// Folder for the soft targets; an interrupted run goes on there.
    #[arg(long, short)]
    out: PathBuf,
    /// The dataset.toml to use instead of those found.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Leave out images that cannot be used, and say how many, instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    /// The libonnxruntime.so of an onnxruntime wheel; for teachers given as ONNX.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// Threads for each teacher.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// Each names the file at fault; shards already written stay.
pub fn run(args: &SoftenArgs) -> anyhow::Result<()> {
    let student = Architecture::default_student();
    let options = OpenOptions {
        config: args.config.clone(),
        on_error: if args.skip_bad { OnError::Skip } else { OnError::Stop },
        ..OpenOptions::default()
    };
    let open = |folder: &PathBuf| Dataset::open_with(folder, &options);
    let datasets = args.data.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    refuse_namesakes(args.data.iter().map(PathBuf::as_path).zip(&datasets))?;
    let mut teachers = Teachers::load(args, &student)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let path = args.out.join(INDEX);
    let mut index = teachers.index(&student);
    if path.exists() {
        let found = Index::read(&path)?;
        ensure!(
            found.teachers == index.teachers
                && found.classes == index.classes
                && found.segmentation == index.segmentation,
            "{}: holds soft targets of other teachers, or of these by other descriptions; give another --out, or delete it",
            args.out.display()
        );
        index = found;
    }

    let total: usize = datasets.iter().map(|d| d.samples.len()).sum();
    let style = "{bar:30} {pos}/{len} images, {per_sec:.1}, ETA {eta} {msg}";
    let progress = ProgressBar::new(total as u64).with_style(ProgressStyle::with_template(style)?);
    let mut skipped: Vec<Skipped> = datasets.iter().flat_map(|d| d.skipped.clone()).collect();
    for (folder, dataset) in args.data.iter().zip(&datasets) {
        progress.set_message(dataset.name.clone());
        let folder = std::fs::canonicalize(folder).with_context(|| folder.display().to_string())?;
        let folder = folder.display().to_string();
        for (number, samples) in dataset.samples.chunks(IMAGES_PER_SHARD).enumerate() {
            if let Some(done) =
                index.shards.iter().find(|shard| shard.dataset == dataset.name && is_done(shard, samples))
            {
                skipped.extend(done.skipped.iter().map(|file| left_out_before(samples, file)));
                progress.inc(samples.len() as u64);
                progress.reset_eta();
                continue;
            }
            let file = format!("{}-{number:04}.safetensors", dataset.name.replace('/', "-"));
            let elsewhere = |shard: &&Shard| shard.folder != folder && !shard.folder.is_empty();
            if let Some(other) = index.shards.iter().filter(|shard| shard.file == file).find(elsewhere) {
                bail!(
                    "{}: holds soft targets of another folder that is named {}, {}; give another --out, or another name \
                     in dataset.toml",
                    args.out.display(),
                    dataset.name,
                    other.folder
                );
            }
            let looked = teachers.look_at(samples, options.on_error, &progress)?;
            let bytes = targets::serialize(&looked.softened, index.classes.len());
            write_atomically(&args.out.join(&file), &bytes)?;
            index.shards.retain(|shard| shard.file != file);
            index.shards.push(Shard {
                file,
                sha256: sha256(&bytes),
                dataset: dataset.name.clone(),
                folder: folder.clone(),
                images: looked.images,
                skipped: looked.skipped.iter().map(|s| file_name(&s.path)).collect(),
            });
            write_atomically(&path, &serde_json::to_vec_pretty(&index)?)?;
            skipped.extend(looked.skipped);
        }
    }
    progress.finish();
    tell_left_out(&skipped);
    Ok(())
}

/// Whether a shard holds all of `samples` but those that still cannot be read.
fn is_done(shard: &Shard, samples: &[Sample]) -> bool {
    let has = |sample: &Sample| {
        let name = |file: &String| file == sample.file_name();
        shard.images.iter().any(name) || (shard.skipped.iter().any(name) && load_image(&sample.image).is_err())
    };
    shard.images.len() + shard.skipped.len() == samples.len() && samples.iter().all(has)
}

fn left_out_before(samples: &[Sample], file: &str) -> Skipped {
    let sample = samples.iter().find(|sample| sample.file_name() == file);
    let path = sample.map_or_else(|| PathBuf::from(file), |sample| sample.image.clone());
    Skipped { path, reason: "still cannot be read".into() }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// All that are asked.
struct Teachers {
    all: Vec<AnyTeacher>,
    /// For each detector and detection class of the student's, whether it knows it.
    detectors: Vec<Vec<bool>>,
    /// The same of segmenters and segmentation classes.
    segmenters: Vec<Vec<bool>>,
    /// The student's input, whose cells masks are brought to.
    input: (usize, usize),
}

/// A teacher of either kind.
enum AnyTeacher {
    Onnx(Teacher),
    Package(PackageTeacher),
}

/// What the teachers made of some images, and the images that could not be read.
struct Looked {
    images: Vec<String>,
    softened: Vec<Softened>,
    skipped: Vec<Skipped>,
}

impl Teachers {
    fn load(args: &SoftenArgs, student: &Architecture) -> anyhow::Result<Self> {
        let input = (student.input.width, student.input.height);
        let mut teachers = Self { all: Vec::new(), detectors: Vec::new(), segmenters: Vec::new(), input };
        let detection = &student.detection.classes;
        let mut runtime = None;
        for teacher in &args.teachers {
            let Some((description, network)) = teacher.split_once('=') else {
                let folder = Path::new(teacher);
                ensure!(
                    folder.is_dir(),
                    "--teacher {teacher}: write DESCRIPTION.toml=NETWORK.onnx, or the folder of a package"
                );
                let package = PackageTeacher::load(folder, detection, args.threads)?;
                teachers.detectors.push(vec![true; detection.len()]);
                teachers.all.push(AnyTeacher::Package(package));
                continue;
            };
            let description = Description::read(Path::new(description))?;
            let (family, name) = (description.family, description.name.clone());
            ensure!(
                family != Family::ClassLogits,
                "--teacher {teacher}: a classifier does not say where anything is; give a detector or a segmenter"
            );
            let classes = if family == Family::PixelLogits { &student.segmentation.classes } else { detection };
            let library = args.onnxruntime.as_deref().unwrap_or(Path::new("libonnxruntime.so"));
            if runtime.is_none() {
                runtime = Some(Runtime::open(library)?);
            }
            let runtime = runtime.as_ref().context("opened just above")?;
            let onnx = Teacher::load(runtime, Path::new(network), description, classes, args.threads)?;
            if family == Family::PixelLogits {
                let unknown: Vec<&str> = classes
                    .iter()
                    .zip(onnx.knows())
                    .filter(|(_, knows)| !knows)
                    .map(|(class, _)| class.as_str())
                    .collect();
                if !unknown.is_empty() {
                    eprintln!("{name} maps nothing to {}: by its masks there is none of that", unknown.join(", "));
                }
                teachers.segmenters.push(onnx.knows());
            } else {
                teachers.detectors.push(onnx.knows());
            }
            teachers.all.push(AnyTeacher::Onnx(onnx));
        }
        Ok(teachers)
    }

    /// An index without shards.
    fn index(&self, student: &Architecture) -> Index {
        let identity = |teacher: &AnyTeacher| match teacher {
            AnyTeacher::Onnx(t) => (t.description.name.clone(), t.identity()),
            AnyTeacher::Package(t) => (t.name.clone(), t.identity.clone()),
        };
        let classes = &student.detection.classes;
        let known = classes.iter().enumerate().filter(|(class, _)| self.detectors.iter().any(|known| known[*class]));
        Index {
            teachers: self.all.iter().map(identity).collect(),
            classes: classes.to_vec(),
            known: Some(known.map(|(_, name)| name.clone()).collect()),
            segmentation: (!self.segmenters.is_empty()).then(|| student.segmentation.classes.clone()),
            shards: Vec::new(),
        }
    }

    fn look_at(&mut self, samples: &[Sample], on_error: OnError, progress: &ProgressBar) -> anyhow::Result<Looked> {
        let mut looked = Looked { images: Vec::new(), softened: Vec::new(), skipped: Vec::new() };
        for sample in samples {
            progress.inc(1);
            let image = match load_image(&sample.image) {
                Err(e) if on_error == OnError::Skip => {
                    looked.skipped.push(Skipped { path: sample.image.clone(), reason: e.to_string() });
                    continue;
                }
                image => image?,
            };
            looked.softened.push(self.soften(&image)?);
            looked.images.push(sample.file_name().to_owned());
        }
        Ok(looked)
    }

    fn soften(&mut self, image: &RgbImage) -> anyhow::Result<Softened> {
        let (mut boxes, mut masks) = (Vec::new(), Vec::new());
        for teacher in &mut self.all {
            match teacher {
                AnyTeacher::Package(t) => boxes.push(t.look(image)?),
                AnyTeacher::Onnx(t) => match t.opinion(image)? {
                    Opinion::Boxes(seen) => boxes.push(seen),
                    Opinion::Pixels(mask) => masks.push(mask),
                    Opinion::Image(_) => bail!("{} gives neither boxes nor masks", t.description.name),
                },
            }
        }
        let (columns, rows) = self.cells(image);
        let mask = || HalfMask::from(&SoftMask::mean(&masks, &self.segmenters, columns, rows));
        Ok(Softened {
            boxes: ensemble::fuse(&boxes, &self.detectors),
            mask: (!masks.is_empty()).then(|| Arc::new(mask())),
        })
    }

    /// Cells of the student's mask that the whole image covers when it fills the input, across and down.
    fn cells(&self, image: &RgbImage) -> (usize, usize) {
        let (width, height) = (f64::from(image.width()), f64::from(image.height()));
        let scale = (self.input.0 as f64 / width).min(self.input.1 as f64 / height) / MASK_STRIDE as f64;
        let cells = |side: f64| ((side * scale).round() as usize).max(1);
        (cells(width), cells(height))
    }
}
