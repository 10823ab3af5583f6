//! `distill evaluate`: evaluation of a package on labelled images.
//!
//! - [`observe`]: runs the student over the images, through the node's pipeline.
//! - [`report`]: the metrics; [`scene`]: those of scenes. - [`mistakes`]: pictures of the worst errors.

pub mod mistakes;
pub mod observe;
pub mod report;
pub mod scene;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use peregrine_pipeline::PipelineOptions;
use peregrine_student::{Architecture, Student};
use peregrine_vision::decode::NmsIou;
use tracing::{info, warn};

use super::data::config::{DatasetConfig, SegmentationLabels};
use super::data::{copies, log_skipped, Dataset, OnError, OpenOptions};
use super::export::parse_size;
use super::log::show;
use super::meant::MeantStudent;
use super::model_args::ModelArgs;
use super::soften::SoftTargets;
use super::teacher::description::Family;
use super::teacher::{Compute, OnnxTeacher, Runtime, TeacherDescription};

pub use report::Evaluation;

/// Minimum score of a student's detections.
pub const STUDENT_SCORE: f32 = 0.01;
/// Minimum score of a teacher's detections.
const TEACHER_SCORE: f32 = 0.001;

/// How a student is run to be judged: with all that it finds from a score on, more than any image shows, and each class
/// by itself, as AP is counted.
pub fn judged(score_threshold: f32, threads: usize) -> PipelineOptions {
    let usual = PipelineOptions::default();
    PipelineOptions {
        score_threshold,
        nms: NmsIou::by_class(usual.nms.same_class),
        max_detections: 300,
        threads,
        ..usual
    }
}

/// Evaluate a student on labelled images: AP50, AP, AP by size, mIoU, accuracy of scenes,
/// calibration, and its worst errors.
///
/// A folder has images/ and labels/ (YOLO text, or masks with one byte per pixel). Its classes are
/// defined by dataset.toml in it or its parent, by --config, or by --classes / --mask-classes. Only
/// classes that the data set labels are scored. Masks are compared at the labels' size, each pixel
/// with its nearest cell.
///
/// Example: distill evaluate data/vehicles/val --model models/peregrine-s --json out.json
/// --pictures mistakes
#[derive(Debug, Args)]
pub struct EvaluateArgs {
    /// Data set folder: images/ and labels/.
    #[arg(value_name = "FOLDER", required_unless_present = "data_flag")]
    data: Option<PathBuf>,
    /// Data set folder, as a flag.
    #[arg(long = "data", value_name = "FOLDER", id = "data_flag", conflicts_with = "data")]
    data_flag: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Evaluate a teacher, given as DESCRIPTION.toml=NETWORK.onnx, on the classes of --student
    /// instead: its own detections, every class of a box apart.
    #[arg(long, conflicts_with_all = ["model", "input", "record"])]
    teacher: Option<String>,
    /// Evaluate soft targets, on the classes of --student, instead: what all teachers of `distill
    /// soften` together made of these images, and so what a student is taught.
    #[arg(long, value_name = "SOFT", conflicts_with_all = ["model", "input", "record", "teacher"])]
    soft_targets: Option<PathBuf>,
    #[command(flatten)]
    student: MeantStudent,
    /// For --teacher: the libonnxruntime.so of an onnxruntime wheel.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// The dataset.toml to use instead of the one found, or builtin:NAME.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Instead of a dataset.toml: classes of the YOLO label files by index, comma-separated. Those
    /// that are not the student's are background.
    #[arg(long, value_delimiter = ',', conflicts_with = "config")]
    classes: Vec<String>,
    /// Instead of a dataset.toml: classes of the masks' bytes, comma-separated. Those that are not
    /// the student's are void.
    #[arg(long, value_delimiter = ',', conflicts_with_all = ["config", "classes"])]
    mask_classes: Vec<String>,
    /// Leave out the images that are labelled as these scenes (scene.csv, folders by class, or scene
    /// in dataset.toml), comma-separated.
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    exclude_scene: Vec<String>,
    /// Write the metrics as JSON to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Folder for mistakes.html, with pictures of the worst errors.
    #[arg(long)]
    pictures: Option<PathBuf>,
    /// Number of errors of each kind on the page.
    #[arg(long, default_value_t = 24)]
    worst: usize,
    /// Record the metrics in the package's manifest.
    #[arg(long, requires = "model", conflicts_with = "input")]
    record: bool,
    /// Evaluate byte-identical images only once.
    #[arg(long)]
    distinct: bool,
    /// Input size as WIDTHxHEIGHT, multiples of 32; the student's own by default.
    #[arg(long, value_parser = parse_size)]
    input: Option<(usize, usize)>,
    /// Count of two boxes of different classes that overlap by more than this IoU only the better
    /// one, as the node does (cross_class_nms_iou); 1: each class by itself, as AP is usually counted.
    #[arg(long, default_value_t = 1.0, value_name = "IOU")]
    cross_class_nms_iou: f32,
    /// Minimum score of the detections; 0.01 by default, and 0.001 for teachers, as COCO's
    /// evaluations of networks have it.
    #[arg(long)]
    score_threshold: Option<f32>,
    /// Skip invalid images instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file.
pub fn run(args: &EvaluateArgs) -> anyhow::Result<()> {
    let folder = args.data.as_ref().or(args.data_flag.as_ref()).context("name a data set folder")?;
    let mut student = args.model.student()?;
    if args.teacher.is_some() || args.soft_targets.is_some() {
        student.manifest.architecture = args.student.architecture()?;
    }
    let architecture = &mut student.manifest.architecture;
    if let Some((width, height)) = args.input {
        (architecture.input.width, architecture.input.height) = (width, height);
    }
    let mut teacher = args.teacher.as_ref().map(|text| load_teacher(args, text, architecture)).transpose()?;
    if let Some(teacher) = &teacher {
        let size = teacher.description.size;
        (architecture.input.width, architecture.input.height) = (size.width as usize, size.height as usize);
        student.manifest.name.clone_from(&teacher.description.name);
    }
    let soft_targets = args.soft_targets.as_ref().map(|folder| open_soft_targets(folder, architecture)).transpose()?;
    if let Some(soft_targets) = &soft_targets {
        student.manifest.name = soft_targets.teachers.join(" + ");
    }
    let architecture = &student.manifest.architecture;
    let on_error = if args.skip_bad { OnError::Skip } else { OnError::Stop };
    let options = OpenOptions {
        config_path: args.config.clone(),
        config: config_of_flags(args, folder),
        on_error,
        ..OpenOptions::of(architecture)
    };
    let mut dataset = Dataset::open_with(folder, &options)?;
    if let Some(config) = &options.config {
        let known = config.classes.iter().any(|c| options.classes.contains(c))
            || config.segmentation.iter().flat_map(|s| &s.classes).any(|c| options.segmentation.contains(c));
        ensure!(
            known,
            "none of the given classes is the student's; it has {} and, in masks, {}",
            options.classes.join(", "),
            options.segmentation.join(", ")
        );
    }
    let copies = copies(&[&dataset])?;
    let contradicting = copies.iter().filter(|copy| !copy.same_labels).count();
    if contradicting > 0 {
        warn!("{contradicting} images have duplicates with different labels; `distill inspect` lists them");
    }
    log_skipped(&dataset.skipped);
    if args.distinct {
        let mut index = 0..;
        dataset.samples.retain(|_| {
            let index = index.next().unwrap_or(0);
            !copies.iter().any(|copy| copy.copy.1 == index)
        });
    }
    exclude_scenes(&mut dataset, &args.exclude_scene)?;
    let of_teachers = teacher.is_some() || soft_targets.is_some();
    let usual = if of_teachers { TEACHER_SCORE } else { STUDENT_SCORE };
    let score_threshold = args.score_threshold.unwrap_or(usual);
    let mut options = judged(score_threshold, args.threads);
    options.nms.across_classes = args.cross_class_nms_iou;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} images, {per_sec:.1}, ETA {eta}")?;
    let progress = show(ProgressBar::new(dataset.samples.len() as u64).with_style(style));
    let step = || progress.inc(1);
    let observations = match (&mut teacher, &soft_targets) {
        (Some(teacher), _) => observe::observe_teacher(teacher, &dataset, score_threshold, on_error, &step)?,
        (None, Some(soft)) => observe::observe_soft_targets(soft, &dataset, score_threshold, on_error, &step)?,
        (None, None) => observe::observe(&student, &dataset, options, on_error, &step)?,
    };
    progress.finish_and_clear();
    let (name, architecture) = (&student.manifest.name, &student.manifest.architecture);
    let mut evaluation = Evaluation::of(name, architecture, &dataset, &observations);
    (evaluation.copies, evaluation.distinct) = (copies.len(), args.distinct);
    evaluation.input = evaluation.input.filter(|_| soft_targets.is_none());
    print!("{}", evaluation.table());
    if let Some(path) = &args.json {
        write_atomically(path, &serde_json::to_vec_pretty(&evaluation)?)?;
    }
    if let Some(folder) = &args.pictures {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let architecture = &student.manifest.architecture;
        let page = mistakes::page(&evaluation, &dataset, &observations, architecture, args.worst)?;
        let path = folder.join("mistakes.html");
        page.write(&path)?;
        println!("worst errors: {}", path.display());
    }
    if let (true, Some(folder)) = (args.record, &args.model.model) {
        evaluation.record(&mut student.manifest);
        student.save(folder)?;
    }
    Ok(())
}

/// Runs every labelled sample through the pipeline and computes the metrics; calls `step` after
/// each.
///
/// # Errors
/// When nothing is labelled or the pipeline cannot be built; and, with [`OnError::Stop`], at the
/// first invalid image.
pub fn evaluate(
    student: &Student,
    dataset: &Dataset,
    options: PipelineOptions,
    on_error: OnError,
    step: &dyn Fn(),
) -> anyhow::Result<Evaluation> {
    let observations = observe::observe(student, dataset, options, on_error, step)?;
    Ok(Evaluation::of(&student.manifest.name, &student.manifest.architecture, dataset, &observations))
}

/// Leaves out the samples that are labelled as one of the scenes `excluded`.
///
/// # Errors
/// When no sample is labelled as one of them, or none is left.
fn exclude_scenes(dataset: &mut Dataset, excluded: &[String]) -> anyhow::Result<()> {
    let known: BTreeSet<&String> = dataset.samples.iter().flat_map(|sample| &sample.scene.names).collect();
    if let Some(unknown) = excluded.iter().find(|class| !known.contains(class)) {
        let known: Vec<&str> = known.into_iter().map(String::as_str).collect();
        let has = if known.is_empty() {
            "no image has a scene".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        bail!("{}: --exclude-scene {unknown}: no image is labelled so; {has}", dataset.name);
    }
    let before = dataset.samples.len();
    dataset.samples.retain(|sample| !sample.scene.names.iter().any(|name| excluded.contains(name)));
    ensure!(!dataset.samples.is_empty(), "{}: --exclude-scene leaves no image", dataset.name);
    if !excluded.is_empty() {
        info!(
            "{}: {} of {before} images left out as {}",
            dataset.name,
            before - dataset.samples.len(),
            excluded.join(", ")
        );
    }
    Ok(())
}

fn load_teacher(args: &EvaluateArgs, text: &str, architecture: &Architecture) -> anyhow::Result<OnnxTeacher> {
    let (description, network) =
        text.split_once('=').with_context(|| format!("--teacher {text}: write DESCRIPTION.toml=NETWORK.onnx"))?;
    let description = TeacherDescription::read(Path::new(description))?;
    let library = args.onnxruntime.as_ref().context("--teacher needs --onnxruntime or ORT_DYLIB_PATH")?;
    let classes = match description.family {
        Family::PixelLogits => architecture.segmentation_classes().to_vec(),
        Family::ClassLogits => architecture.scene.as_ref().map_or_else(Vec::new, |head| head.classes()),
        _ => architecture.detection_classes().to_vec(),
    };
    OnnxTeacher::load(&Runtime::open(library)?, Path::new(network), description, &classes, Compute::cpu(args.threads))
}

/// The soft targets in `folder`.
///
/// # Errors
/// When they cannot be read, or are not of the classes of `architecture`.
fn open_soft_targets(folder: &Path, architecture: &Architecture) -> anyhow::Result<SoftTargets> {
    let soft = SoftTargets::open(folder)?;
    let (classes, segmentation) = (architecture.detection_classes(), architecture.segmentation_classes());
    let other = if soft.classes != classes {
        Some((&soft.classes[..], classes))
    } else {
        soft.segmentation.as_deref().map(|soft| (soft, segmentation)).filter(|(soft, meant)| soft != meant)
    };
    if let Some((soft, meant)) = other {
        bail!(
            "{}: soft targets of {}, where the student has {}; name the student that they were made for with --student",
            folder.display(),
            soft.join(", "),
            meant.join(", ")
        );
    }
    ensure!(
        soft.scene.as_ref().is_none_or(|scene| architecture.scene.as_ref() == Some(scene)),
        "{}: the scenes of the soft targets are not those of the student; name it with --student",
        folder.display()
    );
    Ok(soft)
}

/// The configuration that the class flags stand for; `None` without them.
fn config_of_flags(args: &EvaluateArgs, folder: &Path) -> Option<DatasetConfig> {
    if args.classes.is_empty() && args.mask_classes.is_empty() {
        return None;
    }
    let segmentation = (!args.mask_classes.is_empty()).then(|| SegmentationLabels {
        classes: args.mask_classes.clone(),
        void: Some(u8::MAX),
        colours: None,
    });
    let name = folder.file_name().map_or("data".into(), |n| n.to_string_lossy().into_owned());
    Some(DatasetConfig { segmentation, ..DatasetConfig::of_classes(&name, &args.classes) })
}
