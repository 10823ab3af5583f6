//! What is published of a frame after its detections: where things go, where they stand, and how it looks.
//!
//! Each output is made only while somebody subscribes to it. All but the picture are made on the frame thread, in
//! messages that are used again and again; the picture is drawn on a thread of its own.
//!
//! - here: [`Scene`], which the frame thread owns, and what it shares with the thread that spins.
//! - [`inputs`]: the spinning thread's side: subscribers, `CameraInfo`, the ground's geometry.
//! - [`tracks`], [`objects`], [`map`], [`markers`]: the messages. [`labels`]: the class table, latched.
//! - [`picture`]: the annotated image.

pub mod inputs;
pub mod labels;
pub mod map;
pub mod markers;
pub mod objects;
pub mod picture;
mod sequence;
pub mod tracks;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use peregrine_geometry::occupancy::OccupancyGrid;
use peregrine_geometry::Ground;
use peregrine_pipeline::FrameResult;
use peregrine_student::Architecture;
use r2r::{Node, Publisher, QosProfile};

use super::error::NodeError;
use super::incoming::Frame;
use super::messages::NativeHeader;
use super::parameters::Parameters;
use super::topics::CameraTopics;
use inputs::SceneInputs;
use map::MapMessage;
use markers::MarkersMessage;
use objects::{Objects, ObjectsMessage};
use picture::{Painter, PictureThread};
use tracks::TracksMessage;

/// Every topic of a scene, with its type, below the camera's name.
pub const TOPICS: [(&str, &str); 7] = [
    ("tracks", "peregrine_msgs/msg/Track2DArray"),
    ("objects", "vision_msgs/msg/Detection3DArray"),
    ("drivable_ground", "nav_msgs/msg/OccupancyGrid"),
    ("markers", "visualization_msgs/msg/MarkerArray"),
    ("label_info", "vision_msgs/msg/LabelInfo"),
    ("debug_image", "sensor_msgs/msg/Image"),
    ("debug_image/compressed", "sensor_msgs/msg/CompressedImage"),
];

/// What the frame thread needs to place things on the ground; made on the spinning thread.
pub struct View {
    pub ground: Ground,
    pub map: OccupancyGrid,
}

/// What somebody subscribes to.
#[derive(Debug, Default)]
pub struct Wanted {
    pub tracks: AtomicBool,
    pub objects: AtomicBool,
    pub map: AtomicBool,
    pub markers: AtomicBool,
    pub picture: AtomicBool,
}

/// What the two threads of a scene share. Neither ever waits for the other.
pub struct SceneShared {
    pub wanted: Wanted,
    /// A view to go on with, and those replaced, for the spinning thread to drop.
    view: ArrayQueue<Box<View>>,
    retired: ArrayQueue<Box<View>>,
}

/// The frame thread's side.
pub struct Scene {
    shared: Arc<SceneShared>,
    view: Option<Box<View>>,
    road_class: Option<u8>,
    objects: Objects,
    tracks: (Publisher<r2r::peregrine_msgs::msg::Track2DArray>, TracksMessage),
    placed: (Publisher<r2r::vision_msgs::msg::Detection3DArray>, ObjectsMessage),
    map: (Publisher<r2r::nav_msgs::msg::OccupancyGrid>, MapMessage),
    markers: (Publisher<r2r::visualization_msgs::msg::MarkerArray>, MarkersMessage),
    picture: PictureThread,
}

impl Scene {
    /// Makes the outputs of a camera, whose `parameters` these are: the frame thread's side and the spinning thread's.
    /// `image_topic` is the resolved topic of its images.
    ///
    /// # Errors
    /// When ROS refuses a topic, a parameter is not understood, or no thread can be had.
    pub fn create(
        node: &mut Node,
        parameters: &Parameters,
        architecture: &Architecture,
        image_topic: &str,
        topics: &CameraTopics,
    ) -> Result<(Self, SceneInputs), NodeError> {
        let shared =
            Arc::new(SceneShared { wanted: Wanted::default(), view: ArrayQueue::new(1), retired: ArrayQueue::new(4) });
        let qos = QosProfile::default;
        let classes = &architecture.detection.classes;
        let most = parameters.count("max_detections");
        let tracks_most = peregrine_track::TrackerOptions::default().max_tracks;
        let tracks = topics.publisher(node, "tracks", qos())?;
        let placed = topics.publisher(node, "objects", qos())?;
        let map = topics.publisher(node, "drivable_ground", qos())?;
        let markers = topics.publisher(node, "markers", qos())?;
        let raw = topics.publisher(node, "debug_image", qos())?;
        let compressed = topics.publisher(node, "debug_image/compressed", qos())?;
        let labels = labels::publish(node, topics, architecture, parameters.real("score_threshold"))?;

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
        let road = architecture.segmentation.classes.iter().position(|name| name == "road");
        let road_class = road.and_then(|i| u8::try_from(i).ok());
        let painter = Painter::new(classes.clone(), road_class);
        Ok((
            Self {
                shared,
                view: None,
                road_class,
                objects: Objects::with_capacity(most),
                tracks: (tracks, TracksMessage::new(classes, tracks_most)),
                placed: (placed, ObjectsMessage::new(classes, most, frame)),
                map: (map, MapMessage::new(frame)),
                markers: (markers, MarkersMessage::new(classes, most, frame)),
                picture: PictureThread::start(painter, raw, compressed)?,
            },
            inputs,
        ))
    }

    /// Publishes what somebody wants of a frame. False when the middleware refuses a message.
    pub fn publish(&mut self, header: &NativeHeader, result: &FrameResult) -> bool {
        let wanted = |flag: &AtomicBool| flag.load(Relaxed);
        let mut good = true;
        if wanted(&self.shared.wanted.tracks) {
            let (publisher, message) = &mut self.tracks;
            message.fill(header, &result.tracks);
            good &= publisher.publish_native(&mut message.native).is_ok();
        }
        if let Some(view) = self.shared.view.pop() {
            if let Some(old) = self.view.replace(view) {
                let _ = self.shared.retired.push(old);
            }
        }
        if let Some(view) = &mut self.view {
            let (objects, markers) = (wanted(&self.shared.wanted.objects), wanted(&self.shared.wanted.markers));
            if objects || markers {
                self.objects.place(&view.ground, result);
            }
            if objects {
                let (publisher, message) = &mut self.placed;
                message.fill(header, self.objects.placed());
                good &= publisher.publish_native(&mut message.native).is_ok();
            }
            if markers {
                let (publisher, message) = &mut self.markers;
                message.fill(header, self.objects.placed());
                good &= publisher.publish_native(&mut message.native).is_ok();
            }
            if let (true, Some(road)) =
                (wanted(&self.shared.wanted.map) && !result.mask.classes.is_empty(), self.road_class)
            {
                let (publisher, message) = &mut self.map;
                let extent = *view.map.extent();
                message.fill(header, &extent, view.map.fill(&result.mask, road));
                good &= publisher.publish_native(&mut message.native).is_ok();
            }
        }
        if wanted(&self.shared.wanted.picture) {
            self.picture.prepare(result);
        }
        good
    }

    /// What this side shares with the spinning thread's.
    pub fn shared(&self) -> &Arc<SceneShared> {
        &self.shared
    }

    /// Hands a frame that is done with to whoever draws it, if anybody wants to see it.
    pub fn look(&mut self, frame: Frame) {
        self.picture.draw(frame);
    }
}
