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

/// One node's topics.
pub struct NodeLink {
    images: Publisher<Image>,
    detections: Stamped<NativeMsg<Detection2DArray>>,
    timing: Stamped<FrameTiming>,
}

impl NodeLink {
    /// On the topics `image`, `detections` and `timing` below `prefix`.
    ///
    /// # Errors
    /// When ROS refuses.
    pub fn new(client: &mut Client, prefix: &str) -> Result<Self, NodeError> {
        let node = &mut client.0;
        // A camera's: the newest image, as it comes.
        let camera = QosProfile::sensor_data().keep_last(1);
        Ok(Self {
            images: node.create_publisher(&format!("{prefix}image"), camera)?,
            detections: Box::new(node.subscribe_native(&format!("{prefix}detections"), QosProfile::default())?),
            timing: Box::new(node.subscribe(&format!("{prefix}timing"), QosProfile::default())?),
        })
    }

    /// Where images are published, also from another thread.
    pub fn camera(&self) -> ImagePublisher {
        ImagePublisher(self.images.clone())
    }

    /// Stamp of the next detections that were received, and their number.
    pub fn next_detections(&mut self) -> Option<(i64, usize)> {
        let message = self.detections.next().now_or_never().flatten()?;
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
