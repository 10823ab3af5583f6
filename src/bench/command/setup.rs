//! From options to what is to be measured. Whatever cannot be used is said here, before anything runs.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;

use anyhow::{bail, ensure, Context as _};

use super::arguments::{Arguments, Device, FrameCount};
use super::{realtime, stop_on_interrupt};
use crate::bench::frames::Frames;
use crate::bench::machine::Fingerprint;
use crate::bench::monitor::Conditions;
use crate::bench::record::{Layer, Stage};
use crate::bench::report::{Context, Subject};
use crate::bench::schedule::Plan;
use crate::bench::stall::{Fault, Faults};
use crate::bench::stats::frames_needed;
use crate::bench::timetable::{trace_length, Schedule, Timetable};
use crate::bench::Profile;
use crate::pipeline::PipelineOptions;
use crate::student::Student;
use crate::track::TrackerOptions;

/// All that a measurement needs.
pub struct Setup<'a> {
    pub arguments: &'a Arguments,
    pub profile: Profile,
    pub student: Student,
    pub frames: Arc<Frames>,
    pub options: PipelineOptions,
    pub faults: Faults,
    pub stop: Arc<AtomicBool>,
}

impl<'a> Setup<'a> {
    /// # Errors
    /// Names the option, file or device at fault.
    pub fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        arguments.outputs().try_for_each(|path| require_folder(path))?;
        check_combination(arguments)?;
        if !arguments.explain_plan {
            require_device(arguments.device)?;
        }
        let profile = profile(arguments)?;
        let student = match &arguments.model {
            Some(folder) => Student::load(folder)?,
            None => Student::embedded(),
        };
        let frames = match &arguments.images {
            Some(folder) => Frames::load(folder).context("--images")?,
            None => Frames::shipped_or_drawn(),
        };
        let frames = match arguments.image_size {
            Some((width, height)) => frames.resized(width, height),
            None => frames,
        };
        let options = PipelineOptions {
            segmentation: !arguments.no_segmentation,
            threads: match arguments.threads {
                0 => thread::available_parallelism().map_or(1, |n| n.get()),
                threads => threads,
            },
            pin_threads: arguments.pin_threads,
            input_size: arguments.input_size,
            tracking: arguments.track.then(TrackerOptions::default),
            ..PipelineOptions::default()
        };
        options.check()?;
        let stop = stop_on_interrupt()?;
        if let Some(priority) = arguments.realtime {
            realtime::enter(priority)?;
        }
        let faults = Faults::new(arguments.inject.clone());
        Ok(Self { arguments, profile, student, frames: Arc::new(frames), options, faults, stop })
    }

    /// The open loop's plan.
    ///
    /// # Errors
    /// When a trace cannot be used.
    pub fn plan(&self) -> anyhow::Result<Plan> {
        let timetable = Timetable::new(&self.arguments.schedule, self.profile.frames, self.profile.period_ns())?;
        Ok(Plan {
            layer: self.arguments.layer,
            profile: self.profile.clone(),
            timetable,
            dropped_from: self.faults.dropped_from(),
            stop: Arc::clone(&self.stop),
        })
    }

    /// What surrounds the run in its report.
    pub fn context(&self, conditions: Conditions) -> Context {
        let input = &self.student.manifest.architecture.input;
        let (input_width, input_height) = self.options.input_size.unwrap_or((input.width, input.height));
        Context {
            profile: self.profile.clone(),
            open_loop: !self.arguments.closed_loop,
            schedule: self.arguments.schedule.to_string(),
            machine: Fingerprint::read(),
            conditions,
            subject: Subject {
                model: self.student.manifest.name.clone(),
                weights_sha256: self.student.manifest.weights.sha256.clone(),
                input_width,
                input_height,
                threads: self.options.threads,
                segmentation: self.options.segmentation,
                frames: self.frames.origin.clone(),
            },
            injected: self.arguments.inject.iter().map(Fault::to_string).collect(),
            stress: self.arguments.stress.iter().map(ToString::to_string).collect(),
            worst: self.arguments.explain,
        }
    }
}

fn profile(arguments: &Arguments) -> anyhow::Result<Profile> {
    let mut profile = Profile::load(&arguments.profile)?;
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    profile.frames = match (arguments.frames, &arguments.schedule) {
        (Some(FrameCount::Auto), _) => needed,
        (Some(FrameCount::Number(frames)), _) => frames,
        (None, Schedule::Trace { path }) => trace_length(path)?,
        (None, _) => profile.frames,
    };
    profile.check("--frames")?;
    Ok(profile)
}

/// Options that do nothing together would leave a figure with the wrong name.
fn check_combination(arguments: &Arguments) -> anyhow::Result<()> {
    let fault_in = |fault: &Fault| match *fault {
        Fault::Stall { stage, .. }
        | Fault::Repeated { stage, .. }
        | Fault::Drift { stage, .. }
        | Fault::Stuck { stage, .. } => Some(stage),
        Fault::Dropped { .. } => None,
    };
    match arguments.layer {
        Layer::Engine => {
            ensure!(!arguments.track, "--track: layer engine has no tracking; use layer pipeline");
            let elsewhere = arguments.inject.iter().filter_map(fault_in).find(|&stage| stage != Stage::Inference);
            if let Some(stage) = elsewhere {
                bail!("--inject: layer engine has no {}; only inference can stall there", stage.name());
            }
        }
        Layer::Pipeline => {}
        Layer::Node => {
            ensure!(!arguments.closed_loop, "--closed-loop: layer node has a camera's schedule only");
            ensure!(!arguments.max_rate, "--max-rate: works with layers engine and pipeline");
            ensure!(arguments.cameras == 1, "--cameras: layer node has one camera");
            if let Some(fault) = arguments.inject.iter().find(|fault| fault_in(fault).is_some()) {
                bail!("--inject {fault}: in layer node only dropped@FRAME can be injected; use layer pipeline");
            }
        }
    }
    let only_in_node = arguments.attach || arguments.peer.is_some() || arguments.node.is_some();
    ensure!(arguments.layer == Layer::Node || !only_in_node, "--node, --attach and --peer belong to --layer node");
    let to_table = arguments.results.is_some();
    ensure!(arguments.layer == Layer::Node || !to_table, "--results belongs to --layer node");
    ensure!(
        !arguments.closed_loop || arguments.schedule == Schedule::Fixed,
        "--schedule: the closed loop has no schedule"
    );
    ensure!(!arguments.closed_loop || arguments.cameras == 1, "--cameras: the closed loop has one");
    Ok(())
}

/// A figure of the CPU must not pass for one of a GPU.
fn require_device(device: Device) -> anyhow::Result<()> {
    if device != Device::Cuda {
        return Ok(());
    }
    #[cfg(feature = "cuda")]
    match crate::engine::cuda::find_device() {
        Ok(device) => bail!("--device cuda: there is {device}, but this program measures the CPU alone; make bench-gpu measures the GPU"),
        Err(none) => bail!("--device cuda: {none}"),
    }
    #[cfg(not(feature = "cuda"))]
    bail!("--device cuda: this program was built without CUDA; build it with `--features cuda`, or use cpu")
}

/// Before a long measurement rather than after it.
fn require_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{}: there is no folder {}; create it first", file.display(), folder.display());
    Ok(())
}
