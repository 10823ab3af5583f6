//! `distill soften`: runs teachers once on every image, and stores their soft targets.
//!
//! - `teachers`: the teachers and the fusion of their outputs.
//! - [`targets`], [`shard`]: the files; [`map`]: logits or features of an image; [`stored`]: soft
//!   targets whose maps stay on disk.

pub mod map;
pub mod shard;
pub mod stored;
pub mod targets;
mod teachers;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::{sha256, write_atomically};

use super::data::{
    load_image, log_skipped, refuse_same_names, Address, Dataset, OnError, OpenOptions, Sample, Skipped,
};
use super::log::show;
use super::meant::MeantStudent;

use shard::ImageSoftTargets;
pub use targets::SoftTargets;
use targets::{Index, Shard, INDEX};
use teachers::Teachers;

const IMAGES_PER_SHARD: usize = 128;

/// Run teachers on images, and write their soft targets for `distill student`.
///
/// Example: distill soften --teacher models/teachers/nanodet_416.toml=nanodet_416.onnx --teacher
/// models/peregrine-s --out soft vehicles/train camvid/train
#[derive(Debug, Args)]
pub struct SoftenArgs {
    /// Data set folders, labelled or not.
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// A teacher as DESCRIPTION.toml=NETWORK.onnx, a detector or segmenter, or the folder of a
    /// Peregrine package, which gives boxes; several are averaged.
    #[arg(long = "teacher", required = true)]
    teachers: Vec<String>,
    /// A layer of the package whose features to store for feature distillation, such as neck.8.add;
    /// may be given several times. For an ONNX teacher see [features] of its description.
    #[arg(long = "feature")]
    features: Vec<String>,
    /// Folder for the soft targets; an interrupted run is resumed.
    #[arg(long, short)]
    out: PathBuf,
    #[command(flatten)]
    student: MeantStudent,
    /// The dataset.toml to use instead of those found, or builtin:NAME.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Skip invalid images, and report their number, instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    /// The libonnxruntime.so of an onnxruntime wheel; for teachers given as ONNX.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// Threads per teacher.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file; shards already written are kept.
pub fn run(args: &SoftenArgs) -> anyhow::Result<()> {
    let student = args.student.architecture()?;
    let options = OpenOptions {
        config_path: args.config.clone(),
        on_error: if args.skip_bad { OnError::Skip } else { OnError::Stop },
        ..OpenOptions::of(&student)
    };
    let open = |folder: &PathBuf| Dataset::open_with(folder, &options);
    let datasets = args.data.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    refuse_same_names(args.data.iter().map(PathBuf::as_path).zip(&datasets))?;
    let mut teachers = Teachers::load(args, &student)?;
    let mut output = Output::open(&args.out, teachers.index(&student))?;

    let total: usize = datasets.iter().map(|d| d.samples.len()).sum();
    let style = "{bar:30} {pos}/{len} images, {per_sec:.1}, ETA {eta} {msg}";
    let progress = show(ProgressBar::new(total as u64).with_style(ProgressStyle::with_template(style)?));
    let mut skipped: Vec<Skipped> = datasets.iter().flat_map(|d| d.skipped.clone()).collect();
    for (folder, dataset) in args.data.iter().zip(&datasets) {
        progress.set_message(dataset.name.clone());
        let folder =
            std::fs::canonicalize(Address::parse(folder).path).with_context(|| folder.display().to_string())?;
        let folder = folder.display().to_string();
        for (number, samples) in dataset.samples.chunks(IMAGES_PER_SHARD).enumerate() {
            if let Some(done) = output.find(&dataset.name, samples) {
                skipped.extend(done.skipped.iter().map(|file| skipped_before(samples, file)));
                progress.inc(samples.len() as u64);
                progress.reset_eta();
                continue;
            }
            let file = format!("{}-{number:04}.safetensors", dataset.name.replace('/', "-"));
            output.refuse_other_folder(&file, &folder, &dataset.name)?;
            let outputs = teachers.infer(samples, options.on_error, &progress)?;
            let shard = Shard {
                file,
                sha256: String::new(),
                dataset: dataset.name.clone(),
                folder: folder.clone(),
                images: outputs.images,
                hashes: outputs.hashes,
                skipped: outputs.skipped.iter().filter_map(|s| name_of(samples, &s.path)).collect(),
            };
            output.write(shard, &outputs.soft_targets)?;
            skipped.extend(outputs.skipped);
        }
    }
    progress.finish();
    log_skipped(&skipped);
    Ok(())
}

/// A folder of soft targets that is being written.
struct Output<'a> {
    folder: &'a Path,
    index: Index,
}

impl<'a> Output<'a> {
    /// Opens a new folder, or resumes an existing one whose index equals `index` except for its
    /// shards.
    ///
    /// # Errors
    /// When the existing index is another one, or a file cannot be read or written.
    fn open(folder: &'a Path, index: Index) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let path = folder.join(INDEX);
        if !path.exists() {
            return Ok(Self { folder, index });
        }
        let found = Index::read(&path)?;
        ensure!(
            found.teachers == index.teachers
                && found.classes == index.classes
                && found.segmentation == index.segmentation
                && found.features == index.features,
            "{}: contains soft targets of other teachers, other descriptions or other features; give another --out, or delete it",
            folder.display()
        );
        Ok(Self { folder, index: found })
    }

    /// The shard of these samples, if it is done.
    fn find(&self, dataset: &str, samples: &[Sample]) -> Option<&Shard> {
        self.index.shards.iter().find(|shard| shard.dataset == dataset && is_done(shard, samples))
    }

    /// Refuses to overwrite a shard of another folder of the same name.
    fn refuse_other_folder(&self, file: &str, folder: &str, dataset: &str) -> anyhow::Result<()> {
        let elsewhere = |shard: &&Shard| shard.file == file && shard.folder != folder && !shard.folder.is_empty();
        if let Some(other) = self.index.shards.iter().find(elsewhere) {
            bail!(
                "{}: contains soft targets of another folder with the name {dataset}, {}; give another --out, or \
                 another name in dataset.toml",
                self.folder.display(),
                other.folder
            );
        }
        Ok(())
    }

    /// Writes a shard, then the index with its hash.
    fn write(&mut self, shard: Shard, soft_targets: &[ImageSoftTargets]) -> anyhow::Result<()> {
        let bytes = shard::serialize(soft_targets, self.index.classes.len())?;
        write_atomically(&self.folder.join(&shard.file), &bytes)?;
        self.index.shards.retain(|other| other.file != shard.file);
        self.index.shards.push(Shard { sha256: sha256(&bytes), ..shard });
        Ok(write_atomically(&self.folder.join(INDEX), &serde_json::to_vec_pretty(&self.index)?)?)
    }
}

/// Whether a shard has all of `samples`, of the very same images, except those that still cannot be
/// read.
fn is_done(shard: &Shard, samples: &[Sample]) -> bool {
    let has = |sample: &Sample| {
        let name = |file: &String| file == sample.file_name();
        match shard.images.iter().position(name) {
            Some(at) => std::fs::read(&sample.image).is_ok_and(|bytes| shard.hashes.get(at) == Some(&sha256(&bytes))),
            None => shard.skipped.iter().any(name) && load_image(&sample.image).is_err(),
        }
    };
    shard.images.len() + shard.skipped.len() == samples.len() && samples.iter().all(has)
}

fn skipped_before(samples: &[Sample], file: &str) -> Skipped {
    let sample = samples.iter().find(|sample| sample.file_name() == file);
    let path = sample.map_or_else(|| PathBuf::from(file), |sample| sample.image.clone());
    Skipped { path, reason: "still cannot be read".into() }
}

fn name_of(samples: &[Sample], image: &Path) -> Option<String> {
    samples.iter().find(|sample| sample.image == image).map(|sample| sample.file_name().to_owned())
}
