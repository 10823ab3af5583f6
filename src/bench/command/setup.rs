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
use super::combination::{check_combination, stage_of};
use super::stop_on_interrupt;
use crate::frames::Frames;
use crate::machine::Fingerprint;
use crate::monitor::Conditions;
use crate::record::BenchLayer;
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
    /// The images of each camera, or of all.
    pub frames: Vec<Arc<Frames>>,
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
        watch_gpu(arguments.device);
        let gpu = if arguments.explain_plan { None } else { gpu(arguments)? };
        let precision = match arguments.precision {
            Precision::Auto if !arguments.peer.is_empty() => Precision::F32,
            precision => precision,
        };
        let student =
            Student::in_precision(arguments.model.as_deref(), None, precision, is_on_cpu(arguments, gpu.is_some()))?;
        let frames = frames(arguments)?;
        let profile = profile(arguments, &frames)?;
        let sized = |frames: Frames| match arguments.image_size {
            Some((width, height)) => Arc::new(frames.resized(width, height)),
            None => Arc::new(frames),
        };
        let frames = frames.into_iter().map(sized).collect();
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
        Ok(Self { arguments, profile, student, frames, options, gpu, faults, stop })
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

    /// The images of a camera.
    pub fn frames_of(&self, camera: usize) -> &Arc<Frames> {
        &self.frames[camera.min(self.frames.len() - 1)]
    }

    /// The instants of a profile's frames, of the first camera.
    ///
    /// # Errors
    /// If a trace cannot be used.
    pub fn timetable(&self, profile: &DeadlineProfile) -> Result<Timetable, TraceError> {
        self.timetable_of(0, profile.frames, profile.period_ns())
    }

    /// The instants of `frames` frames of a camera, with a mean period of `period` nanoseconds where the schedule has
    /// none of its own.
    ///
    /// # Errors
    /// If a trace cannot be used.
    pub fn timetable_of(&self, camera: usize, frames: usize, period: f64) -> Result<Timetable, TraceError> {
        let schedules = &self.arguments.schedule;
        match &schedules[camera.min(schedules.len() - 1)] {
            FrameSchedule::Recorded if !self.frames_of(camera).times.is_empty() => {
                let firsts = self.frames.iter().filter_map(|frames| frames.times.first());
                let origin = firsts.min().copied().unwrap_or(0);
                Timetable::recorded(&self.frames_of(camera).times, origin, frames)
            }
            schedule => Timetable::new(schedule, frames, period),
        }
    }

    /// The network's input, width and height in pixels.
    pub fn input_size(&self) -> (usize, usize) {
        let input = &self.student.manifest.architecture.input;
        self.options.input_size.unwrap_or((input.width, input.height))
    }

    /// The context of a run for its report.
    pub fn context(&self, conditions: Conditions, warmed_up: usize) -> RunContext {
        let architecture = &self.student.manifest.architecture;
        let (input_width, input_height) = self.input_size();
        RunContext {
            profile: self.profile.clone(),
            open_loop: !self.arguments.closed_loop,
            schedule: listed(&self.arguments.schedule),
            machine: Fingerprint::read(),
            conditions,
            warmed_up,
            subject: Subject {
                model: self.student.manifest.name.clone(),
                weights_sha256: self.student.manifest.weights.sha256.clone(),
                input_width,
                input_height,
                device: match (&self.gpu, self.arguments.layer) {
                    (_, BenchLayer::Node | BenchLayer::ForeignNode) => {
                        format!("{}, of the node", self.arguments.device)
                    }
                    (Some(gpu), _) => gpu.clone(),
                    (None, _) => format!("CPU, {:?}", Isa::best()),
                },
                threads: self.options.threads,
                pin_threads: self.options.pin_threads,
                tracking: self.options.tracking.is_some() || self.arguments.layer == BenchLayer::Node,
                realtime_priority: self.arguments.realtime,
                segmentation: self.options.segmentation && architecture.segmentation.is_some(),
                frames: self.frames.iter().map(|frames| frames.origin.as_str()).collect::<Vec<_>>().join("; "),
                node: None,
            },
            injected: self.arguments.inject.iter().map(Fault::to_string).collect(),
            stress: self.arguments.stress.iter().map(ToString::to_string).collect(),
            worst: self.arguments.explain,
        }
    }
}

/// As a list.
fn listed<T: ToString>(values: &[T]) -> String {
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The images that are sent, at their own size: one set for all cameras, or that of each one's topic.
fn frames(arguments: &Arguments) -> anyhow::Result<Vec<Frames>> {
    if let (Some(FrameCount::Of(recording)), Some(images)) = (&arguments.frames, &arguments.images) {
        bail!("--frames {} and --images {}: give one of them", recording.display(), images.display());
    }
    let option = if arguments.images.is_some() { "--images" } else { "--frames" };
    match arguments.source() {
        Some(path) if Recording::is_one(path) => {
            let load = |topic: Option<&str>| recorded::load(path, topic, arguments.levels).context(option);
            match &arguments.topic[..] {
                [] => Ok(vec![load(None)?]),
                topics => topics.iter().map(|topic| load(Some(topic))).collect(),
            }
        }
        _ if !arguments.topic.is_empty() => bail!("--topic: belongs to a bag; name one with --images"),
        Some(folder) => Ok(vec![Frames::load(folder).context(option)?]),
        None => Ok(vec![Frames::shipped_or_synthetic()]),
    }
}

/// The profile, with the number of frames of each camera: of a recording the fewest of a camera, and of traces that of
/// the first.
fn profile(arguments: &Arguments, frames: &[Frames]) -> anyhow::Result<DeadlineProfile> {
    let mut profile = DeadlineProfile::load(&arguments.profile)?;
    let needed = frames_needed(0, profile.max_miss_ratio, profile.confidence);
    let recorded = frames.iter().map(|frames| frames.times.len()).min().filter(|&frames| frames > 0);
    let trace = arguments.schedule.iter().find_map(|schedule| match schedule {
        FrameSchedule::Trace { path, .. } => Some(path),
        _ => None,
    });
    profile.frames = match (&arguments.frames, recorded, trace) {
        (Some(FrameCount::Auto), ..) => needed,
        (Some(FrameCount::Number(frames)), ..) => *frames,
        (Some(FrameCount::Of(_)), Some(recorded), _) => recorded,
        (Some(FrameCount::Of(_)), ..) => frames[0].count(),
        (None, Some(recorded), _) if arguments.schedule.contains(&FrameSchedule::Recorded) => recorded,
        (None, _, Some(path)) => trace::length(path)?,
        (None, ..) => profile.frames,
    };
    profile.check("--frames")?;
    Ok(profile)
}

/// Whether the CPU computes what is measured, in this process or in the node; `on_gpu`: this process measures a GPU.
fn is_on_cpu(arguments: &Arguments, on_gpu: bool) -> bool {
    match arguments.device {
        DeviceChoice::Cpu => true,
        DeviceChoice::Cuda(_) => false,
        DeviceChoice::Auto => !on_gpu && (arguments.layer != BenchLayer::Node || find_gpu(0).is_err()),
    }
}

/// The GPU that is measured in this process. `None` if the CPU is measured; the report names which.
fn gpu(arguments: &Arguments) -> anyhow::Result<Option<String>> {
    let Some(number) = arguments.device.cuda_device() else { return Ok(None) };
    if arguments.layer == BenchLayer::Node || arguments.has_peer_engines() {
        return Ok(None);
    }
    let found = match find_gpu(number) {
        Ok(name) => name,
        Err(why) if arguments.device.is_cuda() => bail!("--device {}: {why}", arguments.device),
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
fn find_gpu(number: u32) -> Result<String, String> {
    peregrine_engine::cuda::find_device(number).map(|device| device.to_string()).map_err(|none| none.to_string())
}

/// Watches the GPU that `device` names, in this process or in the node.
#[cfg(feature = "cuda")]
fn watch_gpu(device: DeviceChoice) {
    if let Some(Ok(found)) = device.cuda_device().map(peregrine_engine::cuda::find_device) {
        crate::gpu::choose(found.pci);
    }
}

/// There is no other than NVML's first.
#[cfg(not(feature = "cuda"))]
fn watch_gpu(_: DeviceChoice) {}

#[cfg(not(feature = "cuda"))]
fn find_gpu(_: u32) -> Result<String, String> {
    Err("this program was built without CUDA; build it with `--features cuda`, or use cpu".into())
}

/// Checked before a long measurement rather than after it.
fn require_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "{}: there is no folder {}; create it first", file.display(), folder.display());
    Ok(())
}
