//! The run, from a configuration to a package that the node loads.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use peregrine_student::manifest::Training;
use peregrine_student::presets::Preset;
use peregrine_student::{Architecture, Student};
use serde::Serialize;

use super::batches::{Batch, Pictures};
use super::checkpoint::State;
use super::config::StudentConfig;
use super::device::TrainDevice;
use super::distillation::{Distillation, Teacher};
use super::init;
use super::log::Log;
use super::online::TeacherConfig;
use super::optimizer::Optimizer;
use super::origin::Origins;
use super::published::Published;
use super::quantized::Quantized;
use super::step::{Losses, Teaching};
use crate::lock::lock;
use crate::loss::segmentation;
use crate::net::fake::FakeQuantization;
use crate::net::{NetParams, TrainNet};
use crate::soften::SoftTargets;

const CHECKPOINT: &str = "checkpoint.safetensors";
const LOG: &str = "log.jsonl";

/// What a training is started with.
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Configuration, TOML (see models/peregrine-s/train.toml).
    config: PathBuf,
    /// Folder of the run; made where absent [default: target/runs/student, target/runs/teacher].
    #[arg(long, short)]
    run: Option<PathBuf>,
    /// Start over, even if the folder holds a checkpoint.
    #[arg(long)]
    fresh: bool,
    /// Go on from the checkpoint although the configuration or the data has changed; log.jsonl and origin.json note it.
    #[arg(long, conflicts_with = "fresh")]
    reconfigure: bool,
    /// Threads for the training itself [default: all cores].
    #[arg(long)]
    threads: Option<usize>,
    /// Where the network is computed; a run may go on elsewhere than it began.
    #[arg(long, value_enum, default_value_t)]
    device: TrainDevice,
}

/// What the network in training is to be; its package lies in the run's folder under that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Student,
    Teacher,
}

impl Role {
    pub fn name(self) -> &'static str {
        match self {
            Self::Student => "student",
            Self::Teacher => "teacher",
        }
    }
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

/// Trains.
///
/// # Errors
/// Each names the file or field at fault; the last good checkpoint stays on disk.
pub fn train(args: &TrainArgs, role: Role) -> anyhow::Result<()> {
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("cannot start the threads")?;
    }
    let config = StudentConfig::read(&args.config)?;
    if role == Role::Teacher && config.backbone.is_none() && !config.init.as_ref().is_some_and(|path| path.is_dir()) {
        bail!(
            "{}: a teacher needs `backbone = ` one of {}, or the package of one as init",
            args.config.display(),
            Preset::LITE
                .into_iter()
                .chain(Preset::RESNET)
                .map(|p| format!("{p:?}").to_lowercase())
                .collect::<Vec<_>>()
                .join(", ")
        );
    }
    ensure!(
        config.teacher.is_none() || !config.methods.is_empty(),
        "{}: [teacher] needs a [[method]]: what the student is to take from it",
        args.config.display()
    );
    let run = args.run.clone().unwrap_or_else(|| Path::new("target/runs").join(role.name()));
    let device = args.device.open(config.quantized_as.is_some())?;
    let architecture = config.architecture();
    let quantized = config.quantized_as.as_deref().map(|folder| Quantized::load(folder, &architecture)).transpose()?;
    let (mut net, initialised_from) = build(&config, &architecture, quantized.as_ref())?;
    let mut average = net.params.clone();
    let mut optimizer = Optimizer::new(config.optimizer, config.momentum);

    fs::create_dir_all(&run).with_context(|| run.display().to_string())?;
    let _only = lock(&run, "another training")?;
    let config_text = toml::to_string(&config).context("the configuration cannot be written back")?;
    let checkpoint = run.join(CHECKPOINT);
    let mut done = 0;
    if checkpoint.exists() && !args.fresh {
        let mut state = State { step: 0, params: &mut net.params, average: &mut average, optimizer: &mut optimizer };
        let expected = (!args.reconfigure).then_some(config_text.as_str());
        done = state.load(&checkpoint, expected).with_context(|| checkpoint.display().to_string())?;
    }
    let datasets = config.open_data(&architecture)?;
    Origins::note(&config, &datasets, &run, done, args.reconfigure)?;
    write_atomically(&run.join("config.toml"), config_text.as_bytes())?;
    let log_path = run.join(LOG);
    let mut log = Log::open(&log_path, done)?;
    if args.reconfigure {
        log.add(&serde_json::json!({ "step": done, "reconfigured": config }))?;
    }

    let open = |folder: &Path| SoftTargets::open_with(folder, &|layer| config.takes_feature(layer));
    let soft = config.soft_targets.as_deref().map(open).transpose()?;
    if let Some(soft) = &soft {
        tell_unused(soft, &config);
    }
    let (distillation, teacher) = Distillation::prepare(&config, &net, soft.as_ref())?.unzip();
    let (mut ahead, mut within, mut layers) = (None, None, Vec::new());
    match teacher {
        Some(Teacher::Package(teacher)) => ahead = Some(teacher),
        Some(Teacher::Average(teacher)) => within = Some(teacher),
        Some(Teacher::Offline(grids)) => layers = grids,
        None => {}
    }
    let pictures = Pictures::load(&config, &datasets, &architecture, soft.as_ref(), &layers)?;
    let training = Training {
        command: format!("distill {} train.toml", role.name()),
        data: config.data.iter().map(|d| last_two(&d.folder)).collect(),
        teachers: teachers(&config, soft.as_ref())?,
        initialised_from,
        steps: 0,
        seed: config.seed,
    };
    let package = run.join(role.name());
    let published = Published {
        config: &config,
        architecture: &architecture,
        quantized: quantized.as_ref(),
        training,
        package: &package,
        log: &log_path,
        curves: &run.join("curves.svg"),
    };
    if done >= config.steps {
        // Killed between its last checkpoint and its package, a run has no step left that would write it.
        published.write(&average, done)?;
    }
    eprintln!(
        "{} images; {} parameters; steps {done} to {}, on {}",
        pictures.len(),
        net.graph.parameters(),
        config.steps,
        if device.is_some() { "CUDA" } else { "the CPU" }
    );
    let weights = segmentation::class_weights(pictures.mask_bytes(), architecture.segmentation.classes.len());
    if let Some(device) = device {
        net = net.on(device, &distillation.iter().flat_map(Distillation::layers).collect::<Vec<_>>());
    }
    let teaching = Teaching::new(&architecture, weights).with_distillation(distillation);
    let batches = pictures.start(done, config.clone(), architecture.input.clone(), ahead)?;

    let progress = progress(config.steps, done);
    let mut at = done;
    for batch in batches {
        let mut batch = batch?;
        if let Some(teacher) = &mut within {
            batch.teacher = teacher.look(&average, &batch.input)?;
        }
        net.params.zero_gradients();
        let losses = teaching.gradients(&mut net, &batch, &config)?;
        check_finite("loss", losses.total(), &losses, &batch, &checkpoint)?;
        let rate = config.rate_at(batch.step);
        let norm = optimizer.update(&mut net.params, rate, config.weight_decay, config.clip);
        check_finite("gradient", norm, &losses, &batch, &checkpoint)?;
        follow(&mut average, &mut net.params, config.ema.min((batch.step + 1) as f64 / (batch.step + 10) as f64));

        let step = batch.step + 1;
        at = step;
        if step % 10 == 0 || step == config.steps {
            let line = LogLine { step, rate, gradient_norm: norm, loss: losses.total(), terms: losses.clone() };
            log.add(&line)?;
        }
        progress.set_position(step);
        progress.set_message(format!(
            "loss {:.2}: class {:.2} teacher {:.2} box {:.2} sides {:.2} mask {:.2}{}",
            losses.total(),
            losses.class,
            losses.teacher,
            losses.bbox,
            losses.sides,
            losses.segmentation,
            losses.methods.iter().map(|m| format!(" {m:.2}")).collect::<String>()
        ));
        if step % config.checkpoint_every == 0 || step == config.steps {
            let mut state = State { step, params: &mut net.params, average: &mut average, optimizer: &mut optimizer };
            state.save(&checkpoint, &config_text)?;
            published.write(&average, step)?;
        }
    }
    progress.finish();
    ensure!(at >= config.steps, "the thread that renders batches ended at step {at}; start again to go on from there");
    eprintln!("the {} is in {}", role.name(), package.display());
    Ok(())
}

/// Stops the run at a loss or the norm of a gradient that is no number, before it spoils the weights.
fn check_finite(what: &str, value: f32, losses: &Losses, batch: &Batch, checkpoint: &Path) -> anyhow::Result<()> {
    if value.is_finite() {
        return Ok(());
    }
    let remedy = match checkpoint.exists() {
        true => format!(
            "the checkpoint of an earlier step is in {}: lower learning_rate or clip and go on from it with --reconfigure",
            checkpoint.display()
        ),
        false => "lower learning_rate, clip or the loss's weights".into(),
    };
    let (step, file) = (batch.step, batch.files[0].display());
    bail!("the {what} of step {step} is not finite ({losses:?}), on a batch that begins with {file}; {remedy}");
}

/// The network with its starting weights, and where those came from.
fn build(
    config: &StudentConfig,
    architecture: &Architecture,
    quantized: Option<&Quantized>,
) -> anyhow::Result<(TrainNet, String)> {
    let graph = architecture.graph(architecture.input.width, architecture.input.height);
    let mut params = NetParams::random(&graph, config.seed);
    let mut initialised_from = "random".into();
    if let Some(path) = config.init.as_ref().or(config.quantized_as.as_ref()) {
        let (weights, origin) = init::weights(path)?;
        let taken = params.adopt(&weights);
        ensure!(taken > 0, "{}: holds no layer of this network's backbone", path.display());
        initialised_from = origin;
        for conv in params.convs.iter_mut().filter(|c| weights.0.contains_key(&c.name)) {
            conv.rate = config.backbone_rate;
            let stage = conv.name.strip_prefix("backbone.").and_then(|n| n.split('.').next());
            let index = stage.map(|s| if s == "stem" { 0 } else { s.parse().map_or(usize::MAX, |s: usize| s + 1) });
            conv.frozen |= index.is_some_and(|i| i < config.frozen_stages);
        }
    }
    let Some(quantized) = quantized else {
        return Ok((TrainNet::new(graph, params, config.batch), initialised_from));
    };
    quantized.correct_biases(&mut params)?;
    let fake = FakeQuantization::new(&graph, quantized.quantization())?;
    Ok((TrainNet::new(graph, params, config.batch).with_fake(fake), initialised_from))
}

/// Says what of the soft targets nothing learns from.
fn tell_unused(soft: &SoftTargets, config: &StudentConfig) {
    let unused =
        soft.features.keys().filter(|layer| !config.takes_feature(layer)).map(|layer| format!("features for {layer}"));
    let masks = (soft.segmentation.is_some() && !config.takes_masks()).then(|| "masks".to_owned());
    for what in masks.into_iter().chain(unused) {
        eprintln!(
            "soft_targets hold {what}, which nothing learns from: that takes a [[method]] for them and no [teacher]"
        );
    }
}

/// The names of the teachers: those of the soft targets, then the one that sees each view.
fn teachers(config: &StudentConfig, soft: Option<&SoftTargets>) -> anyhow::Result<Vec<String>> {
    let mut names = soft.map(|s| s.teachers.clone()).unwrap_or_default();
    match &config.teacher {
        Some(TeacherConfig { package: Some(package), .. }) => names.push(Student::load(package)?.manifest.name),
        Some(_) => names.push("its own moving average".into()),
        None => {}
    }
    Ok(names)
}

/// `average = decay · average + (1 − decay) · params`, running statistics included.
fn follow(average: &mut NetParams, params: &mut NetParams, decay: f64) {
    let keep = decay as f32;
    for ((_, average), (_, now)) in average.state().into_iter().zip(params.state()) {
        average.iter_mut().zip(now).for_each(|(a, n)| *a = keep * *a + (1.0 - keep) * *n);
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_engine::{Activation, Conv, Graph, Shape};

    #[test]
    fn a_gradient_that_is_not_finite_is_refused_with_the_batch_and_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint.safetensors");
        let batch = Batch { step: 7, files: vec!["a/b.jpg".into()], ..Batch::default() };
        let check = |norm| check_finite("gradient", norm, &Losses::default(), &batch, &checkpoint);
        assert!(check(1.0).is_ok());
        let error = check(f32::NAN).unwrap_err().to_string();
        assert!(error.contains("the gradient of step 7") && error.contains("a/b.jpg"), "{error}");
        fs::write(&checkpoint, "").unwrap();
        let error = check(f32::INFINITY).unwrap_err().to_string();
        assert!(error.contains("checkpoint.safetensors"), "{error}");
    }

    #[test]
    fn the_average_follows_by_one_minus_the_decay_running_statistics_included() {
        let mut graph = Graph::new(Shape::new(1, 1, 1));
        let conv = Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity };
        let out = graph.conv("out", 0, 1, conv);
        graph.outputs.push(out);
        let mut params = NetParams::random(&graph, 0);
        let mut average = params.clone();
        let fill = |params: &mut NetParams, v: f32| params.state().into_iter().for_each(|(_, values)| values.fill(v));
        fill(&mut average, 1.0);
        for step in 1..=3i32 {
            fill(&mut params, 5.0);
            follow(&mut average, &mut params, 0.9);
            let expected = 5.0 - 4.0 * 0.9f32.powi(step);
            assert!(average.state().values().flat_map(|v| v.iter()).all(|v| (v - expected).abs() < 1e-5));
        }
    }
}
