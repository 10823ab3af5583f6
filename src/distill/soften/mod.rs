//! `distill soften`: runs teachers once on every image, and stores their soft targets.
//!
//! - `teachers`: the teachers and the fusion of their outputs; `ahead`: the images that they will see next.
//! - `place`: a folder or an object store; `output`: what is written there; `partial`: the images of a
//!   shard that is not yet full; [`part`], [`merge`]: several machines.
//! - [`targets`]: soft targets as a training reads them; `index`, [`shard`]: the files; [`map`]: logits
//!   or features of an image; [`stored`]: soft targets whose maps stay on disk.

mod ahead;
mod index;
pub mod map;
pub mod merge;
mod output;
pub mod part;
mod partial;
mod place;
pub mod shard;
#[cfg(all(test, feature = "object-store"))]
mod store_tests;
pub mod stored;
pub mod targets;
mod teachers;

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::data::{log_skipped, refuse_same_names, Address, Dataset, OnError, OpenOptions, Sample, Skipped};
use super::lock::lock;
use super::log::show;
use super::meant::MeantStudent;
use super::teacher::{Compute, TeacherDevice};

use index::{Index, Shard, Share};
use output::Output;
use part::Part;
use partial::Partial;
use place::Place;
pub use targets::SoftTargets;
use teachers::Teachers;

const IMAGES_PER_SHARD: usize = 128;

/// Run teachers on images, and write their soft targets for `distill student`.
///
/// Example: distill soften --teacher models/teachers/nanodet_416.toml=nanodet_416.onnx --teacher
/// models/peregrine-s --out soft vehicles/train camvid/train
#[derive(Debug, Args)]
pub struct SoftenArgs {
    /// Data set folders, labelled or not, here or in an object store (s3://BUCKET/FOLDER).
    #[arg(required = true)]
    data: Vec<PathBuf>,
    /// A teacher as DESCRIPTION.toml=NETWORK.onnx, a detector, segmenter or classifier, or the folder
    /// of a Peregrine package, which gives boxes, masks and scenes, as it has heads (FOLDER:boxes,
    /// FOLDER:masks or FOLDER:scenes for one of them); several are averaged.
    #[arg(long = "teacher", required = true)]
    teachers: Vec<String>,
    /// A layer of the package whose features to store for feature distillation, such as neck.8.add;
    /// may be given several times. For an ONNX teacher see [features] of its description.
    #[arg(long = "feature")]
    features: Vec<String>,
    /// Show the teachers each image also mirrored, left to right, and average what they see of both:
    /// twice the time, a little more accuracy (test-time augmentation). Features are of the image
    /// as it is.
    #[arg(long)]
    flip: bool,
    /// Folder for the soft targets, here or in an object store (s3://BUCKET/FOLDER); an interrupted
    /// run is resumed.
    #[arg(long, short)]
    out: PathBuf,
    /// Only the shards of part I of N, numbered from 0, for one of several machines: 0/8 to 7/8, each
    /// with an --out of its own, and then distill merge. auto/N takes the number from
    /// SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX or HQ_TASK_ID.
    #[arg(long, value_name = "I/N")]
    shard: Option<Part>,
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
    /// Device that runs the teachers: packages by our own engine, ONNX by a CUDA build of ONNX Runtime.
    #[arg(long, value_enum, default_value_t)]
    device: TeacherDevice,
}

impl SoftenArgs {
    fn compute(&self) -> Compute {
        Compute { device: self.device, threads: self.threads }
    }
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file; what is done is kept.
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
    let index = Index { share: args.shard.map(|part| share(part, &datasets)), ..teachers.index(&student) };
    let place = Place::of(&args.out)?;
    // Before the index is read, which another process may be about to write.
    let _lock = lock(place.work_folder()?, "another distill")?;
    let mut output = Output::open(place, index)?;

    // Shards are numbered over all data sets.
    let mut number_of_all = 0..;
    let mut is_ours = || number_of_all.next().is_some_and(|number| args.shard.is_none_or(|part| part.has(number)));
    let chunks: Vec<Vec<(usize, &[Sample])>> = datasets
        .iter()
        .map(|d| d.samples.chunks(IMAGES_PER_SHARD).enumerate().filter(|_| is_ours()).collect())
        .collect();
    let total: usize = chunks.iter().flatten().map(|(_, samples)| samples.len()).sum();
    let style = "{bar:30} {pos}/{len} images, {per_sec:.1}, ETA {eta} {msg}";
    let progress = show(ProgressBar::new(total as u64).with_style(ProgressStyle::with_template(style)?));
    let mut skipped: Vec<Skipped> = datasets.iter().flat_map(|d| d.skipped.clone()).collect();
    for ((folder, dataset), chunks) in args.data.iter().zip(&datasets).zip(chunks) {
        progress.set_message(dataset.name.clone());
        let folder = Address::parse(folder).whole_path().with_context(|| folder.display().to_string())?;
        let folder = folder.display().to_string();
        for (number, samples) in chunks {
            let file = format!("{}-{number:04}.safetensors", dataset.name.replace('/', "-"));
            output.learn_of(&file)?;
            if let Some(done) = output.find(&dataset.name, samples) {
                skipped.extend(done.skipped.iter().map(|file| skipped_before(samples, file, "still cannot be read")));
                progress.inc(samples.len() as u64);
                progress.reset_eta();
                continue;
            }
            output.refuse_to_overwrite(&file, &folder, &dataset.name)?;
            let empty = Shard { file, dataset: dataset.name.clone(), folder: folder.clone(), ..Shard::default() };
            let mut partial = Partial::resume(&output, empty, samples)?;
            progress.inc(partial.len() as u64);
            progress.reset_eta();
            ahead::for_each(&samples[partial.len()..], |sample, image| {
                partial.push(sample, teachers.infer(sample, image, options.on_error)?);
                progress.inc(1);
                partial.keep_now_and_then(&output)
            })?;
            skipped.extend(partial.skipped.iter().cloned());
            partial.finish(&mut output)?;
        }
    }
    output.complete()?;
    progress.finish();
    log_skipped(&skipped);
    Ok(())
}

fn share(part: Part, datasets: &[Dataset]) -> Share {
    Share {
        part,
        datasets: datasets.iter().map(|d| d.name.clone()).collect(),
        shards: datasets.iter().map(|d| d.samples.len().div_ceil(IMAGES_PER_SHARD)).sum(),
        complete: false,
    }
}

/// The file of one of `samples` that an earlier run left out.
fn skipped_before(samples: &[Sample], file: &str, reason: &str) -> Skipped {
    let sample = samples.iter().find(|sample| sample.file_name() == file);
    let path = sample.map_or_else(|| PathBuf::from(file), |sample| sample.image.clone());
    Skipped { path, reason: reason.into() }
}
