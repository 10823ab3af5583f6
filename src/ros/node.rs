//! The node put together: started, spun, stopped.

use std::panic;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use r2r::{Node, QosProfile};

use crate::pipeline::{Counts, LatestSlot, Ledger, Pipeline, PipelineError, PipelineOptions};
use crate::student::{PackageError, Student};
use crate::track::TrackerOptions;

use super::diagnostics::{Diagnostics, Identity, Memory};
use super::frame_path::{FramePath, Outputs, Shared};
use super::incoming::Unpacker;
use super::intake::Intake;
use super::live::LiveSettings;
use super::messages::{DetectionsMessage, MaskMessage, TimingMessage};
use super::parameter_services::ParameterServices;
use super::parameters::{Parameters, Refusal};
use super::scene::inputs::SceneInputs;
use super::scene::Scene;

/// The node's name unless it is remapped.
const NAME: &str = "perception";

/// Longest time between two looks at parameters, subscribers and the wish to stop. Images wake the node at once.
const TICK: Duration = Duration::from_millis(100);

/// How long the other threads may take to finish what they are at when the node is to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Events of the frame thread that can wait for the diagnostics: some seconds' worth.
const RECORDS: usize = 4096;

/// Why the node cannot start, or not go on. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("ROS 2 could not start: {0}; look at the arguments after --ros-args, at RMW_IMPLEMENTATION and at ROS_DOMAIN_ID")]
    Ros(String),
    #[error("parameter {0}")]
    Parameter(#[from] Refusal),
    #[error("parameter 'model': {0}")]
    Model(#[from] PackageError),
    #[error("{0}")]
    Pipeline(#[from] PipelineError),
    #[error("parameter 'device': {0}")]
    Device(String),
    #[error("ROS refuses '{name}': {why}; a topic's name has letters, digits, _ and /")]
    Topic { name: String, why: String },
    #[error("ROS 2: {0}")]
    Middleware(#[from] r2r::Error),
    #[error("the system: {0}")]
    System(#[from] std::io::Error),
    #[error("the frame thread has ended by itself; its panic message says why")]
    FrameThread,
    #[error("the node was asked to stop, but a thread of it is stuck")]
    Stuck,
}

/// Runs the node until SIGINT or SIGTERM and returns the final counts.
///
/// # Errors
/// When the node cannot start; once it runs, only if its frame thread dies.
pub fn run() -> Result<Counts, NodeError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // More signals change nothing: launchers and terminals may both send one for a single Ctrl-C.
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let mut node = Node::create(context()?, NAME, "").map_err(|e| NodeError::Ros(e.to_string()))?;
    let mut running = Running::start(&mut node)?;
    while !stop.load(Relaxed) && running.is_sound() {
        running.turn(&mut node);
    }
    let outcome = running.stop();
    if matches!(outcome, Err(NodeError::Stuck)) {
        // Its destructor waits for whoever is publishing, which a stuck thread may be doing for ever.
        std::mem::forget(node);
    }
    outcome
}

/// The connection to ROS. r2r panics where ROS refuses its arguments; here that is an error like any other.
fn context() -> Result<r2r::Context, NodeError> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let created = panic::catch_unwind(r2r::Context::create);
    panic::set_hook(hook);
    match created {
        Ok(Ok(context)) => Ok(context),
        Ok(Err(error)) => Err(NodeError::Ros(error.to_string())),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            Err(NodeError::Ros(text.unwrap_or_else(|| "no reason was given".into())))
        }
    }
}

/// What runs beside the node, and what the spinning thread keeps.
struct Running {
    parameters: Parameters,
    services: ParameterServices,
    intake: Intake,
    scene: SceneInputs,
    masks: [r2r::Publisher<r2r::sensor_msgs::msg::Image>; 2],
    shared: Arc<Shared>,
    frames: JoinHandle<()>,
    diagnostics: JoinHandle<()>,
}

impl Running {
    fn start(node: &mut Node) -> Result<Self, NodeError> {
        let overrides: Vec<_> = {
            let given = node.params.lock().expect("nothing panics while it holds this lock");
            given.iter().map(|(name, parameter)| (name.clone(), parameter.value.clone())).collect()
        };
        let parameters = Parameters::with(overrides)?;
        if parameters.flag("use_sim_time") {
            node.get_time_source().enable_sim_time(node)?;
        }

        let student = match parameters.text("model") {
            "" => Student::embedded(),
            folder => Student::load(&PathBuf::from(folder))?,
        };
        let options = pipeline_options(&parameters);
        let (pipeline, device) = pipeline(&student, options, parameters.text("device"))?;

        let shared = Arc::new(Shared {
            slot: LatestSlot::new(),
            ledger: Ledger::new(),
            settings: LiveSettings::new(&parameters),
            records: ArrayQueue::new(RECORDS),
            road_mask_wanted: AtomicBool::new(false),
            segmentation_wanted: AtomicBool::new(false),
            ros_offset: AtomicI64::new(0),
            stop: AtomicBool::new(false),
        });
        // The services before the subscription: whoever sees images taken can also set parameters.
        let services = ParameterServices::new(node)?;
        let intake = Intake::new(node, &parameters, Arc::clone(&shared))?;
        let classes = &student.manifest.architecture.detection.classes;
        let (scene, scene_inputs) =
            Scene::create(node, &parameters, &student.manifest.architecture, intake.topic(), str::to_owned)?;
        let outputs = Outputs {
            detections: node.create_publisher("detections", QosProfile::default())?,
            timing: node.create_publisher("timing", QosProfile::default())?,
            road_mask: node.create_publisher("road_mask", QosProfile::default())?,
            segmentation: node.create_publisher("segmentation", QosProfile::default())?,
            detections_message: DetectionsMessage::new(classes, parameters.count("max_detections")),
            timing_message: TimingMessage::default(),
            mask_message: MaskMessage {
                at_source_resolution: parameters.text("mask_resolution") == "source",
                ..MaskMessage::default()
            },
            scene,
        };
        let masks = [outputs.road_mask.clone(), outputs.segmentation.clone()];
        let segmentation = &student.manifest.architecture.segmentation.classes;
        let frame_path = FramePath {
            pipeline,
            road_class: segmentation.iter().position(|name| name == "road").and_then(|i| u8::try_from(i).ok()),
            unpacker: Unpacker::default(),
            outputs,
            shared: Arc::clone(&shared),
        };

        let diagnostics = Diagnostics {
            identity: Identity {
                node: node.fully_qualified_name()?,
                topic: intake.topic().to_owned(),
                student: student.manifest.name.clone(),
                device: device.to_owned(),
            },
            shared: Arc::clone(&shared),
            publishers: intake.publishers(),
            ground: scene_inputs.status(),
            publisher: node.create_publisher("/diagnostics", QosProfile::default())?,
            memory: Memory::default(),
        };
        let (name, topic) = (&student.manifest.name, intake.topic());
        r2r::log_info!(node.logger(), "student {name} on {device}; waiting for images on {topic}");
        Ok(Self {
            frames: thread::Builder::new().name("frames".into()).spawn(move || frame_path.run())?,
            diagnostics: thread::Builder::new().name("diagnostics".into()).spawn(move || diagnostics.run())?,
            parameters,
            services,
            intake,
            scene: scene_inputs,
            masks,
            shared,
        })
    }

    /// Waits for something to happen, and sees to it.
    fn turn(&mut self, node: &mut Node) {
        node.spin_once(TICK);
        self.intake.take(node);
        self.scene.turn();
        if self.services.serve(&mut self.parameters) {
            self.shared.settings.store(&self.parameters);
        }
        let wanted = [&self.shared.road_mask_wanted, &self.shared.segmentation_wanted];
        for (mask, wanted) in self.masks.iter().zip(wanted) {
            wanted.store(mask.get_inter_process_subscription_count().unwrap_or(0) > 0, Relaxed);
        }
    }

    /// Whether the frame thread is alive; it ends by itself only by a panic.
    fn is_sound(&self) -> bool {
        !self.frames.is_finished()
    }

    fn stop(self) -> Result<Counts, NodeError> {
        self.shared.stop.store(true, Relaxed);
        self.frames.thread().unpark();
        self.diagnostics.thread().unpark();
        let patience = Instant::now() + PATIENCE;
        while !(self.frames.is_finished() && self.diagnostics.is_finished()) {
            if Instant::now() > patience {
                return Err(NodeError::Stuck);
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.frames.join().map_err(|_| NodeError::FrameThread)?;
        Ok(self.shared.ledger.counts())
    }
}

fn pipeline_options(parameters: &Parameters) -> PipelineOptions {
    let cores = || thread::available_parallelism().map_or(1, |n| n.get());
    let threads = match parameters.count("threads") {
        0 => cores(),
        threads => threads,
    };
    let size = (parameters.count("input_width"), parameters.count("input_height"));
    PipelineOptions {
        score_threshold: parameters.real("score_threshold") as f32,
        nms_iou: parameters.real("nms_iou") as f32,
        max_detections: parameters.count("max_detections"),
        segmentation: parameters.flag("segmentation"),
        threads,
        input_size: (size != (0, 0)).then_some(size),
        tracking: parameters.flag("tracking").then(|| TrackerOptions {
            low_score: parameters.real("track_low_score") as f32,
            keep_unseen: parameters.real("track_keep_s"),
            ..TrackerOptions::default()
        }),
    }
}

/// A pipeline on the device asked for, and the name of the one it got.
fn pipeline(student: &Student, options: PipelineOptions, device: &str) -> Result<(Pipeline, &'static str), NodeError> {
    if device == "cuda" {
        return Err(NodeError::Device(why_not_cuda()));
    }
    Ok((Pipeline::new(student, options)?, "cpu"))
}

/// Why inference cannot run on CUDA here.
fn why_not_cuda() -> String {
    #[cfg(feature = "cuda")]
    return match crate::engine::cuda::find_device() {
        Ok(device) => format!("there is {device}, but this version has no CUDA engine yet; use auto or cpu"),
        Err(none) => none.to_string(),
    };
    #[cfg(not(feature = "cuda"))]
    "this program was built without CUDA, and this version has no CUDA engine yet; use auto or cpu".into()
}

/// The final counts in one line.
pub fn summary(counts: &Counts) -> String {
    format!(
        "{} images arrived: {} published on time, {} late, {} superseded, {} dropped late, {} rejected, {} in hand",
        counts.arrived,
        counts.on_time,
        counts.late,
        counts.superseded,
        counts.dropped_late,
        counts.rejected,
        counts.in_hand
    )
}
