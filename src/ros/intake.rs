//! From the middleware into the slot: the thread that spins the node takes images out, stamps and counts them.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant as StdInstant};

use futures::{FutureExt, Stream, StreamExt};
use peregrine_core::{now_ns, FrameOutcome};
use peregrine_pipeline::camera::{StampCounts, StampWatch};
use r2r::{Clock, Node, QosProfile};

use super::clock::{Instant, Nanoseconds};
use super::error::NodeError;
use super::frame_path::Age;
use super::incoming::{Frame, ImageMessage};
use super::messages::stamp;
use super::parameters::Parameters;
use super::qos;
use super::record::{Record, Rejection};
use super::shared::Shared;
use super::topics::CameraTopics;

/// How often, while no images come, ROS is asked who publishes them.
const INQUIRY: Duration = Duration::from_secs(1);

/// Most other topics that are looked at to suggest one.
const MOST_SUGGESTIONS: usize = 8;

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
    active: bool,
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

/// Due time, in [`FrameMailbox`](peregrine_core::FrameMailbox)'s order, of an image where there is no deadline: as if it were
/// this many nanoseconds from arrival. The same for all cameras, so that the one that has waited longest comes first.
const NO_DEADLINE: i64 = 1_000_000_000;

impl Arrivals {
    pub fn new(camera: usize, shared: Arc<Shared>) -> Self {
        Self { camera, shared, stamps: StampWatch::default(), active: false }
    }

    /// Whether images are accepted from now on; others are let go, and never count as arrived.
    pub fn set_active(&mut self, active: bool) {
        self.active = active;
        let presence = &self.shared.cameras[self.camera].presence;
        if active {
            presence.listen(now_ns());
        } else {
            presence.pause();
        }
    }

    /// Counts an image that arrived at `arrival`, and puts it where the frame thread finds it.
    pub fn accept(&mut self, message: ImageMessage, arrival: Instant) {
        debug_assert!(!message.is_loaned(), "images cannot be lent");
        if !self.active {
            return;
        }
        let camera = &self.shared.cameras[self.camera];
        let settings = self.shared.settings.load();
        camera.presence.arrive(arrival.monotonic, settings.stale_after);
        let sequence = camera.ledger.arrive();
        // Here and not when it is worked on, so that an unusable image never takes the place of a good one.
        if let Err(rejection) = check(&message) {
            camera.ledger.end(FrameOutcome::Rejected);
            camera.records.force_push(Record::Rejected(rejection));
            return;
        }
        self.stamps.observe(stamp(message.header()));
        camera.stream.store(&self.stamps.counts());
        let frame = Frame { camera: self.camera, sequence, message, arrival };
        let age = Age::of(&frame, frame.message.header()).at(arrival.monotonic);
        let due = due(arrival.monotonic, age, settings.deadline.unwrap_or(NO_DEADLINE));
        if let Some(superseded) = self.shared.waiting.put(self.camera, frame, due) {
            camera.ledger.end(FrameOutcome::Superseded);
            drop(superseded);
        }
    }
}

/// Whether an image can be used, as far as its message tells.
fn check(message: &ImageMessage) -> Result<(), Rejection> {
    let stamp = &message.header().stamp;
    if stamp.sec < 0 || stamp.nanosec >= 1_000_000_000 {
        return Err(Rejection::Stamp { sec: stamp.sec, nanosec: stamp.nanosec });
    }
    Ok(message.check()?)
}

/// When an image of such an age is due on the monotonic clock.
///
/// Never before it arrived, nor later than a whole deadline after: the age is the camera's word, and one whose clock is
/// behind would otherwise take every turn, and one whose clock is ahead would never get any.
fn due(arrival: u64, age: Nanoseconds, deadline: Nanoseconds) -> u64 {
    arrival.saturating_add(deadline.saturating_sub(age).clamp(0, deadline) as u64)
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
        self.arrivals.set_active(active);
    }

    /// Moves what has arrived to the frame thread. To be called after every spin: r2r queues ten messages and then
    /// drops the newest, the opposite of what is wanted here.
    pub fn take(&mut self) {
        let Ok(now) = self.now() else { return };
        self.arrivals.shared.ros_offset.store(now.ros - now.monotonic as i64, Relaxed);
        while let Some(message) = self.images.next().now_or_never().flatten() {
            self.last_sign = StdInstant::now();
            self.arrivals.accept(message, now);
        }
    }

    /// How long it has been since an image came, or since ROS was last asked why none does.
    pub fn unexplained(&self) -> Option<Duration> {
        Some(self.last_sign.elapsed()).filter(|silence| *silence >= INQUIRY)
    }

    /// Asks ROS why there are no images. Takes up to a millisecond or so, in which no images are taken.
    pub fn inquire(&mut self, node: &Node) {
        self.last_sign = StdInstant::now();
        self.publishers = self.explanation(node);
    }

    fn now(&self) -> r2r::Result<Instant> {
        let mut clock = self.clock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        Ok(Instant { ros: clock.get_now()?.as_nanos() as i64, monotonic: now_ns() })
    }

    /// Why there may be no images, as far as the ROS graph tells.
    fn explanation(&self, node: &Node) -> String {
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
        let is_own = |topic: &String| own.iter().any(|own| topic.ends_with(own));
        let mut names: Vec<_> = ours.map(|(topic, _)| topic).filter(|topic| !is_own(topic)).collect();
        names.sort();
        // Each costs a look into the graph, while cameras that do send are waiting.
        names.truncate(MOST_SUGGESTIONS);
        names.retain(is_published);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::LiveSettings;
    use peregrine_core::{FrameAccounting, FrameMailbox};
    use r2r::NativeMsg;

    const HOUR: Nanoseconds = 3_600_000_000_000;
    const MS: u64 = 1_000_000;

    /// How often each of two cameras is served within 60 turns of an overloaded worker, given the ages of their images.
    fn turns(ages: [Nanoseconds; 2]) -> [u32; 2] {
        let (waiting, mut served, mut next) = (FrameMailbox::new(2), [0; 2], [3 * MS, 17 * MS]);
        for turn in 1..=60 {
            let now = turn * 50 * MS;
            for camera in 0..2 {
                while next[camera] <= now {
                    waiting.put(camera, (), due(next[camera], ages[camera], 100 * MS as i64));
                    next[camera] += 33 * MS;
                }
            }
            served[waiting.take().expect("an image has come").0] += 1;
        }
        served
    }

    #[test]
    fn a_camera_whose_clock_is_an_hour_off_neither_takes_all_turns_nor_gets_none() {
        for ages in [[HOUR, 0], [0, -HOUR], [HOUR, -HOUR], [i64::MAX, i64::MIN]] {
            let served = turns(ages);
            assert!(served.iter().all(|&turns| turns >= 10), "{served:?} for ages of {ages:?}");
        }
    }

    #[test]
    fn of_sound_clocks_the_earlier_deadline_counts() {
        assert_eq!(due(500, 30, 100), 570);
        assert_eq!(due(500, 130, 100), 500, "past its deadline");
        assert_eq!(due(500, -30, 100), 600, "from the future");
    }

    fn arrivals() -> (Arrivals, Arc<Shared>) {
        let settings = LiveSettings::new(&Parameters::default());
        let shared = Arc::new(Shared::new(vec![Arc::new(FrameAccounting::new())], settings));
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
        ImageMessage::Raw(message)
    }

    #[test]
    fn a_stamp_that_is_no_time_is_a_counted_rejection_with_its_reason() {
        let (mut arrivals, shared) = arrivals();
        let now = Instant { ros: 1_700_000_000_000_000_000, monotonic: now_ns() };
        for (sec, nanosec) in [(-1, 0), (i32::MIN, 5), (1_700_000_000, 1_000_000_000), (0, u32::MAX)] {
            arrivals.accept(image(sec, nanosec), now);
            let Some(Record::Rejected(rejection)) = shared.cameras[0].records.pop() else { panic!("a rejection") };
            assert_eq!(rejection.reason(), "stamp");
            assert!(rejection.to_string().contains(&format!("{sec} s and {nanosec} ns")), "{rejection}");
        }
        let counts = shared.cameras[0].ledger.counts();
        assert_eq!((counts.arrived, counts.rejected, counts.in_flight), (4, 4, 0));
        arrivals.accept(image(1_700_000_000, 999_999_999), now);
        arrivals.accept(image(0, 0), now);
        assert_eq!(shared.cameras[0].ledger.counts().rejected, 4, "no stamp at all is permitted");
    }

    #[test]
    fn a_pause_between_deactivation_and_activation_is_no_interruption() {
        let (mut arrivals, shared) = arrivals();
        let at = |ms: u64| Instant { ros: 0, monotonic: now_ns() + ms * MS };
        arrivals.accept(image(0, 0), at(0));
        arrivals.set_active(false);
        arrivals.accept(image(0, 0), at(10));
        arrivals.set_active(true);
        arrivals.accept(image(0, 0), at(60_000));
        assert!(!shared.cameras[0].presence.take_interruption());
        arrivals.accept(image(0, 0), at(120_000));
        assert!(shared.cameras[0].presence.take_interruption());
    }
}
