//! From the middleware into the slot: the thread that spins the node takes images out, stamps and counts them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as StdInstant};

use futures::{FutureExt, Stream, StreamExt};
use r2r::{Clock, Node, QosProfile};

use crate::pipeline::camera::{StampCounts, StampWatch};
use crate::pipeline::{now_ns, Outcome};

use super::clock::Instant;
use super::error::NodeError;
use super::frame_path::{Age, Shared};
use super::incoming::{Frame, ImageMessage};
use super::messages::stamp;
use super::parameters::Parameters;
use super::qos;
use super::record::Record;
use super::topics::CameraTopics;

/// How often, while no images come, ROS is asked who publishes them.
const INQUIRY: Duration = Duration::from_secs(1);

const RAW: &str = "sensor_msgs/msg/Image";
const COMPRESSED: &str = "sensor_msgs/msg/CompressedImage";

/// The subscription to the images of one camera.
pub struct Intake {
    images: Box<dyn Stream<Item = ImageMessage> + Unpin>,
    topic: String,
    message_type: &'static str,
    qos: QosProfile,
    clock: Arc<Mutex<Clock>>,
    arrivals: Arrivals,
    last_sign: StdInstant,
    publishers: String,
}

/// What becomes of the images of one camera as they arrive.
pub struct Arrivals {
    camera: usize,
    shared: Arc<Shared>,
    stamps: StampWatch,
    /// Whether images are accepted; others are let go, and never count as arrived.
    pub active: bool,
}

/// [`StampCounts`] for other threads to read.
#[derive(Debug, Default)]
pub struct StreamCounts {
    missing: AtomicU64,
    duplicates: AtomicU64,
    out_of_order: AtomicU64,
    jumps: AtomicU64,
}

impl StreamCounts {
    fn store(&self, counts: &StampCounts) {
        self.missing.store(counts.missing, Relaxed);
        self.duplicates.store(counts.duplicates, Relaxed);
        self.out_of_order.store(counts.out_of_order, Relaxed);
        self.jumps.store(counts.jumps, Relaxed);
    }

    pub fn load(&self) -> StampCounts {
        StampCounts {
            missing: self.missing.load(Relaxed),
            duplicates: self.duplicates.load(Relaxed),
            out_of_order: self.out_of_order.load(Relaxed),
            jumps: self.jumps.load(Relaxed),
        }
    }
}

/// Due time, in [`Waiting`](crate::pipeline::Waiting)'s order, of an image where there is no deadline: as if it were
/// this many nanoseconds from arrival. The same for all cameras, so that the one that has waited longest comes first.
const NO_DEADLINE: i64 = 1_000_000_000;

impl Arrivals {
    pub fn new(camera: usize, shared: Arc<Shared>) -> Self {
        Self { camera, shared, stamps: StampWatch::default(), active: false }
    }

    /// Counts an image that arrived at `arrival`, and puts it where the frame thread finds it.
    pub fn accept(&mut self, message: ImageMessage, arrival: Instant) {
        debug_assert!(!message.is_loaned(), "images cannot be lent");
        if !self.active {
            return;
        }
        let camera = &self.shared.cameras[self.camera];
        self.stamps.observe(stamp(message.header()));
        camera.stream.store(&self.stamps.counts());
        let sequence = camera.ledger.arrive();
        // Here and not when it is worked on, so that an unusable image never takes the place of a good one.
        if let Err(error) = message.check() {
            camera.ledger.end(Outcome::Rejected);
            camera.records.force_push(Record::Rejected(error.into()));
            return;
        }
        let frame = Frame { camera: self.camera, sequence, message, arrival };
        // When the deadline falls on the monotonic clock; long ago for an image that is past it.
        let age = Age::of(&frame, frame.message.header()).at(arrival.monotonic);
        let left = self.shared.settings.load().deadline.unwrap_or(NO_DEADLINE).saturating_sub(age);
        let due = (arrival.monotonic as i64).saturating_add(left).max(0) as u64;
        if let Some(superseded) = self.shared.waiting.put(self.camera, frame, due) {
            camera.ledger.end(Outcome::Superseded);
            drop(superseded);
        }
    }
}

impl Intake {
    /// Subscribes to a camera's images, as its `parameters` say, as a sensor's reader does: best effort, so that no lost
    /// packet holds up what follows it.
    ///
    /// # Errors
    /// When ROS refuses the topic.
    pub fn new(
        node: &mut Node,
        parameters: &Parameters,
        topics: &CameraTopics,
        arrivals: Arrivals,
    ) -> Result<Self, NodeError> {
        let compressed = parameters.text("image_transport") == "compressed";
        let mut name = topics.name(parameters.text("image_topic"));
        let mut topic = topics.resolve(parameters.text("image_topic"));
        if compressed {
            // As image_transport has it: below the image topic, wherever that was remapped to.
            topic += "/compressed";
            name.clone_from(&topic);
        }
        let refuse = |error: r2r::Error| NodeError::Topic { name: name.clone(), why: error.to_string() };
        let qos = topics.subscription(&name, QosProfile::sensor_data());
        let (images, message_type): (Box<dyn Stream<Item = ImageMessage> + Unpin>, _) = match compressed {
            true => {
                let images = node.subscribe_native(&name, qos.clone()).map_err(refuse)?;
                (Box::new(images.map(ImageMessage::Compressed)), COMPRESSED)
            }
            false => {
                let images = node.subscribe_native(&name, qos.clone()).map_err(refuse)?;
                (Box::new(images.map(ImageMessage::Raw)), RAW)
            }
        };
        Ok(Self {
            images,
            topic,
            message_type,
            qos,
            clock: node.get_ros_clock(),
            arrivals,
            last_sign: StdInstant::now(),
            publishers: "ROS was not asked for publishers yet".into(),
        })
    }

    /// The topic's full name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Who publishes images, in words; kept up to date while none arrive.
    pub fn publishers(&self) -> &str {
        &self.publishers
    }

    /// Whether images that arrive from now on are accepted.
    pub fn set_active(&mut self, active: bool) {
        self.arrivals.active = active;
    }

    /// Moves what has arrived to the frame thread. To be called after every spin: r2r queues ten messages and then
    /// drops the newest, the opposite of what is wanted here.
    pub fn take(&mut self, node: &Node) {
        let Ok(now) = self.now() else { return };
        self.arrivals.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        while let Some(message) = self.images.next().now_or_never().flatten() {
            self.last_sign = StdInstant::now();
            self.arrivals.accept(message, now);
        }
        if self.last_sign.elapsed() >= INQUIRY {
            self.last_sign = StdInstant::now();
            self.publishers = self.inquire(node);
        }
    }

    fn now(&self) -> r2r::Result<Instant> {
        let mut clock = self.clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(Instant { ros: clock.get_now()?.as_nanos() as i64, monotonic: now_ns() })
    }

    /// Why there may be no images, as far as the ROS graph tells.
    fn inquire(&self, node: &Node) -> String {
        let Ok(publishers) = node.get_publishers_info_by_topic(&self.topic, false) else {
            return "ROS does not say who publishes it".into();
        };
        if let Some(other) = publishers.iter().find(|p| p.topic_type != self.message_type) {
            let (node, theirs, ours) = (&other.node_name, &other.topic_type, self.message_type);
            return format!("{node} publishes {theirs} there, and this node takes {ours}; see image_transport");
        }
        if publishers.is_empty() {
            return match self.elsewhere(node)[..] {
                [] => format!("nobody publishes it, nor any {} elsewhere", self.message_type),
                ref topics => format!("nobody publishes it; remap it to one of {}", topics.join(", ")),
            };
        }
        for publisher in &publishers {
            let reasons = qos::incompatibilities(&publisher.qos_profile, &self.qos);
            if !reasons.is_empty() {
                let (name, topic) = (&publisher.node_name, &self.topic);
                let reasons = reasons.join("; ");
                return format!(
                    "the QoS of {name} does not go with this node's ({reasons}); see qos_overrides.{topic}"
                );
            }
        }
        let names: Vec<_> = publishers.iter().map(|p| p.node_name.as_str()).collect();
        format!("{} publishes it with a QoS that suits, but sends nothing", names.join(", "))
    }

    /// Other topics on which somebody publishes messages of our type.
    fn elsewhere(&self, node: &Node) -> Vec<String> {
        let topics = node.get_topic_names_and_types().unwrap_or_default();
        let ours = topics.into_iter().filter(|(_, types)| types.iter().any(|t| t == self.message_type));
        let is_published =
            |topic: &String| node.get_publishers_info_by_topic(topic, false).is_ok_and(|p| !p.is_empty());
        let own = ["/road_mask", "/segmentation", "/debug_image", "/debug_image/compressed"];
        let mut names: Vec<_> = ours
            .map(|(topic, _)| topic)
            .filter(|topic| !own.iter().any(|own| topic.ends_with(own)) && is_published(topic))
            .collect();
        names.sort();
        names
    }
}
