//! `distill select`: which of many unlabelled frames are worth labelling.
//!
//! - [`frames`]: the frames. - [`models`]: the networks that look at them. - [`disagreement`]: how
//!   much two of them disagree. - [`analysis`]: what they make of each frame, kept on disk.
//! - [`choose`](mod@choose): the choice, by one of two rules. - [`output`], [`page`]: what is written.

pub mod analysis;
pub mod choose;
pub mod disagreement;
pub mod frames;
pub mod models;
pub mod output;
pub mod page;

use std::path::PathBuf;

use anyhow::{ensure, Context};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use super::data::{image_size, log_skipped, Skipped};
use super::lock::lock;
use super::log::show;
use analysis::Analysis;
use choose::coverage::Coverage;
use choose::farthest::Farthest;
use choose::features::standardised;
use choose::{at_random, choose, values, Candidate, Rule};
use frames::Frame;
use models::Models;
use output::{reason, Selected, Selection};

/// How frames are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// The frames that stand best for all others, by the student's features.
    Coverage,
    /// The frames that student and teachers disagree about most, far from each other.
    Disagreement,
    /// At random, to compare with; needs no networks.
    Random,
}

/// Select the frames that are most worth labelling: those that stand best for all others, or those
/// that student and teachers disagree about.
///
/// Writes to --out: selected.txt and selected.json (each frame's scores and reason), images/,
/// annotations.json (the teachers' boxes as COCO labels, to be corrected in CVAT or another tool)
/// and selection.html, a contact sheet. An interrupted run goes on where it was; another --budget
/// or --seed needs no second look at the frames.
///
/// Example: distill select drive/images --budget 200 --model runs/first/student --teacher
/// models/teachers/nanodet_416.toml=nanodet_416.onnx --out selected
#[derive(Debug, Args)]
pub struct SelectArgs {
    /// Folders of frames; images/ in them, if there is one.
    #[arg(required = true, value_name = "FOLDER")]
    frames: Vec<PathBuf>,
    /// Number of frames to select.
    #[arg(long)]
    budget: usize,
    /// The student's package: the one that is to learn from the frames.
    #[arg(long)]
    model: Option<PathBuf>,
    /// A teacher as DESCRIPTION.toml=NETWORK.onnx, or the folder of a package; may be given several
    /// times. Coverage needs none: they give the boxes of annotations.json.
    #[arg(long = "teacher")]
    teachers: Vec<String>,
    /// Folder for the selection.
    #[arg(long, short)]
    out: PathBuf,
    #[arg(long, value_enum, default_value = "coverage")]
    strategy: Strategy,
    /// Frames are near-copies if at most this many of their fingerprints' 256 bits differ.
    #[arg(long, default_value_t = 20)]
    alike: u32,
    /// Teachers' boxes from this score on become labels in annotations.json.
    #[arg(long, default_value_t = 0.3)]
    label_score: f32,
    /// Decides between equal frames, and which are drawn at random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Skip invalid images instead of stopping.
    #[arg(long)]
    skip_bad: bool,
    /// The libonnxruntime.so of an onnxruntime wheel; for teachers given as ONNX.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
    /// Threads per network.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file; what was analysed is kept.
pub fn run(args: &SelectArgs) -> anyhow::Result<()> {
    ensure!(args.budget > 0, "--budget 0: select at least one frame");
    let (frames, mut skipped) = frames::list(&args.frames)?;
    std::fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let _lock = lock(&args.out, "another selection")?;
    let (selected, near_copies, classes) = match args.strategy {
        Strategy::Coverage | Strategy::Disagreement => by_networks(args, &frames, &mut skipped)?,
        Strategy::Random => (randomly(args, &frames)?, Vec::new(), Vec::new()),
    };
    let selection = Selection {
        strategy: args.strategy.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned()),
        seed: args.seed,
        budget: args.budget,
        frames: frames.len(),
        near_copies,
        skipped: skipped.iter().map(|s| (s.path.clone(), s.reason.clone())).collect(),
        classes,
        selected,
    };
    selection.write(&args.out, args.label_score)?;
    let page = args.out.join("selection.html");
    page::page(&selection, args.label_score)?.write(&page)?;
    log_skipped(&skipped);
    println!("{}", summary(&selection));
    println!("contact sheet: {}", page.display());
    Ok(())
}

/// The selected frames, near-copies with the frames they resemble, and the classes.
type Outcome = (Vec<Selected>, Vec<(String, String)>, Vec<String>);

fn by_networks(args: &SelectArgs, frames: &[Frame], skipped: &mut Vec<Skipped>) -> anyhow::Result<Outcome> {
    let model = args.model.as_ref().context("--model is missing: name the package of the student")?;
    ensure!(
        args.strategy == Strategy::Coverage || !args.teachers.is_empty(),
        "--teacher is missing: name at least one, to compare the student with (or leave out --strategy disagreement)"
    );
    let mut models = Models::load(model, &args.teachers, args.onnxruntime.as_ref(), args.threads)?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} frames, {per_sec:.1}, ETA {eta}")?;
    let progress = show(ProgressBar::new(frames.len() as u64).with_style(style));
    let (analyses, bad) = analysis::analyse(frames, &mut models, &args.out, args.skip_bad, &progress)?;
    progress.finish_and_clear();
    skipped.extend(bad);
    let usable: Vec<(&Frame, &Analysis)> =
        frames.iter().zip(&analyses).filter_map(|(frame, a)| Some((frame, a.as_ref()?))).collect();
    ensure!(!usable.is_empty(), "none of the {} frames could be read", frames.len());
    let candidate = |(_, a): &(&Frame, &Analysis)| Candidate {
        disagreements: a.disagreements,
        features: a.features.clone(),
        fingerprint: a.fingerprint,
    };
    let candidates: Vec<Candidate> = usable.iter().map(candidate).collect();
    let choice = choose(&candidates, rule(args, &candidates).as_mut(), args.budget, args.alike);
    let selected = |chosen: &choose::Chosen| {
        let (frame, analysis) = usable[chosen.index];
        Selected {
            file: frame.name.clone(),
            path: frame.path.clone(),
            size: analysis.size,
            student_disagreement: (!args.teachers.is_empty()).then_some(analysis.disagreements[0]),
            teacher_disagreement: (args.teachers.len() > 1).then_some(analysis.disagreements[1]),
            value: (!args.teachers.is_empty()).then_some(chosen.value),
            distance: chosen.distance,
            nearer: chosen.nearer,
            reason: reason(analysis.disagreements, chosen),
            objects: analysis.objects.clone(),
        }
    };
    let name = |i: usize| usable[i].0.name.clone();
    let copies = choice.copies.iter().map(|&(copy, of)| (name(copy), name(of))).collect();
    Ok((choice.chosen.iter().map(selected).collect(), copies, models.classes))
}

fn rule(args: &SelectArgs, candidates: &[Candidate]) -> Box<dyn Rule> {
    let (features, values) = (standardised(candidates), values(candidates, args.seed));
    match args.strategy {
        Strategy::Disagreement => Box::new(Farthest::new(features, values)),
        _ => Box::new(Coverage::new(features, values, args.seed)),
    }
}

fn randomly(args: &SelectArgs, frames: &[Frame]) -> anyhow::Result<Vec<Selected>> {
    let of = |i: usize| {
        let frame = &frames[i];
        Ok(Selected {
            file: frame.name.clone(),
            path: frame.path.clone(),
            size: image_size(&frame.path)?,
            student_disagreement: None,
            teacher_disagreement: None,
            value: None,
            distance: None,
            nearer: None,
            reason: "at random".into(),
            objects: Vec::new(),
        })
    };
    at_random(frames.len(), args.budget, args.seed).into_iter().map(of).collect()
}

fn summary(selection: &Selection) -> String {
    let (count, frames) = (selection.selected.len(), selection.frames);
    let copies = selection.near_copies.len();
    let fewer = if count < selection.budget {
        format!(" (fewer than the budget of {}: there are no others)", selection.budget)
    } else {
        String::new()
    };
    format!("selected {count} of {frames} frames{fewer}; {copies} near-copies passed over")
}
