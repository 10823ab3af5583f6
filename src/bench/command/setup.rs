//! From options to what is to be measured. Whatever cannot be used is said here, before anything runs.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;

use anyhow::{bail, ensure, Context as _};
use peregrine_engine::cpu::Isa;
use peregrine_pipeline::{DeviceChoice, PipelineOptions};
use peregrine_student::Student;
use peregrine_track::TrackerOptions;

use super::arguments::{Arguments, FrameCount};
use super::stop_on_interrupt;
use crate::frames::Frames;
use crate::machine::Fingerprint;
use crate::monitor::Conditions;
use crate::record::{Layer, Stage};
use crate::report::{Context, Subject};
use crate::schedule::Plan;
use crate::stall::{Fault, Faults};
use crate::stats::frames_needed;
use crate::timetable::{trace_length, Schedule, Timetable};
use crate::{realtime, Profile};

/// All that a measurement needs.
pub struct Setup<'a> {
    pub arguments: &'a Arguments,
    pub profile: Profile,
    pub student: Student,
    pub frames: Arc<Frames>,
    pub options: PipelineOptions,
    /// The GPU that is measured; the CPU where there is none.
    pub gpu: Option<String>,
    pub faults: Faults,
    pub stop: Arc<AtomicBool>,
}

impl<'a> Setup<'a> {
    /// # Errors
    /// Names the option, file or device at fault.
    pub fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        arguments.outputs().try_for_each(|path| require_folder(path))?;
        check_combination(arguments)?;
        let gpu = if arguments.explain_plan { None } else { gpu(arguments)? };
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
        Ok(Self { arguments, profile, student, frames: Arc::new(frames), options, gpu, faults, stop })
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
    pub fn context(&self, conditions: Conditions, warmed_up: usize) -> Context {
        let input = &self.student.manifest.architecture.input;
        let (input_width, input_height) = self.options.input_size.unwrap_or((input.width, input.height));
        Context {
            profile: self.profile.clone(),
            open_loop: !self.arguments.closed_loop,
            schedule: self.arguments.schedule.to_string(),
            machine: Fingerprint::read(),
            conditions,
            warmed_up,
            subject: Subject {
                model: self.student.manifest.name.clone(),
                weights_sha256: self.student.manifest.weights.sha256.clone(),
                input_width,
                input_height,
                device: match (&self.gpu, self.arguments.layer) {
                    (_, Layer::Node) => format!("{}, of the node", self.arguments.device),
                    (Some(gpu), _) => gpu.clone(),
                    (None, _) => format!("CPU, {:?}", Isa::best()),
                },
                threads: self.options.threads,
                pin_threads: self.options.pin_threads,
                tracking: self.options.tracking.is_some() || self.arguments.layer == Layer::Node,
                realtime_priority: self.arguments.realtime,
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

/// The stage that a fault holds up.
fn stage_of(fault: &Fault) -> Option<Stage> {
    match *fault {
        Fault::Stall { stage, .. }
        | Fault::Repeated { stage, .. }
        | Fault::Drift { stage, .. }
        | Fault::Stuck { stage, .. } => Some(stage),
        Fault::Dropped { .. } => None,
    }
}

/// Options that do nothing together would leave a figure with the wrong name.
fn check_combination(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.layer {
        Layer::Engine => {
            ensure!(!arguments.track, "--track: layer engine has no tracking; use layer pipeline");
            let elsewhere = arguments.inject.iter().filter_map(stage_of).find(|&stage| stage != Stage::Inference);
            if let Some(stage) = elsewhere {
                bail!("--inject: layer engine has no {}; only inference can stall there", stage.name());
            }
        }
        Layer::Pipeline => {}
        Layer::Node => {
            ensure!(!arguments.closed_loop, "--closed-loop: layer node has a camera's schedule only");
            ensure!(!arguments.max_rate, "--max-rate: works with layers engine and pipeline");
            ensure!(arguments.cameras == 1, "--cameras: layer node has one camera");
            if let Some(fault) = arguments.inject.iter().find(|fault| stage_of(fault).is_some()) {
                bail!("--inject {fault}: in layer node only dropped@FRAME can be injected; use layer pipeline");
            }
        }
    }
    let back_to_back = arguments.closed_loop || arguments.max_rate;
    if let Some(fault) = arguments.inject.iter().find(|fault| back_to_back && matches!(fault, Fault::Stuck { .. })) {
        bail!("--inject {fault}: frames back to back would wait for it for ever; use a camera's schedule");
    }
    let pages = arguments.html.is_some() || arguments.hgrm.is_some() || arguments.hlog.is_some();
    ensure!(!arguments.max_rate || !pages, "--html, --hgrm, --hlog: of one run; --max-rate is many, and writes --json");
    ensure!(
        !arguments.max_rate || !arguments.json_to_stdout(),
        "--json -: --max-rate prints there what it tries; name a file"
    );
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

/// The GPU that is measured in this process; none where that is the CPU. A figure of the one must not pass for one of the
/// other.
fn gpu(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    if arguments.device == DeviceChoice::Cpu || arguments.layer == Layer::Node {
        return Ok(None);
    }
    let found = match find_gpu() {
        Ok(name) => name,
        Err(why) if arguments.device == DeviceChoice::Cuda => bail!("--device cuda: {why}"),
        Err(_) => return Ok(None),
    };
    if arguments.layer == Layer::Engine {
        ensure!(arguments.device == DeviceChoice::Auto, "--device cuda: layer engine is the CPU's; use layer pipeline");
        return Ok(None);
    }
    let fault = arguments.inject.iter().find(|fault| stage_of(fault).is_some());
    if let Some(fault) = fault {
        bail!("--inject {fault}: a GPU does a frame in one go, without stages to stall; use --device cpu");
    }
    Ok(Some(found))
}

#[cfg(feature = "cuda")]
fn find_gpu() -> Result<String, String> {
    peregrine_engine::cuda::find_device().map(|device| device.to_string()).map_err(|none| none.to_string())
}

#[cfg(not(feature = "cuda"))]
fn find_gpu() -> Result<String, String> {
    Err("this program was built without CUDA; build it with `--features cuda`, or use cpu".into())
}

/// Before a long measurement rather than after it.
fn require_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{}: there is no folder {}; create it first", file.display(), folder.display());
    Ok(())
}
