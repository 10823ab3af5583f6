//! From the middleware into the mailbox: the thread that spins the node takes images out, and
//! counts and time-stamps their arrival.

use std::num::NonZeroU16;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{FutureExt, Stream, StreamExt};
use peregrine_core::encoding::{Levels, YuvRange};
use peregrine_core::now_ns;
use peregrine_pipeline::camera::StampWatch;
use r2r::{Clock, Node, QosProfile};

use super::clock::ClockSample;
use super::delivery::{deliver, reject};
use super::error::NodeError;
use super::graph;
use super::image_topic::{ImageTopic, Transport};
use super::incoming::{Frame, ImageMessage};
use super::messages::stamp;
use super::panics;
use super::parameters::Parameters;
use super::record::Rejection;
use super::shared::NodeShared;
use super::topics::CameraTopics;
use super::video::VideoDecoder;

/// How often, while no images come, the ROS graph is asked who publishes them.
const GRAPH_QUERY_PERIOD: Duration = Duration::from_secs(1);

/// How often, while images do come, the ROS graph is asked whether several nodes publish them.
const RIVALS_PERIOD: Duration = Duration::from_secs(3);

/// The subscription to the images of one camera.
pub struct Intake {
    images: Box<dyn Stream<Item = ImageMessage> + Unpin>,
    topic: ImageTopic,
    qos: QosProfile,
    clock: Arc<Mutex<Clock>>,
    arrivals: Arrivals,
    /// When an image came last, or the graph was last queried.
    last_sign: Instant,
    publishers: String,
    /// When the graph was last asked for several publishers, and what it showed.
    last_look: Instant,
    rivals: Option<String>,
}

/// What happens to the images of one camera on arrival.
pub struct Arrivals {
    camera: usize,
    shared: Arc<NodeShared>,
    stamps: StampWatch,
    active: bool,
    video: VideoDecoder,
}

impl Arrivals {
    pub fn new(camera: usize, shared: Arc<NodeShared>) -> Self {
        let video = VideoDecoder::new(Arc::clone(&shared));
        Self { camera, shared, stamps: StampWatch::default(), active: false, video }
    }

    /// Whether images are accepted from now on; others are discarded, and never count as arrived.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
        let liveness = &self.shared.cameras[self.camera].liveness;
        if active {
            liveness.start(now_ns());
        } else {
            liveness.stop();
            self.video.end();
        }
    }

    /// Counts an image that arrived at `arrival`, and puts it into the mailbox: a packet of a video
    /// once its decoder has a picture of it.
    pub fn accept(&mut self, message: impl Into<Arc<ImageMessage>>, arrival: ClockSample) {
        let message = message.into();
        debug_assert!(!message.is_loaned(), "images cannot be loaned");
        if !self.active {
            return;
        }
        let camera = &self.shared.cameras[self.camera];
        let settings = self.shared.settings.load();
        camera.liveness.on_arrival(arrival.monotonic, settings.stale_after);
        let sequence = camera.accounting.arrive();
        // Here and not on the frame thread, so that an unusable image never supersedes a good one.
        if let Err(rejection) = check_safely(&message) {
            reject(&self.shared, self.camera, rejection);
            return;
        }
        self.stamps.observe(stamp(message.header()));
        camera.stamps.store(&self.stamps.counts());
        let frame = Frame { camera: self.camera, sequence, message, arrival };
        match frame.message.codec() {
            Some(codec) => self.video.push(codec, frame),
            None => deliver(&self.shared, frame),
        }
    }
}

/// As [`check`]; what panics cannot be used either.
fn check_safely(message: &ImageMessage) -> Result<(), Rejection> {
    panics::caught(|| check(message)).unwrap_or_else(|text| Err(Rejection::Panic(text)))
}

/// Whether an image can be used, as far as its message shows.
fn check(message: &ImageMessage) -> Result<(), Rejection> {
    let stamp = &message.header().stamp;
    if stamp.sec < 0 || stamp.nanosec >= 1_000_000_000 {
        return Err(Rejection::Stamp { sec: stamp.sec, nanosec: stamp.nanosec });
    }
    Ok(message.check()?)
}

/// What the messages of a camera do not say of their values.
fn levels(parameters: &Parameters) -> Levels {
    // Declared as these two, and as 1 to 65535.
    let yuv = parameters.text("yuv_range").parse().unwrap_or(YuvRange::Limited);
    let white = u16::try_from(parameters.count("white_level")).ok().and_then(NonZeroU16::new);
    Levels { yuv, white: white.unwrap_or(NonZeroU16::MAX) }
}

impl Intake {
    /// Subscribes to a camera's images with the QoS of sensor data: best effort, so that no lost
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
        let topic = ImageTopic::of(parameters, topics);
        let name = topic.name.as_str();
        let refuse = |error: r2r::Error| NodeError::Topic { name: name.to_owned(), why: error.to_string() };
        let levels = levels(parameters);
        let qos = topics.subscription(name, QosProfile::sensor_data());
        let images: Box<dyn Stream<Item = ImageMessage> + Unpin> = match topic.transport {
            Transport::Raw => Box::new(
                node.subscribe_native(name, qos.clone()).map_err(refuse)?.map(move |m| ImageMessage::Raw(m, levels)),
            ),
            Transport::Compressed => {
                Box::new(node.subscribe_native(name, qos.clone()).map_err(refuse)?.map(ImageMessage::Compressed))
            }
            Transport::Foxglove => {
                Box::new(node.subscribe_native(name, qos.clone()).map_err(refuse)?.map(ImageMessage::Packet))
            }
        };
        Ok(Self {
            images,
            topic,
            qos,
            clock: node.get_ros_clock(),
            arrivals,
            last_sign: Instant::now(),
            publishers: "the ROS graph has not been queried yet".into(),
            last_look: Instant::now(),
            rivals: None,
        })
    }

    /// The topic's full name.
    pub fn topic(&self) -> &str {
        &self.topic.full
    }

    /// The topic on which the same images are compressed.
    pub fn compressed_topic(&self) -> String {
        self.topic.compressed()
    }

    /// Why there are no images, as far as the ROS graph shows; kept up to date while none arrive.
    pub fn publishers(&self) -> &str {
        &self.publishers
    }

    /// Whether images that arrive from now on are accepted.
    pub fn set_active(&mut self, active: bool) {
        self.arrivals.set_active(active);
    }

    /// Moves what has arrived to the frame thread. To be called after every spin: r2r queues ten
    /// messages and then drops the newest, the opposite of what is wanted here.
    pub fn take(&mut self) {
        let Ok(now) = self.now() else { return };
        self.arrivals.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        while let Some(message) = self.images.next().now_or_never().flatten() {
            self.last_sign = Instant::now();
            self.arrivals.accept(message, now);
        }
    }

    /// How long no image has come and the ROS graph has not been queried, if long enough to query
    /// it.
    pub fn silence_to_explain(&self) -> Option<Duration> {
        Some(self.last_sign.elapsed()).filter(|silence| *silence >= GRAPH_QUERY_PERIOD)
    }

    /// Queries the ROS graph for why there are no images. Takes up to a millisecond or so, in which
    /// no images are taken.
    pub fn query_graph(&mut self, node: &Node) {
        self.last_sign = Instant::now();
        self.publishers = graph::explanation(node, &self.topic, &self.qos);
    }

    /// That several nodes publish this camera's topic, if they do.
    pub fn rivals(&self) -> Option<&str> {
        self.rivals.as_deref()
    }

    /// How long the ROS graph was not asked for several publishers, if long enough to ask it.
    pub fn look_is_due(&self) -> Option<Duration> {
        Some(self.last_look.elapsed()).filter(|elapsed| *elapsed >= RIVALS_PERIOD)
    }

    /// Asks the ROS graph whether several nodes publish this topic; logs once that they begin to.
    pub fn look_for_rivals(&mut self, node: &Node) {
        self.last_look = Instant::now();
        let Ok(publishers) = graph::publishers(node, &self.topic.full) else { return };
        let rivals = graph::rivals(&publishers, &self.topic.full);
        if let Some(told) = rivals.as_ref().filter(|_| self.rivals.is_none()) {
            tracing::warn!("{told}");
        }
        self.rivals = rivals;
    }

    fn now(&self) -> r2r::Result<ClockSample> {
        let mut clock = self.clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(ClockSample { ros: clock.get_now()?.as_nanos() as i64, monotonic: now_ns() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveSettings;
    use crate::record::Record;
    use peregrine_core::FrameAccounting;
    use r2r::NativeMsg;

    const MS: u64 = 1_000_000;

    fn arrivals() -> (Arrivals, Arc<NodeShared>) {
        let settings = LiveSettings::new(&Parameters::default());
        let shared = Arc::new(NodeShared::new(vec![Arc::new(FrameAccounting::new())], settings));
        let mut arrivals = Arrivals::new(0, Arc::clone(&shared));
        arrivals.set_active(true);
        (arrivals, shared)
    }

    fn image(sec: i32, nanosec: u32) -> ImageMessage {
        let mut message = NativeMsg::<r2r::sensor_msgs::msg::Image>::new();
        (message.header.stamp.sec, message.header.stamp.nanosec) = (sec, nanosec);
        message.encoding.assign("mono8");
        (message.width, message.height, message.step) = (4, 4, 4);
        message.data.update(&[0u8; 16]);
        ImageMessage::Raw(message, Levels::default())
    }

    #[test]
    fn an_invalid_stamp_is_a_counted_rejection_with_its_reason() {
        let (mut arrivals, shared) = arrivals();
        let now = ClockSample { ros: 1_700_000_000_000_000_000, monotonic: now_ns() };
        for (sec, nanosec) in [(-1, 0), (i32::MIN, 5), (1_700_000_000, 1_000_000_000), (0, u32::MAX)] {
            arrivals.accept(image(sec, nanosec), now);
            let Some(Record::Rejected(rejection)) = shared.cameras[0].records.pop() else { panic!("a rejection") };
            assert_eq!(rejection.reason(), "stamp");
            assert!(rejection.to_string().contains(&format!("{sec} s and {nanosec} ns")), "{rejection}");
        }
        let counts = shared.cameras[0].accounting.counts();
        assert_eq!((counts.arrived, counts.rejected, counts.in_flight), (4, 4, 0));
        arrivals.accept(image(1_700_000_000, 999_999_999), now);
        arrivals.accept(image(0, 0), now);
        assert_eq!(shared.cameras[0].accounting.counts().rejected, 4, "no stamp at all is permitted");
    }

    #[test]
    fn deactivation_is_not_an_interruption_of_the_stream() {
        let (mut arrivals, shared) = arrivals();
        let at = |ms: u64| ClockSample { ros: 0, monotonic: now_ns() + ms * MS };
        arrivals.accept(image(0, 0), at(0));
        arrivals.set_active(false);
        arrivals.accept(image(0, 0), at(10));
        arrivals.set_active(true);
        arrivals.accept(image(0, 0), at(60_000));
        assert!(!shared.cameras[0].liveness.take_interruption());
        arrivals.accept(image(0, 0), at(120_000));
        assert!(shared.cameras[0].liveness.take_interruption());
    }
}
