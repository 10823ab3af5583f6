//! The other side of the node: a camera that publishes images, and a subscriber to its outputs.
//!
//! For benchmarks that measure a node over the middleware without using ROS themselves. ROS times
//! are nanoseconds since the epoch.

use std::time::Duration;

use futures::{FutureExt, Stream, StreamExt};
use peregrine_core::ImageView;
use r2r::builtin_interfaces::msg::Time;
use r2r::peregrine_msgs::msg::FrameTiming;
use r2r::sensor_msgs::msg::Image;
use r2r::std_msgs::msg::Header;
use r2r::vision_msgs::msg::Detection2DArray;
use r2r::{NativeMsg, Node, Publisher, QosProfile};

use crate::context;
use crate::error::NodeError;

type Stamped<T> = Box<dyn Stream<Item = T> + Unpin>;

/// This process as a ROS node.
pub struct Client(Node);

impl Client {
    /// # Errors
    /// When ROS cannot start, as with an unusable ROS_DOMAIN_ID or without a folder for its log.
    pub fn create(name: &str) -> Result<Self, NodeError> {
        Ok(Self(Node::create(context::create()?, name, "")?))
    }

    /// The other nodes that publish on `topic`, by name.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn other_publishers(&self, topic: &str) -> Result<Vec<String>, NodeError> {
        let topic = if topic.starts_with('/') { topic.to_owned() } else { format!("/{topic}") };
        let (own, publishers) = (self.0.name()?, self.0.get_publishers_info_by_topic(&topic, false)?);
        let others = publishers.into_iter().filter(|publisher| publisher.node_name != own);
        Ok(others.map(|publisher| publisher.node_name).collect())
    }

    /// Receives what has come, or waits up to `timeout` for something.
    pub fn spin_once(&mut self, timeout: Duration) {
        self.0.spin_once(timeout);
    }
}

/// The times of a `FrameTiming`; 0 for a stage not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTimes {
    /// The image's stamp.
    pub stamp: i64,
    /// Number of the frame among those that arrived at the node.
    pub sequence: u64,
    pub arrival: i64,
    pub preprocess_start: i64,
    pub preprocess_end: i64,
    pub inference_end: i64,
    pub decode_end: i64,
    pub track_end: i64,
    pub publish: i64,
    /// Whether the frame was dropped since it was late, so that no detections follow.
    pub dropped_late: bool,
}

/// The topics of one camera of a node, as they are passed to ROS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTopics {
    pub image: String,
    pub detections: String,
    pub timing: String,
}

impl LinkTopics {
    /// `image`, `detections` and `timing` below `prefix`.
    pub fn below(prefix: &str) -> Self {
        let of = |topic: &str| format!("{prefix}{topic}");
        Self { image: of("image"), detections: of("detections"), timing: of("timing") }
    }
}

/// One node's topics of one camera.
pub struct NodeLink {
    images: Publisher<Image>,
    /// Those of all subscriptions to the one topic.
    detections: Vec<Stamped<NativeMsg<Detection2DArray>>>,
    timing: Stamped<FrameTiming>,
}

impl NodeLink {
    /// A link to this project's node.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn new(client: &mut Client, topics: &LinkTopics) -> Result<Self, NodeError> {
        // A camera's: the newest image, as it comes.
        Self::with_qos(client, topics, QosProfile::sensor_data().keep_last(1), &[QosProfile::default()])
    }

    /// A link to a node of unknown quality of service: whether it is reliable or best effort at either end, it takes
    /// the images and its detections are received, maybe twice.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn to_any(client: &mut Client, topics: &LinkTopics) -> Result<Self, NodeError> {
        let qos = QosProfile::default();
        Self::with_qos(client, topics, qos.clone().keep_last(5), &[qos.clone(), qos.best_effort()])
    }

    fn with_qos(
        client: &mut Client,
        topics: &LinkTopics,
        camera: QosProfile,
        detections: &[QosProfile],
    ) -> Result<Self, NodeError> {
        let node = &mut client.0;
        let images = node.create_publisher(&topics.image, camera)?;
        let mut subscribe = |qos: &QosProfile| -> Result<Stamped<_>, NodeError> {
            Ok(Box::new(node.subscribe_native(&topics.detections, qos.clone())?))
        };
        let detections = detections.iter().map(&mut subscribe).collect::<Result<_, _>>()?;
        Ok(Self { images, detections, timing: Box::new(node.subscribe(&topics.timing, QosProfile::default())?) })
    }

    /// Where images are published, also from another thread.
    pub fn camera(&self) -> ImagePublisher {
        ImagePublisher(self.images.clone())
    }

    /// Stamp of the next detections that were received, and their number.
    pub fn next_detections(&mut self) -> Option<(i64, usize)> {
        let message = self.detections.iter_mut().find_map(|received| received.next().now_or_never().flatten())?;
        let stamp = &message.header.stamp;
        Some((nanoseconds(stamp.sec, stamp.nanosec), message.detections.size))
    }

    /// The next timing that was received.
    pub fn next_timing(&mut self) -> Option<FrameTimes> {
        let timing = self.timing.next().now_or_never().flatten()?;
        let of = |time: &Time| nanoseconds(time.sec, time.nanosec);
        Some(FrameTimes {
            stamp: of(&timing.header.stamp),
            sequence: timing.sequence,
            arrival: of(&timing.arrival),
            preprocess_start: of(&timing.preprocess_start),
            preprocess_end: of(&timing.preprocess_end),
            inference_end: of(&timing.inference_end),
            decode_end: of(&timing.decode_end),
            track_end: of(&timing.track_end),
            publish: of(&timing.publish),
            dropped_late: timing.verdict == FrameTiming::DROPPED_LATE as u8,
        })
    }
}

/// The publisher of images of one link.
#[derive(Clone)]
pub struct ImagePublisher(Publisher<Image>);

impl ImagePublisher {
    /// The number of subscribers in other processes.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn subscribers(&self) -> Result<usize, NodeError> {
        Ok(self.0.get_inter_process_subscription_count()?)
    }

    /// Publishes an image with a stamp.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn publish(&self, image: &mut CameraImage, stamp: i64) -> Result<(), NodeError> {
        let header = &mut image.0.header;
        header.stamp.sec = i32::try_from(stamp.div_euclid(1_000_000_000)).unwrap_or(i32::MAX);
        header.stamp.nanosec = stamp.rem_euclid(1_000_000_000) as u32;
        Ok(self.0.publish_native(&mut image.0)?)
    }
}

/// An image as a message, made once and published again and again.
pub struct CameraImage(NativeMsg<Image>);

// SAFETY: a message owns its memory, which C allocated and any thread may use and free; none is
// loaned.
unsafe impl Send for CameraImage {}

impl CameraImage {
    /// A copy of `view`, without padding.
    pub fn new(view: &ImageView) -> Self {
        let encoding = view.encoding();
        let data: Vec<u8> = view.rows().flatten().copied().collect();
        let (width, height) = (view.width() as u32, view.height() as u32);
        let step = encoding.row_bytes(view.width()) as u32;
        let is_bigendian = u8::from(encoding.is_big_endian());
        let header = Header { frame_id: "bench".into(), ..Default::default() };
        let image = Image { header, width, height, step, encoding: encoding.ros_name().into(), is_bigendian, data };
        Self(NativeMsg::<Image>::from(&image))
    }
}

fn nanoseconds(sec: i32, nanosec: u32) -> i64 {
    i64::from(sec) * 1_000_000_000 + i64::from(nanosec)
}
