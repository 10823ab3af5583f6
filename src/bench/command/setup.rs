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
        let gpu = if arguments.explain_plan { None } else { gpu(arguments)? };
        let precision = match arguments.precision {
            Precision::Auto if arguments.peer.is_some() => Precision::F32,
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

    /// The context of a run for its report.
    pub fn context(&self, conditions: Conditions, warmed_up: usize) -> RunContext {
        let architecture = &self.student.manifest.architecture;
        let input = &architecture.input;
        let (input_width, input_height) = self.options.input_size.unwrap_or((input.width, input.height));
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
                    (_, BenchLayer::Node | BenchLayer::ForeignNode) => format!("{}, of the node", self.arguments.device),
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
        BenchLayer::Node | BenchLayer::ForeignNode => {
            ensure!(
                !arguments.closed_loop,
                "--closed-loop: layer node needs a camera's schedule; use layer engine or pipeline"
            );
            ensure!(!arguments.max_rate, "--max-rate: works with layers engine and pipeline");
            ensure!(
                arguments.peer.is_none() || arguments.camera_count() == 1,
                "--peer: takes turns with the node on one camera; leave out --cameras and what names several"
            );
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
    let only_in_node = arguments.is_foreign_node() || arguments.peer.is_some() || arguments.node.is_some();
    ensure!(
        arguments.layer == BenchLayer::Node || !only_in_node,
        "--node, --attach, --command and --peer belong to --layer node"
    );
    check_cameras(arguments)?;
    check_foreign_node(arguments)?;
    let to_table = arguments.results.is_some();
    ensure!(arguments.layer == BenchLayer::Node || !to_table, "--results belongs to --layer node");
    ensure!(
        !arguments.closed_loop || arguments.schedule == [FrameSchedule::Fixed],
        "--schedule: the closed loop has no schedule"
    );
    ensure!(!arguments.closed_loop || arguments.camera_count() == 1, "--cameras: the closed loop has one");
    Ok(())
}

/// Refuses what names another number of cameras than there are.
fn check_cameras(arguments: &Arguments) -> anyhow::Result<()> {
    let cameras = arguments.camera_count();
    let named = [
        ("--schedule", arguments.schedule.len()),
        ("--topic", arguments.topic.len()),
        ("--image-topic", arguments.image_topic.len()),
        ("--detections-topic", arguments.detections_topic.len()),
    ];
    for (option, count) in named {
        ensure!(
            count <= 1 || count == cameras,
            "{option}: {count} are given for {cameras} cameras; give one for each camera, or one for all"
        );
        ensure!(count <= 1 || arguments.layer == BenchLayer::Node, "{option}: several belong to --layer node");
    }
    Ok(())
}

/// Refuses, for a node that is not set up here, what would set it up, and topics for any other.
fn check_foreign_node(arguments: &Arguments) -> anyhow::Result<()> {
    if !arguments.is_foreign_node() {
        let named = !arguments.image_topic.is_empty() || !arguments.detections_topic.is_empty();
        ensure!(!named, "--image-topic and --detections-topic belong to --attach and --command");
        return Ok(());
    }
    let (option, cameras) = (if arguments.attach { "--attach" } else { "--command" }, arguments.camera_count());
    let set_up = [
        ("--model", arguments.model.is_some()),
        ("--precision", arguments.precision != Precision::Auto),
        ("--device", arguments.device != DeviceChoice::Auto),
        ("--threads", arguments.threads != 0),
        ("--pin-threads", arguments.pin_threads),
        ("--input-size", arguments.input_size.is_some()),
        ("--no-segmentation", arguments.no_segmentation),
        ("--track", arguments.track),
    ];
    if let Some((without_effect, _)) = set_up.into_iter().find(|(_, given)| *given) {
        bail!("{without_effect}: {option} measures a node as it is; set it up where it is started");
    }
    ensure!(
        cameras == 1 || (arguments.image_topic.len() == cameras && !arguments.detections_topic.is_empty()),
        "{option}: with several cameras, give --image-topic for each, and --detections-topic for each or once for all"
    );
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
