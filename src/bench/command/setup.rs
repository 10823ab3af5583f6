//! From options to a measurement. Everything that cannot be used is refused here, before anything
//! runs.

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::thread;

use anyhow::{bail, ensure, Context as _};
use peregrine_engine::cpu::Isa;
use peregrine_pipeline::{DeviceChoice, PipelineOptions};
use peregrine_recording::Recording;
use peregrine_student::{Precision, Student};
use peregrine_track::TrackerOptions;

use super::arguments::{Arguments, FrameCount};
use super::stop_on_interrupt;
use crate::frames::Frames;
use crate::machine::Fingerprint;
use crate::monitor::Conditions;
use crate::record::{BenchLayer, LatencyStage};
use crate::recorded;
use crate::report::{RunContext, Subject};
use crate::schedule::RunPlan;
use crate::stall::{Fault, Faults};
use crate::stats::frames_needed;
use crate::timetable::{FrameSchedule, Timetable};
use crate::trace::{self, TraceError};
use crate::{realtime, DeadlineProfile};

/// Everything that a measurement needs.
pub struct Setup<'a> {
    pub arguments: &'a Arguments,
    pub profile: DeadlineProfile,
    pub student: Student,
    pub frames: Arc<Frames>,
    pub options: PipelineOptions,
    /// The GPU under test. `None` if the CPU is.
    pub gpu: Option<String>,
    pub faults: Faults,
    pub stop: Arc<AtomicBool>,
}

impl<'a> Setup<'a> {
    /// Loads and checks everything.
    ///
    /// # Errors
    /// Names the invalid option, file or device.
    pub fn new(arguments: &'a Arguments) -> anyhow::Result<Self> {
        arguments.outputs().try_for_each(|path| require_folder(path))?;
        check_combination(arguments)?;
        let gpu = if arguments.explain_plan { None } else { gpu(arguments)? };
        let precision = match arguments.precision {
            Precision::Auto if arguments.peer.is_some() => Precision::F32,
            precision => precision,
        };
        let student =
            Student::in_precision(arguments.model.as_deref(), None, precision, is_on_cpu(arguments, gpu.is_some()))?;
        let frames = frames(arguments)?;
        let profile = profile(arguments, &frames)?;
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
    /// If a trace cannot be used.
    pub fn plan(&self) -> anyhow::Result<RunPlan> {
        let timetable = self.timetable(&self.profile)?;
        Ok(RunPlan {
            layer: self.arguments.layer,
            profile: self.profile.clone(),
            timetable,
            dropped_from: self.faults.dropped_from(),
            stop: Arc::clone(&self.stop),
        })
    }

    /// The instants of a profile's frames.
    ///
    /// # Errors
    /// If a trace cannot be used.
    pub fn timetable(&self, profile: &DeadlineProfile) -> Result<Timetable, TraceError> {
        match &self.arguments.schedule {
            FrameSchedule::Recorded if !self.frames.times.is_empty() => {
                Timetable::recorded(&self.frames.times, profile.frames)
            }
            schedule => Timetable::new(schedule, profile.frames, profile.period_ns()),
        }
    }

    /// The context of a run for its report.
    pub fn context(&self, conditions: Conditions, warmed_up: usize) -> RunContext {
        let architecture = &self.student.manifest.architecture;
        let input = &architecture.input;
        let (input_width, input_height) = self.options.input_size.unwrap_or((input.width, input.height));
        RunContext {
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
                    (_, BenchLayer::Node) => format!("{}, of the node", self.arguments.device),
                    (Some(gpu), _) => gpu.clone(),
                    (None, _) => format!("CPU, {:?}", Isa::best()),
                },
                threads: self.options.threads,
                pin_threads: self.options.pin_threads,
                tracking: self.options.tracking.is_some() || self.arguments.layer == BenchLayer::Node,
                realtime_priority: self.arguments.realtime,
                segmentation: self.options.segmentation && architecture.segmentation.is_some(),
                frames: self.frames.origin.clone(),
            },
            injected: self.arguments.inject.iter().map(Fault::to_string).collect(),
            stress: self.arguments.stress.iter().map(ToString::to_string).collect(),
            worst: self.arguments.explain,
        }
    }
}

/// The images that are sent, at their own size.
fn frames(arguments: &Arguments) -> anyhow::Result<Frames> {
    if let (Some(FrameCount::Of(recording)), Some(images)) = (&arguments.frames, &arguments.images) {
        bail!("--frames {} and --images {}: give one of them", recording.display(), images.display());
    }
    let option = if arguments.images.is_some() { "--images" } else { "--frames" };
    match arguments.source() {
        Some(path) if Recording::is_one(path) => {
            recorded::load(path, arguments.topic.as_deref(), arguments.levels).context(option)
        }
        _ if arguments.topic.is_some() => bail!("--topic: belongs to a bag; name one with --images"),
        Some(folder) => Frames::load(folder).context(option),
        None => Ok(Frames::shipped_or_synthetic()),
    }
}

fn profile(arguments: &Arguments, frames: &Frames) -> anyhow::Result<DeadlineProfile> {
    let mut profile = DeadlineProfile::load(&arguments.profile)?;
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    profile.frames = match (&arguments.frames, &arguments.schedule) {
        (Some(FrameCount::Auto), _) => needed,
        (Some(FrameCount::Number(frames)), _) => *frames,
        (Some(FrameCount::Of(_)), _) | (None, FrameSchedule::Recorded) if !frames.times.is_empty() => {
            frames.times.len()
        }
        (Some(FrameCount::Of(_)), _) => frames.count(),
        (None, FrameSchedule::Trace { path, .. }) => trace::length(path)?,
        (None, _) => profile.frames,
    };
    profile.check("--frames")?;
    Ok(profile)
}

/// The stage that a fault stalls.
fn stage_of(fault: &Fault) -> Option<LatencyStage> {
    match *fault {
        Fault::Stall { stage, .. }
        | Fault::Repeated { stage, .. }
        | Fault::Drift { stage, .. }
        | Fault::Stuck { stage, .. } => Some(stage),
        Fault::Dropped { .. } => None,
    }
}

/// Refuses options that have no effect together: a figure would be labelled wrongly.
fn check_combination(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.layer {
        BenchLayer::Engine => {
            ensure!(!arguments.track, "--track: layer engine has no tracking; use layer pipeline");
            let elsewhere =
                arguments.inject.iter().filter_map(stage_of).find(|&stage| stage != LatencyStage::Inference);
            if let Some(stage) = elsewhere {
                bail!("--inject: layer engine has no {}; only inference can stall there", stage.name());
            }
        }
        BenchLayer::Pipeline => {}
        BenchLayer::Node => {
            ensure!(
                !arguments.closed_loop,
                "--closed-loop: layer node needs a camera's schedule; use layer engine or pipeline"
            );
            ensure!(!arguments.max_rate, "--max-rate: works with layers engine and pipeline");
            ensure!(arguments.cameras == 1, "--cameras: layer node has one camera");
            if let Some(fault) = arguments.inject.iter().find(|fault| stage_of(fault).is_some()) {
                bail!("--inject {fault}: in layer node only dropped@FRAME can be injected; use layer pipeline");
            }
        }
    }
    let back_to_back = arguments.closed_loop || arguments.max_rate;
    if let Some(fault) = arguments.inject.iter().find(|fault| back_to_back && matches!(fault, Fault::Stuck { .. })) {
        bail!("--inject {fault}: frames back to back would wait for it forever; use a camera's schedule");
    }
    let pages = arguments.html.is_some() || arguments.hgrm.is_some() || arguments.hlog.is_some();
    ensure!(
        !arguments.max_rate || !pages,
        "--html, --hgrm, --hlog: describe a single run; --max-rate makes many, use --json"
    );
    ensure!(
        !arguments.max_rate || !arguments.json_to_stdout(),
        "--json -: --max-rate prints its progress there; name a file"
    );
    let only_in_node = arguments.attach || arguments.peer.is_some() || arguments.node.is_some();
    ensure!(arguments.layer == BenchLayer::Node || !only_in_node, "--node, --attach and --peer belong to --layer node");
    let to_table = arguments.results.is_some();
    ensure!(arguments.layer == BenchLayer::Node || !to_table, "--results belongs to --layer node");
    ensure!(
        !arguments.closed_loop || arguments.schedule == FrameSchedule::Fixed,
        "--schedule: the closed loop has no schedule"
    );
    ensure!(!arguments.closed_loop || arguments.cameras == 1, "--cameras: the closed loop has one");
    Ok(())
}

/// Whether the CPU computes what is measured, in this process or in the node; `on_gpu`: this process measures a GPU.
fn is_on_cpu(arguments: &Arguments, on_gpu: bool) -> bool {
    match arguments.device {
        DeviceChoice::Cpu => true,
        DeviceChoice::Cuda => false,
        DeviceChoice::Auto => !on_gpu && (arguments.layer != BenchLayer::Node || find_gpu().is_err()),
    }
}

/// The GPU that is measured in this process. `None` if the CPU is measured; the report names which.
fn gpu(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    if arguments.device == DeviceChoice::Cpu || arguments.layer == BenchLayer::Node {
        return Ok(None);
    }
    let found = match find_gpu() {
        Ok(name) => name,
        Err(why) if arguments.device == DeviceChoice::Cuda => bail!("--device cuda: {why}"),
        Err(_) => return Ok(None),
    };
    if arguments.layer == BenchLayer::Engine {
        ensure!(
            arguments.device == DeviceChoice::Auto,
            "--device cuda: layer engine runs on the CPU; use layer pipeline"
        );
        return Ok(None);
    }
    let fault = arguments.inject.iter().find(|fault| stage_of(fault).is_some());
    if let Some(fault) = fault {
        bail!("--inject {fault}: on a GPU a frame has no separate stages to stall; use --device cpu");
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

/// Checked before a long measurement rather than after it.
fn require_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{}: there is no folder {}; create it first", file.display(), folder.display());
    Ok(())
}
