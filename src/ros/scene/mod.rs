//! What is published of a frame after its detections: tracks, objects on the ground, and the
//! annotated image.
//!
//! Each output is made only while it has subscribers. All but the annotated image are made on the
//! frame thread, in messages that are reused; the image is drawn on a thread of its own.
//!
//! - here: [`Scene`], which the frame thread owns. `shared`: what it shares with the spinning thread.
//! - [`inputs`]: the spinning thread's side: subscribers, `CameraInfo`, the geometry of the ground.
//! - [`tracks`], [`objects`], [`map`], [`markers`]: the messages. [`labels`]: the tables of
//!   classes, latched.
//! - [`painter`]: the annotated image; `drawing`: the thread that draws it.

mod drawing;
pub mod inputs;
pub mod labels;
pub mod map;
pub mod markers;
pub mod objects;
pub mod painter;
mod sequence;
mod shared;
pub mod tracks;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use peregrine_pipeline::FrameResult;
use r2r::{Node, Publisher, QosProfile};

use super::error::NodeError;
use super::incoming::Frame;
use super::messages::NativeHeader;
use super::model::ModelClasses;
use super::parameters::Parameters;
use super::topics::CameraTopics;
use drawing::DrawingThread;
use inputs::SceneInputs;
use labels::Labels;
use map::MapMessage;
use markers::MarkersMessage;
use objects::{Objects, ObjectsMessage};
use shared::{GroundView, SceneShared};
use tracks::TracksMessage;

/// Every topic of a scene, with its type, below the camera's name.
pub const TOPICS: [(&str, &str); 8] = [
    ("tracks", "peregrine_msgs/msg/Track2DArray"),
    ("objects", "vision_msgs/msg/Detection3DArray"),
    ("drivable_ground", "nav_msgs/msg/OccupancyGrid"),
    ("markers", "visualization_msgs/msg/MarkerArray"),
    ("label_info", "vision_msgs/msg/LabelInfo"),
    ("detection_label_info", "vision_msgs/msg/LabelInfo"),
    ("debug_image", "sensor_msgs/msg/Image"),
    ("debug_image/compressed", "sensor_msgs/msg/CompressedImage"),
];

/// The frame thread's side.
pub struct Scene {
    shared: Arc<SceneShared>,
    view: Option<Box<GroundView>>,
    objects: Objects,
    tracks: (Publisher<r2r::peregrine_msgs::msg::Track2DArray>, TracksMessage),
    placed: (Publisher<r2r::vision_msgs::msg::Detection3DArray>, ObjectsMessage),
    map: (Publisher<r2r::nav_msgs::msg::OccupancyGrid>, MapMessage),
    markers: (Publisher<r2r::visualization_msgs::msg::MarkerArray>, MarkersMessage),
    drawing: DrawingThread,
}

impl Scene {
    /// Makes the outputs of a camera, whose `parameters` these are: the frame thread's side and the
    /// spinning thread's. `image_topic` is the resolved topic of its images.
    ///
    /// # Errors
    /// When ROS refuses a topic, a parameter is invalid, or no thread can be started.
    pub fn create(
        node: &mut Node,
        parameters: &Parameters,
        classes: &ModelClasses,
        image_topic: &str,
        topics: &CameraTopics,
    ) -> Result<(Self, SceneInputs), NodeError> {
        let shared = Arc::new(SceneShared::new());
        let qos = QosProfile::default;
        let max_objects = parameters.count("max_detections");
        let max_tracks = peregrine_track::TrackerOptions::default().max_tracks;
        let tracks = topics.publisher(node, "tracks", qos())?;
        let placed = topics.publisher(node, "objects", qos())?;
        let map = topics.publisher(node, "drivable_ground", qos())?;
        let markers = topics.publisher(node, "markers", qos())?;
        let raw = topics.publisher(node, "debug_image", qos())?;
        let compressed = topics.publisher(node, "debug_image/compressed", qos())?;
        let labels = Labels::new(node, topics, parameters.real("score_threshold"))?;
        labels.publish(classes)?;

        let inputs = SceneInputs::new(
            node,
            parameters,
            image_topic,
            topics,
            Arc::clone(&shared),
            inputs::Publishers {
                tracks: tracks.clone(),
                objects: placed.clone(),
                map: map.clone(),
                markers: markers.clone(),
                raw: raw.clone(),
                compressed: compressed.clone(),
                labels,
            },
        )?;
        let frame = parameters.text("ground_frame");
        Ok((
            Self {
                shared,
                view: None,
                objects: Objects::with_capacity(max_objects),
                tracks: (tracks, TracksMessage::new(max_tracks)),
                placed: (placed, ObjectsMessage::new(max_objects, frame)),
                map: (map, MapMessage::new(frame)),
                markers: (markers, MarkersMessage::new(max_objects, frame)),
                drawing: DrawingThread::start(raw, compressed)?,
            },
            inputs,
        ))
    }

    /// Publishes the outputs that have subscribers, of a frame of a model with `classes`. False if
    /// the middleware refuses a message.
    pub fn publish(&mut self, header: &NativeHeader, result: &FrameResult, classes: &Arc<ModelClasses>) -> bool {
        let wanted = |flag: &AtomicBool| flag.load(Relaxed);
        let mut published = true;
        if wanted(&self.shared.wanted.tracks) {
            let (publisher, message) = &mut self.tracks;
            message.fill(header, &result.tracks, &classes.detection);
            published &= publisher.publish_native(&mut message.native).is_ok();
        }
        self.take_view();
        published &= self.publish_on_ground(header, result, classes);
        if wanted(&self.shared.wanted.image) {
            self.drawing.prepare(result, classes);
        }
        published
    }

    /// Takes over the geometry of the ground that the newest `CameraInfo` gives, or that it gives
    /// none.
    fn take_view(&mut self) {
        let Some(view) = self.shared.view.pop() else { return };
        self.shared.set_misfit(None);
        if let Some(old) = std::mem::replace(&mut self.view, view) {
            let _ = self.shared.retired.push(old);
        }
    }

    /// The outputs that need the geometry of the ground; none for an image of another size than the
    /// `CameraInfo` is for.
    fn publish_on_ground(&mut self, header: &NativeHeader, result: &FrameResult, classes: &ModelClasses) -> bool {
        let Some(view) = &mut self.view else { return true };
        let size = (result.size.0 as u32, result.size.1 as u32);
        let misfit = (view.ground.camera.size() != size).then_some(size);
        self.shared.set_misfit(misfit);
        if misfit.is_some() {
            return true;
        }
        let wanted = |flag: &AtomicBool| flag.load(Relaxed);
        let mut published = true;
        let (objects, markers) = (wanted(&self.shared.wanted.objects), wanted(&self.shared.wanted.markers));
        if objects || markers {
            self.objects.place(&view.ground, result);
        }
        if objects {
            let (publisher, message) = &mut self.placed;
            message.fill(header, self.objects.placed(), &classes.detection);
            published &= publisher.publish_native(&mut message.native).is_ok();
        }
        if markers {
            let (publisher, message) = &mut self.markers;
            message.fill(header, self.objects.placed(), &classes.detection);
            published &= publisher.publish_native(&mut message.native).is_ok();
        }
        let has_mask = !result.mask.classes.is_empty();
        if wanted(&self.shared.wanted.map) && has_mask && classes.has_road() {
            let (publisher, message) = &mut self.map;
            let extent = *view.map.extent();
            message.fill(header, &extent, view.map.fill(&result.mask, |class| classes.is_road(class)));
            published &= publisher.publish_native(&mut message.native).is_ok();
        }
        published
    }

    /// What this side shares with the spinning thread's.
    pub fn shared(&self) -> &Arc<SceneShared> {
        &self.shared
    }

    /// Gives a processed frame away to be drawn, if the annotated image has subscribers.
    pub fn submit_for_drawing(&mut self, frame: Frame) {
        self.drawing.submit(frame);
    }
}
