//! From the middleware into the slot: the thread that spins the node takes images out, stamps and counts them.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as StdInstant};

use futures::{FutureExt, Stream, StreamExt};
use r2r::{Clock, Node, QosProfile};

use crate::pipeline::{now_ns, Outcome};

use super::clock::Instant;
use super::frame_path::Shared;
use super::incoming::{Frame, ImageMessage};
use super::node::NodeError;
use super::parameters::Parameters;
use super::topics;

/// How often, while no images come, ROS is asked who publishes them.
const INQUIRY: Duration = Duration::from_secs(1);

const RAW: &str = "sensor_msgs/msg/Image";
const COMPRESSED: &str = "sensor_msgs/msg/CompressedImage";

/// The subscription to images.
pub struct Intake {
    images: Box<dyn Stream<Item = ImageMessage> + Unpin>,
    topic: String,
    message_type: &'static str,
    clock: Arc<Mutex<Clock>>,
    shared: Arc<Shared>,
    sequence: u64,
    last_sign: StdInstant,
    publishers: Arc<Mutex<String>>,
}

impl Intake {
    /// Subscribes as a sensor's reader does: best effort, so that no lost packet holds up what follows it.
    ///
    /// # Errors
    /// When ROS refuses the topic.
    pub fn new(node: &mut Node, parameters: &Parameters, shared: Arc<Shared>) -> Result<Self, NodeError> {
        let name = parameters.text("image_topic");
        let resolved = topics::resolve(name, &node.namespace()?, &node.name()?);
        let refuse = |error: r2r::Error| NodeError::Topic { name: name.to_owned(), why: error.to_string() };
        let qos = QosProfile::sensor_data();
        let (images, topic, message_type): (Box<dyn Stream<Item = ImageMessage> + Unpin>, _, _) =
            match parameters.text("image_transport") {
                "compressed" => {
                    // As image_transport has it: below the image topic, wherever that was remapped to.
                    let topic = format!("{resolved}/compressed");
                    let images = node.subscribe_native(&topic, qos).map_err(refuse)?;
                    (Box::new(images.map(ImageMessage::Compressed)), topic, COMPRESSED)
                }
                _ => {
                    let images = node.subscribe_native(name, qos).map_err(refuse)?;
                    (Box::new(images.map(ImageMessage::Raw)), resolved, RAW)
                }
            };
        Ok(Self {
            images,
            topic,
            message_type,
            clock: node.get_ros_clock(),
            shared,
            sequence: 0,
            last_sign: StdInstant::now(),
            publishers: Arc::new(Mutex::new("ROS was not asked for publishers yet".into())),
        })
    }

    /// The topic's full name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Who publishes images, in words; kept up to date while none arrive.
    pub fn publishers(&self) -> Arc<Mutex<String>> {
        Arc::clone(&self.publishers)
    }

    /// Moves what has arrived into the slot. To be called after every spin: r2r queues ten messages and then drops the
    /// newest, the opposite of what is wanted here.
    pub fn take(&mut self, node: &Node) {
        let Ok(now) = self.now() else { return };
        self.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        while let Some(message) = self.images.next().now_or_never().flatten() {
            self.last_sign = StdInstant::now();
            self.accept(message, now);
        }
        if self.last_sign.elapsed() >= INQUIRY {
            self.last_sign = StdInstant::now();
            let text = self.inquire(node);
            if let Ok(mut publishers) = self.publishers.lock() {
                *publishers = text;
            }
        }
    }

    fn accept(&mut self, message: ImageMessage, arrival: Instant) {
        debug_assert!(!message.is_loaned(), "images cannot be lent");
        self.sequence += 1;
        self.shared.ledger.arrive();
        if let Some(superseded) = self.shared.slot.put(Frame { message, arrival, sequence: self.sequence }) {
            self.shared.ledger.end(Outcome::Superseded);
            drop(superseded);
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
        // A best-effort, volatile reader matches writers of any reliability and durability.
        let names: Vec<_> = publishers.iter().map(|p| p.node_name.as_str()).collect();
        format!("{} publishes it with a QoS that suits, but sends nothing", names.join(", "))
    }

    /// Other topics on which somebody publishes messages of our type.
    fn elsewhere(&self, node: &Node) -> Vec<String> {
        let topics = node.get_topic_names_and_types().unwrap_or_default();
        let ours = topics.into_iter().filter(|(_, types)| types.iter().any(|t| t == self.message_type));
        let is_published =
            |topic: &String| node.get_publishers_info_by_topic(topic, false).is_ok_and(|p| !p.is_empty());
        let own = ["road_mask", "segmentation"];
        let mut names: Vec<_> = ours
            .map(|(topic, _)| topic)
            .filter(|topic| !own.contains(&topic.rsplit('/').next().unwrap_or_default()) && is_published(topic))
            .collect();
        names.sort();
        names
    }
}
