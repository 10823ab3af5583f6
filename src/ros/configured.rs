//! All that exists between configure and cleanup: subscriptions, publishers, the frame thread.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peregrine_core::FrameAccounting;
use r2r::{Node, QosProfile};

use super::black_box::{BlackBox, CameraTopicNames, Inbox, Settings};
use super::capture::Capture;
use super::diagnostics::StreamInfo;
use super::error::NodeError;
use super::frame_path::{CameraOutputs, FramePath};
use super::intake::{Arrivals, Intake};
use super::live::LiveSettings;
use super::memory;
use super::model::LoadedModel;
use super::parameters::{ParameterError, Parameters};
use super::qos::TopicQos;
use super::realtime::{self, ProfileReport, RealtimeProfile};
use super::scene::inputs::SceneInputs;
use super::scene::Scene;
use super::shared::NodeShared;
use super::topics::CameraTopics;
use super::web::hub::Hub;
use super::web::{self, WebPage};

/// How long the frame thread may take to finish the frames in flight.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Stack of the frame thread in bytes, in addition to what is prefaulted.
const STACK: usize = 2 << 20;

/// Most cameras that one node serves.
const MAX_CAMERAS: usize = 64;

/// Least time between two queries of the ROS graph: each runs on the thread that takes all cameras'
/// images.
const GRAPH_QUERY_INTERVAL: Duration = Duration::from_millis(250);

/// The parts of a configured node.
pub struct Configured {
    pub shared: Arc<NodeShared>,
    intakes: Vec<Intake>,
    scenes: Vec<SceneInputs>,
    /// Of each camera, to count subscribers and to destroy them.
    publishers: Vec<Publishers>,
    names: Vec<String>,
    frames: JoinHandle<()>,
    black_box: Option<BlackBox>,
    web: Option<WebPage>,
    last_graph_query: Instant,
}

#[derive(Clone)]
struct Publishers {
    detections: r2r::Publisher<r2r::vision_msgs::msg::Detection2DArray>,
    timing: r2r::Publisher<r2r::peregrine_msgs::msg::FrameTiming>,
    road_mask: r2r::Publisher<r2r::sensor_msgs::msg::Image>,
    segmentation: r2r::Publisher<r2r::sensor_msgs::msg::Image>,
    scene_class: r2r::Publisher<r2r::vision_msgs::msg::Classification>,
}

impl Configured {
    /// Makes everything around `model`; frames flow once it is set active. `accountings` are those
    /// of the cameras. Returns the reports on the frame thread's real-time profile as well.
    ///
    /// # Errors
    /// When ROS refuses a topic; then nothing is left behind.
    pub fn new(
        node: &mut Node,
        parameters: &Parameters,
        model: Box<LoadedModel>,
        names: Vec<String>,
        accountings: Vec<Arc<FrameAccounting>>,
        profile: RealtimeProfile,
    ) -> Result<(Self, Vec<ProfileReport>), NodeError> {
        let shared = Arc::new(NodeShared::new(accountings, LiveSettings::new(parameters)));
        let qos = TopicQos::new(node, parameters)?;
        let mut publishers = Vec::new();
        let (mut intakes, mut scenes, mut outputs) = (Vec::new(), Vec::new(), Vec::new());
        let mut recorded = Vec::new();
        let mut make = |node: &mut Node| -> Result<(), NodeError> {
            for (camera, name) in names.iter().enumerate() {
                let topics = CameraTopics::new(name, &qos);
                let own = parameters.for_camera(name, &names)?;
                publishers.push(Publishers::new(node, &topics)?);
                let intake = Intake::new(node, &own, &topics, Arrivals::new(camera, Arc::clone(&shared)))?;
                let (scene, inputs) = Scene::create(node, &own, &model.classes, intake.topic(), &topics)?;
                recorded.push(recorded_topics(&intake, &topics));
                outputs.push(publishers[camera].outputs(scene));
                intakes.push(intake);
                scenes.push(inputs);
            }
            Ok(qos.check()?)
        };
        if let Err(error) = make(node) {
            drop(outputs);
            publishers.into_iter().for_each(|p| p.destroy(node));
            scenes.into_iter().for_each(|scene| scene.publishers.destroy(node));
            return Err(error);
        }

        let at_source = parameters.text("mask_resolution") == "source";
        let mut frame_path = FramePath::new(model, outputs, Arc::clone(&shared), at_source);
        frame_path.gpu_cameras_at_once = parameters.count("gpu_cameras_at_once");
        let full_name = node.fully_qualified_name()?;
        let settings = Settings::new(parameters, &full_name);
        let start = |settings| BlackBox::start(settings, &full_name, recorded, Arc::clone(&shared));
        let black_box = settings.map(start).transpose()?;
        let web = web::Settings::new(parameters)?.and_then(|settings| serve(settings, &full_name, &names));
        let queues = black_box.iter().map(|b| &b.queue).chain(web.iter().map(|page| &page.queue));
        frame_path.capture = Capture::to(queues.map(Arc::clone).collect());
        let (report, reports) = std::sync::mpsc::sync_channel(1);
        let stack = profile.prefault_stack + STACK;
        let frames = thread::Builder::new().name("frames".into()).stack_size(stack).spawn(move || {
            let _ = report.send(realtime::apply_to_thread(&profile));
            realtime::prefault_stack(profile.prefault_stack);
            frame_path.run();
        })?;
        let reports = reports.recv().unwrap_or_default();
        let last_graph_query = Instant::now();
        Ok((Self { shared, intakes, scenes, publishers, names, frames, black_box, web, last_graph_query }, reports))
    }

    /// Whether images are accepted from now on.
    pub fn set_active(&mut self, active: bool) {
        for intake in &mut self.intakes {
            intake.set_active(active);
        }
    }

    /// Waits until no frame is in flight. False if that takes too long.
    pub fn drain(&self) -> bool {
        let give_up = Instant::now() + DRAIN_TIMEOUT;
        while !self.shared.is_idle() {
            if Instant::now() > give_up || self.frames.is_finished() {
                return false;
            }
            thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Moves what has arrived to the frame thread, and updates which outputs have subscribers. To
    /// be called after every spin.
    pub fn poll(&mut self, node: &Node) {
        for intake in &mut self.intakes {
            intake.take();
        }
        self.query_graph(node);
        for scene in &mut self.scenes {
            scene.poll();
        }
        for (camera, p) in self.shared.cameras.iter().zip(&self.publishers) {
            let has_subscriber = |count: r2r::Result<usize>| count.unwrap_or(0) > 0;
            for (publisher, wanted) in
                [(&p.road_mask, &camera.road_mask_wanted), (&p.segmentation, &camera.segmentation_wanted)]
            {
                wanted.store(has_subscriber(publisher.get_inter_process_subscription_count()), Relaxed);
            }
            camera.scene_wanted.store(has_subscriber(p.scene_class.get_inter_process_subscription_count()), Relaxed);
        }
        while let Some(model) = self.shared.retired.pop() {
            memory::give_back(model);
        }
    }

    /// Queries the ROS graph about the camera that has been silent for longest, or else about the one
    /// that was not asked about for longest, if it is time to.
    fn query_graph(&mut self, node: &Node) {
        if self.last_graph_query.elapsed() < GRAPH_QUERY_INTERVAL {
            return;
        }
        let silent = self.intakes.iter_mut().filter_map(|intake| Some((intake.silence_to_explain()?, intake)));
        if let Some((_, intake)) = silent.max_by_key(|(silence, _)| *silence) {
            intake.query_graph(node);
            self.last_graph_query = Instant::now();
            return;
        }
        let due = self.intakes.iter_mut().filter_map(|intake| Some((intake.look_is_due()?, intake)));
        if let Some((_, intake)) = due.max_by_key(|(elapsed, _)| *elapsed) {
            intake.look_for_rivals(node);
            self.last_graph_query = Instant::now();
        }
    }

    /// The streams as ROS knows them.
    pub fn streams(&self) -> Vec<StreamInfo> {
        let stream = |((name, intake), scene): ((&String, &Intake), &SceneInputs)| StreamInfo {
            name: name.clone(),
            topic: intake.topic().to_owned(),
            publishers: intake.publishers().to_owned(),
            rivals: intake.rivals().map(str::to_owned),
            ground: scene.status(),
        };
        self.names.iter().zip(&self.intakes).zip(&self.scenes).map(stream).collect()
    }

    /// What the web page shows, if there is one.
    pub fn web(&self) -> Option<&Arc<Hub>> {
        self.web.as_ref().map(|page| &page.hub)
    }

    /// For what the black box is to know, if there is one.
    pub fn black_box(&self) -> Option<&Arc<Inbox>> {
        self.black_box.as_ref().map(|black_box| &black_box.inbox)
    }

    /// Replaces the model from the next frame on, and the tables of its classes now.
    pub fn replace_model(&self, model: Box<LoadedModel>) {
        for scene in &self.scenes {
            if let Err(error) = scene.publishers.labels.publish(&model.classes) {
                tracing::error!("the classes of the new model could not be published: {error}");
            }
        }
        self.shared.replacement.force_push(model);
    }

    /// Whether the frame thread is alive; it ends by itself only by a panic.
    pub fn is_alive(&self) -> bool {
        !self.frames.is_finished()
    }

    /// Ends the frame thread once no frame is in flight, and takes everything down.
    ///
    /// # Errors
    /// When the thread had panicked, or is stuck; then the publishers, which it may be using, are
    /// left.
    pub fn end(mut self, node: &mut Node) -> Result<(), NodeError> {
        self.set_active(false);
        self.shared.stop.store(true, Relaxed);
        self.frames.thread().unpark();
        let give_up = Instant::now() + DRAIN_TIMEOUT;
        while !self.frames.is_finished() || self.shared.decoders.load(Acquire) > 0 {
            if Instant::now() > give_up {
                return Err(NodeError::Stuck);
            }
            thread::sleep(Duration::from_millis(1));
        }
        let ended = self.frames.join().map_err(|_| NodeError::FrameThread);
        if ended.is_err() {
            self.shared.abandon();
        }
        self.publishers.into_iter().for_each(|p| p.destroy(node));
        self.scenes.into_iter().for_each(|scene| scene.publishers.destroy(node));
        ended
    }
}

impl Publishers {
    fn new(node: &mut Node, topics: &CameraTopics) -> r2r::Result<Self> {
        let qos = QosProfile::default;
        Ok(Self {
            detections: topics.publisher(node, "detections", qos())?,
            timing: topics.publisher(node, "timing", qos())?,
            road_mask: topics.publisher(node, "road_mask", qos())?,
            segmentation: topics.publisher(node, "segmentation", qos())?,
            scene_class: topics.publisher(node, "scene", qos())?,
        })
    }

    fn outputs(&self, scene: Scene) -> CameraOutputs {
        let Self { detections, timing, road_mask, segmentation, scene_class } = self.clone();
        let (deadlines, levels, smoother) = Default::default();
        CameraOutputs { detections, timing, road_mask, segmentation, scene_class, scene, deadlines, levels, smoother }
    }

    fn destroy(self, node: &mut Node) {
        node.destroy_publisher(self.detections);
        node.destroy_publisher(self.timing);
        node.destroy_publisher(self.road_mask);
        node.destroy_publisher(self.segmentation);
        node.destroy_publisher(self.scene_class);
    }
}

/// The web page; `None` where it cannot be served, which is no reason not to drive.
fn serve(settings: web::Settings, node: &str, names: &[String]) -> Option<WebPage> {
    let address = settings.address;
    match WebPage::start(settings, node, names) {
        Ok(page) => {
            tracing::info!("look at http://{address}/");
            Some(page)
        }
        Err(error) => {
            tracing::error!("the web page cannot be served on {address}: {error}; see web_port and web_address");
            None
        }
    }
}

/// The topics of a camera in a recording. Raw images are compressed, and so below their own topic, as
/// image_transport has it.
fn recorded_topics(intake: &Intake, topics: &CameraTopics) -> CameraTopicNames {
    CameraTopicNames {
        image: intake.compressed_topic(),
        detections: topics.resolve("detections"),
        timing: topics.resolve("timing"),
    }
}

/// The names of the cameras: one without a name if the parameter is empty.
///
/// # Errors
/// When a name is invalid, or occurs twice.
pub fn camera_names(parameters: &Parameters) -> Result<Vec<String>, ParameterError> {
    let text = parameters.text("cameras");
    let names: Vec<_> = text.split(',').map(str::trim).map(str::to_owned).collect();
    if text.trim().is_empty() {
        return Ok(vec![String::new()]);
    }
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let mut sorted = names.clone();
    sorted.sort();
    sorted.dedup();
    if names.iter().all(|name| is_name(name)) && sorted.len() == names.len() && names.len() <= MAX_CAMERAS {
        return Ok(names);
    }
    Err(ParameterError::NotPermitted {
        name: "cameras".into(),
        expected: format!("at most {MAX_CAMERAS} different names of letters, digits and _, separated by commas"),
        found: format!("'{text}'"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::ParameterValue;

    fn names(text: &str) -> Result<Vec<String>, ParameterError> {
        let cameras = ("cameras".to_owned(), ParameterValue::String(text.into()));
        camera_names(&Parameters::with([cameras]).unwrap())
    }

    #[test]
    fn camera_names_are_separated_by_commas() {
        assert_eq!(names(""), Ok(vec![String::new()]));
        assert_eq!(names("front, rear"), Ok(vec!["front".into(), "rear".into()]));
        for wrong in ["front,front", "front,,rear", "front camera", "/front", "1st"] {
            assert!(names(wrong).is_err(), "{wrong}");
        }
    }
}
