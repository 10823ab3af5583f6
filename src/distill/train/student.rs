//! `distill student`: the run, from a configuration to a package that the node loads.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::batches::Pictures;
use super::checkpoint::State;
use super::config::StudentConfig;
use super::optimizer::AdamW;
use super::step::{Losses, Teaching};
use crate::distill::loss::segmentation;
use crate::distill::net::{NetParams, TrainNet};
use crate::distill::soften::SoftTargets;
use crate::student::manifest::{Manifest, Training, WeightsFile, FORMAT_VERSION};
use crate::student::package::{deserialize, sha256, write_atomically};
use crate::student::{Architecture, Student};

const CHECKPOINT: &str = "checkpoint.safetensors";

/// Train a student on labels and a teacher's soft targets, into a package that the node loads.
///
/// The run folder receives the configuration as used, log.jsonl (a line every ten steps), a checkpoint and the package
/// `student/` (the weights' moving average). Started again with the same folder it goes on where it was.
#[derive(Debug, Args)]
pub struct StudentArgs {
    /// Configuration, TOML (see models/peregrine-s/train.toml).
    config: PathBuf,
    /// Folder of the run; made where absent.
    #[arg(long, short, default_value = "target/runs/student")]
    run: PathBuf,
    /// Start over, even if the folder holds a checkpoint.
    #[arg(long)]
    fresh: bool,
    /// Go on from the checkpoint although the configuration has changed; the log notes the step.
    #[arg(long, conflicts_with = "fresh")]
    reconfigure: bool,
    /// Threads for the training itself [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
}

#[derive(Serialize)]
struct LogLine {
    step: u64,
    rate: f64,
    gradient_norm: f32,
    loss: f32,
    #[serde(flatten)]
    terms: Losses,
}

/// Runs the command.
///
/// # Errors
/// Each names the file or field at fault; the last good checkpoint stays on disk.
pub fn run(args: &StudentArgs) -> anyhow::Result<()> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")?;
    }
    let config = StudentConfig::read(&args.config)?;
    let architecture = Architecture::default_student();
    let (mut net, initialised_from) = build(&config, &architecture)?;
    let mut average = net.params.clone();
    let mut optimizer = AdamW::default();

    fs::create_dir_all(&args.run).with_context(|| args.run.display().to_string())?;
    let config_text = toml::to_string(&config).context("the configuration cannot be written back")?;
    let checkpoint = args.run.join(CHECKPOINT);
    let mut done = 0;
    if checkpoint.exists() && !args.fresh {
        let mut state = State { step: 0, params: &mut net.params, average: &mut average, optimizer: &mut optimizer };
        let expected = (!args.reconfigure).then_some(config_text.as_str());
        done = state.load(&checkpoint, expected).with_context(|| checkpoint.display().to_string())?;
    }
    write_atomically(&args.run.join("config.toml"), config_text.as_bytes())?;
    let mut log = OpenOptions::new()
        .create(true)
        .append(done > 0)
        .write(true)
        .truncate(done == 0)
        .open(args.run.join("log.jsonl"))
        .context("cannot write the log")?;

    if args.reconfigure {
        writeln!(log, "{}", serde_json::json!({ "step": done, "reconfigured": config }))?;
    }

    let soft = config.soft_targets.as_deref().map(SoftTargets::open).transpose()?;
    let pictures = Pictures::load(&config, architecture.detection.classes.len(), soft.as_ref())?;
    let origin = Training {
        command: "distill student train.toml".into(),
        data: config.data.iter().map(|d| last_two(&d.folder)).collect(),
        teachers: soft.map(|s| s.teachers).unwrap_or_default(),
        initialised_from,
        steps: 0,
        seed: config.seed,
    };
    eprintln!("{} images; {} parameters; steps {done} to {}", pictures.len(), net.graph.parameters(), config.steps);
    let weights = segmentation::class_weights(pictures.mask_bytes(), architecture.segmentation.classes.len());
    let teaching = Teaching::new(&architecture, weights);
    let batches = pictures.start(done, config.clone(), architecture.input.clone())?;

    let progress = progress(config.steps, done);
    for batch in batches {
        net.params.zero_gradients();
        let losses = teaching.gradients(&mut net, &batch, &config)?;
        if !losses.total().is_finite() {
            bail!(
                "the loss of step {} is not finite ({losses:?}), on a batch that begins with {}; the checkpoint of an \
                 earlier step is in {}: lower learning_rate or clip and go on from it",
                batch.step,
                batch.files[0].display(),
                checkpoint.display()
            );
        }
        let rate = config.rate_at(batch.step);
        let norm = optimizer.update(&mut net.params, rate, config.weight_decay, config.clip);
        follow(&mut average, &mut net.params, config.ema.min((batch.step + 1) as f64 / (batch.step + 10) as f64));

        let step = batch.step + 1;
        if step % 10 == 0 || step == config.steps {
            let line = LogLine { step, rate, gradient_norm: norm, loss: losses.total(), terms: losses };
            writeln!(log, "{}", serde_json::to_string(&line)?).context("cannot write the log")?;
        }
        progress.set_position(step);
        progress.set_message(format!(
            "loss {:.2}: class {:.2} teacher {:.2} box {:.2} sides {:.2} mask {:.2}",
            losses.total(),
            losses.class,
            losses.teacher,
            losses.bbox,
            losses.sides,
            losses.segmentation
        ));
        if step % config.checkpoint_every == 0 || step == config.steps {
            let mut state = State { step, params: &mut net.params, average: &mut average, optimizer: &mut optimizer };
            state.save(&checkpoint, &config_text)?;
            let training = Training { steps: step, ..origin.clone() };
            export(&average, &config, &architecture, training, &args.run.join("student"))?;
        }
    }
    progress.finish();
    eprintln!("the student is in {}", args.run.join("student").display());
    Ok(())
}

/// The network with its starting weights, and where those came from.
fn build(config: &StudentConfig, architecture: &Architecture) -> anyhow::Result<(TrainNet, String)> {
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let mut params = NetParams::random(&graph, config.seed);
    let mut initialised_from = "random".into();
    if let Some(path) = &config.init {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        let weights = deserialize(&bytes).map_err(anyhow::Error::msg).with_context(|| path.display().to_string())?;
        let taken = params.adopt(&weights);
        ensure!(taken > 0, "{}: holds no layer of this student's backbone", path.display());
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        initialised_from = format!("{file} (sha256 {})", sha256(&bytes));
        for conv in params.convs.iter_mut().filter(|c| weights.0.contains_key(&c.name)) {
            conv.rate = config.backbone_rate;
            let stage = conv.name.strip_prefix("backbone.").and_then(|n| n.split('.').next());
            let index = stage.map(|s| if s == "stem" { 0 } else { s.parse().map_or(usize::MAX, |s: usize| s + 1) });
            conv.frozen = index.is_some_and(|i| i < config.frozen_stages);
        }
    }
    Ok((TrainNet::new(graph, params, config.batch), initialised_from))
}

/// `average = decay · average + (1 − decay) · params`, running statistics included.
fn follow(average: &mut NetParams, params: &mut NetParams, decay: f64) {
    let keep = decay as f32;
    for ((_, average), (_, now)) in average.state().into_iter().zip(params.state()) {
        average.iter_mut().zip(now).for_each(|(a, n)| *a = keep * *a + (1.0 - keep) * *n);
    }
}

/// Writes the package of the folded `params`.
fn export(
    params: &NetParams,
    config: &StudentConfig,
    architecture: &Architecture,
    training: Training,
    folder: &Path,
) -> anyhow::Result<()> {
    let mut student = Student {
        manifest: Manifest {
            format_version: FORMAT_VERSION,
            name: config.name.clone(),
            architecture: architecture.clone(),
            weights: WeightsFile { file: "weights.safetensors".into(), sha256: String::new() },
            training,
            quantization: None,
            accuracy: Default::default(),
            notice: config.notice.clone(),
        },
        weights: params.fold(),
        quantization: None,
    };
    Ok(student.save(folder)?)
}

/// The last two parts of a path: `vehicles/train`.
fn last_two(path: &Path) -> String {
    let parts: Vec<_> = path.iter().collect();
    parts[parts.len().saturating_sub(2)..].iter().collect::<PathBuf>().display().to_string()
}

fn progress(steps: u64, done: u64) -> ProgressBar {
    let bar = ProgressBar::new(steps).with_position(done);
    let style = "{bar:30} {pos}/{len} {per_sec:.1} ETA {eta} {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("the template is well-formed"));
    bar.reset_eta();
    bar
}
