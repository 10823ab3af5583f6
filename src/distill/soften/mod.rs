//! `distill soften`: teachers look at every image once, and their soft targets go to disk.
//!
//! - `asked`: the teachers. - [`targets`], [`shard`]: what lies on disk, and how `distill student` reads it.

mod asked;
pub mod shard;
pub mod targets;

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::{sha256, write_atomically};
use peregrine_student::Architecture;

use super::data::{load_image, log_skipped, refuse_same_names, Dataset, OnError, OpenOptions, Sample, Skipped};
use asked::Teachers;

pub use targets::SoftTargets;
use targets::{Index, Shard, INDEX};

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
    /// A layer of the package to keep as it is for feature methods, such as neck.8.add; may be given several times. Of an
    /// ONNX teacher [features] of its description says what to keep.
    #[arg(long = "feature")]
    features: Vec<String>,
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
        config_path: args.config.clone(),
        on_error: if args.skip_bad { OnError::Skip } else { OnError::Stop },
        ..OpenOptions::default()
    };
    let open = |folder: &PathBuf| Dataset::open_with(folder, &options);
    let datasets = args.data.iter().map(open).collect::<Result<Vec<_>, _>>()?;
    refuse_same_names(args.data.iter().map(PathBuf::as_path).zip(&datasets))?;
    let mut teachers = Teachers::load(args, &student)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let path = args.out.join(INDEX);
    let mut index = teachers.index(&student);
    if path.exists() {
        let found = Index::read(&path)?;
        ensure!(
            found.teachers == index.teachers
                && found.classes == index.classes
                && found.segmentation == index.segmentation
                && found.features == index.features,
            "{}: holds soft targets of other teachers, of these by other descriptions, or other features; give another \
             --out, or delete it",
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
            let outputs = teachers.infer(samples, options.on_error, &progress)?;
            let bytes = shard::serialize(&outputs.soft_targets, index.classes.len());
            write_atomically(&args.out.join(&file), &bytes)?;
            index.shards.retain(|shard| shard.file != file);
            index.shards.push(Shard {
                file,
                sha256: sha256(&bytes),
                dataset: dataset.name.clone(),
                folder: folder.clone(),
                images: outputs.images,
                skipped: outputs.skipped.iter().map(|s| file_name(&s.path)).collect(),
            });
            write_atomically(&path, &serde_json::to_vec_pretty(&index)?)?;
            skipped.extend(outputs.skipped);
        }
    }
    progress.finish();
    log_skipped(&skipped);
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
