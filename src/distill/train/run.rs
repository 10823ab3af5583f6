//! A training run, from a configuration to a package that the node loads.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{bail, ensure, Context};
use crossbeam::channel::Receiver;
use peregrine_core::files::write_atomically;
use peregrine_student::manifest::Training;
use peregrine_student::presets::Preset;
use peregrine_student::{Architecture, Student};

use super::args::TrainArgs;
use super::artifacts::Artifacts;
use super::batches::{Batch, Rendering};
use super::check::refuse_without_labels;
use super::checkpoint::TrainState;
use super::config::StudentConfig;
use super::device::OpenDevice;
use super::distillation::{Distillation, TeacherSource};
use super::images::TrainImages;
use super::init;
use super::inputs::inputs;
use super::mean_teacher::MeanTeacher;
use super::online::TeacherConfig;
use super::progress::TrainProgress;
use super::provenance::{of_all, Provenance, Sources};
use super::quantized::Quantized;
use super::step::LossComputer;
use super::step_log::StepLog;
use super::survey::Survey;
use crate::file_index::FileIndex;
use crate::lock::lock;
use crate::log;
use crate::loss::segmentation;
use crate::ranks::{launcher, Ranks};
use crate::soften::SoftTargets;

/// What the trained network is for; the run's folder holds its package under that name.
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

/// Trains, and resumes a run that was interrupted; with others, if MPI has started several processes.
///
/// # Errors
/// Each names the file or field at fault; the last good checkpoint stays on disk.
pub fn train(args: &TrainArgs, role: Role) -> anyhow::Result<()> {
    let end = args.minutes.map(|time| Instant::now() + time);
    if args.list_inputs {
        let inputs = inputs(&read_config(args, role)?).with_context(|| args.config.display().to_string())?;
        inputs.iter().for_each(|path| println!("{}", path.display()));
        return Ok(());
    }
    let ranks = launcher::join()?;
    if !ranks.is_first() {
        log::only_errors();
    }
    ranks.end(train_on(&ranks, args, role, end))
}

/// What a run begins with, before any of its files is read or written.
struct Beginning {
    config: StudentConfig,
    config_text: String,
    device: Option<OpenDevice>,
    architecture: Architecture,
    quantized: Option<Quantized>,
    state: TrainState,
    initialised_from: String,
}

impl Beginning {
    fn new(args: &TrainArgs, role: Role, ranks: &Ranks) -> anyhow::Result<Self> {
        if let Some(threads) = args.threads {
            let threads = rayon::ThreadPoolBuilder::new().num_threads(threads);
            threads.build_global().context("cannot start the threads")?;
        }
        let config = read_config(args, role)?;
        refuse_uneven(&config, ranks).with_context(|| args.config.display().to_string())?;
        let device = args.device.open_for(&config, ranks)?;
        let architecture = config.load_architecture().with_context(|| args.config.display().to_string())?;
        let quantized =
            config.quantized_as.as_deref().map(|folder| Quantized::load(folder, &architecture)).transpose()?;
        let (net, initialised_from) = init::network(&config, &architecture, quantized.as_ref(), ranks)?;
        let state = TrainState::new(net, &config);
        let config_text = toml::to_string(&config).context("the configuration cannot be written back")?;
        Ok(Self { config, config_text, device, architecture, quantized, state, initialised_from })
    }
}

/// Trains as one of `ranks`, until `end` at most. What fails on one of them is told by it alone.
fn train_on(ranks: &Ranks, args: &TrainArgs, role: Role, end: Option<Instant>) -> anyhow::Result<()> {
    let Beginning { config, config_text, device, architecture, quantized, mut state, initialised_from } =
        ranks.agree(Beginning::new(args, role, ranks))?;
    let place = place(device.as_ref(), ranks);
    let files = RunFiles::new(args, role);
    let _only = ranks.first(|| {
        fs::create_dir_all(&files.folder).with_context(|| files.folder.display().to_string())?;
        let only = lock(&files.folder, "another training")?;
        if files.checkpoint.exists() && !args.fresh {
            let expected = (!args.reconfigure).then_some(config_text.as_str());
            state.load(&files.checkpoint, expected).with_context(|| files.checkpoint.display().to_string())?;
        }
        Ok(only)
    })?;
    state.take_from_first(ranks);
    let survey = ranks.first_before_others(|| {
        let datasets = config.open_data(&architecture)?;
        refuse_without_labels(&config, &datasets)?;
        // A rank on a machine that does not have the folder remembers nothing.
        Survey::make(datasets, files.folder.is_dir().then_some(&files.folder))
    })?;
    if !ranks.is_alone() {
        ranks.refuse_unequal("train.toml, or other data,", &of_all(&config_text, &config, &survey))?;
    }
    let begun = ranks.first(|| {
        let sources = Provenance::record(&config, &survey, &files.folder, state.step, args.reconfigure)?;
        write_atomically(&files.folder.join("config.toml"), config_text.as_bytes())?;
        let mut log = StepLog::open(&files.log, state.step)?;
        if args.reconfigure {
            log.add(&serde_json::json!({ "step": state.step, "reconfigured": config }))?;
        }
        Ok((sources, log))
    })?;
    let soft_targets = ranks.first_before_others(|| open_soft_targets(&config, &files.folder))?;
    let prepared = Distillation::prepare(&config, &architecture, &state.net, soft_targets.as_ref());
    let (distillation, teacher) = ranks.agree(prepared)?.unzip();
    let (mut online, mut mean_teacher, mut layers) = (None, None, Vec::new());
    match teacher {
        Some(TeacherSource::Package(teacher)) => online = Some(teacher),
        Some(TeacherSource::Average(teacher)) => mean_teacher = Some(teacher),
        Some(TeacherSource::Offline(grids)) => layers = grids,
        None => {}
    }
    let images = TrainImages::load(&config, survey, &architecture, soft_targets.as_ref(), &layers, args.loading());
    let images = ranks.agree(images)?;
    let written = begun.map(|(sources, log)| {
        let artifacts = Artifacts {
            config: &config,
            architecture: &architecture,
            quantized: quantized.as_ref(),
            training: training(&config, role, soft_targets.as_ref(), initialised_from, sources)?,
            package: &files.package,
            log: &files.log,
            curves: &files.curves,
        };
        if state.step >= config.steps {
            // A run killed between its last checkpoint and its package has no step left to write it.
            artifacts.write(&state.average, state.step)?;
        }
        Ok(Written { config_text, artifacts, progress: TrainProgress::new(log, config.steps, state.step) })
    });
    let written = ranks.agree(written.transpose())?;
    tracing::info!(
        "{} images; {} parameters; steps {} to {}, on {place}",
        images.len(),
        state.net.graph.parameters(),
        state.step,
        config.steps,
    );
    let mask_weights = segmentation::class_weights(images.mask_pixels());
    if let Some(device) = device {
        let compared: Vec<_> = distillation.iter().flat_map(Distillation::layers).collect();
        state = state.on(device, &compared)?;
        #[cfg(feature = "cuda")]
        if state.net.cuda().is_some() && ranks.is_alone() {
            // Teachers are run there, too; what several ranks need of theirs they add up on the host.
            online.take().map(|teacher| teacher.move_to(&mut state.net)).transpose()?;
            mean_teacher.take().map(|teacher| teacher.move_to(&mut state.net)).transpose()?;
        }
    }
    let losses = LossComputer::new(&architecture, mask_weights).with_distillation(distillation).with_ranks(ranks);
    let input = architecture.input.clone();
    // A teacher on the CPU sees the views there.
    let for_device = online.is_none() && mean_teacher.is_none();
    let staying = for_device.then(|| state.net.render_on_device(&input, images.areas(), config.images_of_step()));
    let rendering = staying.flatten().map_or(Rendering::WhileLoading, Rendering::OnDevice);
    let batches = images.start(state.step, config.clone(), input, online, ranks, rendering)?;
    let mut run = TrainingRun { config: &config, files: &files, losses, mean_teacher, ranks, written, place, end };
    run.steps(&mut state, batches)?;
    tracing::info!("the {} is in {}", role.name(), files.package.display());
    Ok(())
}

/// Refuses a batch that cannot be divided equally.
fn refuse_uneven(config: &StudentConfig, ranks: &Ranks) -> anyhow::Result<()> {
    let (batch, size) = (config.batch, ranks.size());
    ensure!(
        batch.is_multiple_of(size),
        "batch = {batch} cannot be divided equally among {size} ranks: make it a multiple of {size}, such as {}, or \
         start another number of ranks",
        batch.next_multiple_of(size)
    );
    Ok(())
}

/// Where the training runs, for the log.
fn place(device: Option<&OpenDevice>, ranks: &Ranks) -> String {
    match device {
        Some(device) => device.to_string(),
        None if ranks.is_alone() => "the CPU".into(),
        None => format!("{} ranks, threads of each: {}", ranks.size(), rayon::current_num_threads()),
    }
}

/// The files of a run's folder that a training reads or writes more than once.
struct RunFiles {
    folder: PathBuf,
    checkpoint: PathBuf,
    log: PathBuf,
    curves: PathBuf,
    speed: PathBuf,
    package: PathBuf,
}

impl RunFiles {
    fn new(args: &TrainArgs, role: Role) -> Self {
        let folder = args.run.clone().unwrap_or_else(|| Path::new("target/runs").join(role.name()));
        let [checkpoint, log, curves, speed, package] =
            ["checkpoint.safetensors", "log.jsonl", "curves.svg", "speed.json", role.name()]
                .map(|name| folder.join(name));
        Self { folder, checkpoint, log, curves, speed, package }
    }
}

/// What rank 0 writes.
struct Written<'a> {
    config_text: String,
    artifacts: Artifacts<'a>,
    progress: TrainProgress,
}

/// What the training loop needs besides the state that it changes.
struct TrainingRun<'a> {
    config: &'a StudentConfig,
    files: &'a RunFiles,
    losses: LossComputer,
    mean_teacher: Option<MeanTeacher>,
    ranks: &'a Ranks,
    written: Option<Written<'a>>,
    /// The device, in words.
    place: String,
    /// When the training ends even if steps are left.
    end: Option<Instant>,
}

impl TrainingRun<'_> {
    /// The training loop: one optimizer step for each batch, up to the last step or the end of the time.
    fn steps(&mut self, state: &mut TrainState, batches: Receiver<anyhow::Result<Batch>>) -> anyhow::Result<()> {
        let (config, ranks, checkpoint) = (self.config, self.ranks, &self.files.checkpoint);
        let mut is_over = false;
        while !is_over {
            let waiting = Instant::now();
            let Ok(batch) = batches.recv() else { break };
            let mut batch = ranks.agree(batch)?;
            let waited = waiting.elapsed();
            if let Some(teacher) = &mut self.mean_teacher {
                state.fetch_average()?;
                batch.teacher_outputs = teacher.infer(&state.average, &batch.input)?;
            }

            state.net.zero_gradients()?;
            let rate = config.rate_at(batch.step);
            if ranks.is_alone() {
                state.announce(rate, config.weight_decay, config.clip, config.ema);
            }
            let losses = self.losses.gradients(&mut state.net, &batch, config)?;
            ranks.told_by_first(losses.check_finite("loss", losses.total(), &batch, checkpoint))?;
            state.net.unite(ranks)?;
            let norm = state.update(rate, config.weight_decay, config.clip, config.ema)?;
            ranks.told_by_first(losses.check_finite("gradient", norm, &batch, checkpoint))?;
            state.step = batch.step + 1;
            // By the clock of one rank, so that all end at the same step.
            is_over = ranks.number_of_first(self.end.is_some_and(|end| Instant::now() >= end).into()) > 0;

            let Some(written) = &mut self.written else { continue };
            written.progress.waited(waited);
            written.progress.report(state.step, rate, norm, &losses)?;
            if state.step.is_multiple_of(config.checkpoint_every) || state.step == config.steps || is_over {
                state.save(checkpoint, &written.config_text)?;
                written.artifacts.write(&state.average, state.step)?;
            }
        }
        if let Some(written) = &self.written {
            written.progress.finish();
            if let Some(speed) = written.progress.speed(&self.place, config.batch) {
                tracing::info!("{speed}");
                write_atomically(&self.files.speed, &serde_json::to_vec_pretty(&speed)?)?;
            }
        }
        ensure!(
            state.step >= config.steps || is_over,
            "the thread that renders batches ended at step {}; start again to resume from there",
            state.step
        );
        if state.step < config.steps {
            tracing::info!("--minutes are over after step {} of {}: start again to go on", state.step, config.steps);
        }
        // No rank ends while rank 0 may still fail.
        ranks.agree(Ok(()))
    }
}

/// Reads the configuration, and checks what only the command's role or the whole training needs.
fn read_config(args: &TrainArgs, role: Role) -> anyhow::Result<StudentConfig> {
    let config = StudentConfig::read(&args.config)?;
    if role == Role::Teacher && config.backbone.is_none() && !config.init.as_ref().is_some_and(|path| path.is_dir()) {
        let presets = Preset::LITE.into_iter().chain(Preset::RESNET);
        bail!(
            "{}: a teacher needs `backbone = ` one of {}, or the package of one as init",
            args.config.display(),
            presets.map(|p| format!("{p:?}").to_lowercase()).collect::<Vec<_>>().join(", ")
        );
    }
    ensure!(
        config.teacher.is_none() || !config.methods.is_empty(),
        "{}: [teacher] needs a [[method]]: what the student learns from it",
        args.config.display()
    );
    Ok(config)
}

/// Opens the soft targets that the configuration names, and warns of those that no loss uses. The
/// index in the run's folder remembers those that were checked.
fn open_soft_targets(config: &StudentConfig, run: &Path) -> anyhow::Result<Option<SoftTargets>> {
    let Some(folder) = &config.soft_targets else { return Ok(None) };
    let mut checked = FileIndex::load(run);
    let soft_targets = SoftTargets::open_with(folder, &|layer| config.takes_feature(layer), &mut checked)?;
    if run.is_dir() {
        checked.save(run)?;
    }
    let layers = soft_targets.features.keys().filter(|layer| !config.takes_feature(layer));
    let features = layers.map(|layer| format!("features for {layer}"));
    let masks = (soft_targets.segmentation.is_some() && !config.takes_masks()).then(|| "masks".to_owned());
    let scenes = (soft_targets.scene.is_some() && !config.takes_scenes()).then(|| "scenes".to_owned());
    for what in masks.into_iter().chain(scenes).chain(features) {
        tracing::warn!("soft_targets hold {what}, which no loss uses: add a [[method]] for them, without [teacher]");
    }
    Ok(Some(soft_targets))
}

/// The manifest's record of the training, without its steps.
fn training(
    config: &StudentConfig,
    role: Role,
    soft_targets: Option<&SoftTargets>,
    initialised_from: String,
    sources: Sources,
) -> anyhow::Result<Training> {
    Ok(Training {
        command: format!("distill {} train.toml", role.name()),
        commit: sources.git,
        data: config.data.iter().map(|d| last_two(&d.folder)).collect(),
        data_sha256: sources.data,
        teachers: teachers(config, soft_targets)?,
        initialised_from,
        steps: 0,
        seed: config.seed,
    })
}

/// The names of the teachers: those of the soft targets, then the one that is run on each view.
fn teachers(config: &StudentConfig, soft_targets: Option<&SoftTargets>) -> anyhow::Result<Vec<String>> {
    let mut names = soft_targets.map(|s| s.teachers.clone()).unwrap_or_default();
    match &config.teacher {
        Some(TeacherConfig { package: Some(package), .. }) => names.push(Student::load(package)?.manifest.name),
        Some(_) => names.push("its own moving average".into()),
        None => {}
    }
    Ok(names)
}

/// The last two parts of a path: `vehicles/train`.
fn last_two(path: &Path) -> String {
    let parts: Vec<_> = path.iter().collect();
    parts[parts.len().saturating_sub(2)..].iter().collect::<PathBuf>().display().to_string()
}
