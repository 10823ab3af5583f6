//! The link to one camera of a node, and the wait until the node answers.

use std::collections::HashSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{bail, ensure};
use peregrine_core::now_ns;
use peregrine_ros::client::{CameraImage, Client, ImagePublisher, LinkTopics, NodeLink};

use crate::frames::Frames;

/// Longest wait for a message at a time.
pub const TICK: Duration = Duration::from_millis(20);

/// How long nodes may take to start and to answer a first image.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(90);

/// Between two images that are sent until one is answered.
const STARTUP_PERIOD: Duration = Duration::from_millis(200);

/// How long after its first detections a node may take to publish a first `FrameTiming`.
const TIMING_TIMEOUT: Duration = Duration::from_secs(2);

/// Detections with stamps of no image, after which it is clear that the node does not copy them.
const STRANGE_STAMPS: usize = 10;

/// Bytes of images that are kept as messages, of all cameras together, but for one image each.
const MAX_BYTES: usize = 1 << 30;

/// The topics of one camera of a node, and the node's name in messages.
pub struct Link {
    pub name: String,
    pub topics: LinkTopics,
    pub node: NodeLink,
    /// Whether the node tells its times; of one that was not set up here, known once it has answered.
    pub timed: bool,
    foreign: bool,
}

impl Link {
    /// To this project's node, started here.
    ///
    /// # Errors
    /// If a topic cannot be created.
    pub fn own(client: &mut Client, name: &str, topics: LinkTopics) -> anyhow::Result<Self> {
        let node = NodeLink::new(client, &topics)?;
        Ok(Self { name: name.to_owned(), topics, node, timed: true, foreign: false })
    }

    /// To any node.
    ///
    /// # Errors
    /// If a topic cannot be created.
    pub fn foreign(client: &mut Client, name: &str, topics: LinkTopics) -> anyhow::Result<Self> {
        let node = NodeLink::to_any(client, &topics)?;
        Ok(Self { name: name.to_owned(), topics, node, timed: false, foreign: true })
    }
}

/// A camera's images as messages, created once.
pub struct Messages(Vec<CameraImage>);

impl Messages {
    /// One message for each image, as many as one of `cameras` cameras may keep.
    pub fn new(frames: &Frames, cameras: usize) -> Self {
        let bytes: usize = frames.image(0).rows().map(<[u8]>::len).sum();
        let most = (MAX_BYTES / (cameras * bytes.max(1))).max(1);
        // One camera has all that were kept of a recording.
        let count = if cameras == 1 { frames.count() } else { frames.count().min(most) };
        Self((0..count).map(|index| CameraImage::new(&frames.image(index))).collect())
    }

    /// Publishes image `index`, which repeat in order, with a stamp. Whether ROS took it.
    pub fn publish(&mut self, publisher: &ImagePublisher, index: usize, stamp: i64) -> bool {
        let count = self.0.len();
        publisher.publish(&mut self.0[index % count], stamp).is_ok()
    }
}

/// ROS time in nanoseconds, and the monotonic clock at the same moment.
pub fn clocks() -> (i64, u64) {
    let before = now_ns();
    let ros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    (ros, before + (now_ns() - before) / 2)
}

/// Waits until each camera of the nodes has an answer; an error of `alive` ends the wait.
///
/// # Errors
/// If a node does not answer in time, with what is missing, or answers with stamps of its own; if another camera
/// publishes on the topic of the images; or that of `alive`.
pub fn wait_for_answers(
    client: &mut Client,
    links: &mut [Link],
    messages: &mut [Messages],
    mut alive: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut earlier = HashSet::new();
    for (link, messages) in links.iter_mut().zip(messages) {
        let mut answers = Answers { earlier: std::mem::take(&mut earlier), ..Answers::default() };
        let give_up = Instant::now() + STARTUP_TIMEOUT;
        while !answers.are_enough(link) {
            alive()?;
            let publisher = link.node.camera();
            let subscribers = publisher.subscribers()?;
            if Instant::now() > give_up {
                bail!("{}", answers.missing(link, subscribers));
            }
            if link.foreign {
                let others = client.other_publishers(&link.topics.image)?;
                ensure!(
                    others.is_empty(),
                    "{} publishes on {}, too, so that the node would be measured on its images as well: stop it, or name \
                     another topic with --image-topic",
                    others.join(", "),
                    link.topics.image
                );
            }
            if subscribers > 0 {
                let stamp = clocks().0;
                answers.sent.insert(stamp);
                messages.publish(&publisher, 0, stamp);
            }
            let next = Instant::now() + STARTUP_PERIOD;
            while Instant::now() < next && !answers.are_enough(link) {
                client.spin_once(TICK);
                answers.take(link);
            }
            if answers.detected.is_none() && answers.strange.len() >= STRANGE_STAMPS {
                bail!("{}", answers.restamped(link));
            }
        }
        link.timed |= answers.timed;
        earlier = answers.earlier;
        earlier.extend(answers.sent);
    }
    Ok(())
}

/// What has come from a node until now.
#[derive(Default)]
struct Answers {
    /// Stamps of the images that were sent.
    sent: HashSet<i64>,
    /// Of those that were sent to other cameras before: a node may answer all on one topic.
    earlier: HashSet<i64>,
    /// When the first detections of one came.
    detected: Option<Instant>,
    timed: bool,
    /// Stamps of detections that were of no image.
    strange: Vec<i64>,
}

impl Answers {
    fn take(&mut self, link: &mut Link) {
        while let Some((stamp, _)) = link.node.next_detections() {
            if self.sent.contains(&stamp) {
                self.detected.get_or_insert_with(Instant::now);
            } else if link.foreign && !self.earlier.contains(&stamp) && !self.strange.contains(&stamp) {
                self.strange.push(stamp);
            }
        }
        while link.node.next_timing().is_some() {
            self.timed = true;
        }
    }

    /// This project's node publishes both; whether another one does shows within [`TIMING_TIMEOUT`].
    fn are_enough(&self, link: &Link) -> bool {
        let may_be_untimed = |since: Instant| link.foreign && since.elapsed() > TIMING_TIMEOUT;
        self.detected.is_some_and(|since| self.timed || may_be_untimed(since))
    }

    fn missing(&self, link: &Link, subscribers: usize) -> String {
        if !self.strange.is_empty() && self.detected.is_none() {
            return self.restamped(link);
        }
        let (image, detections) = (&link.topics.image, &link.topics.detections);
        let what = match (subscribers, link.foreign) {
            (0, _) => format!("has not subscribed to images on {image}"),
            (_, false) => "has subscribed to images, but publishes no detections or timing".to_owned(),
            (_, true) => format!(
                "has subscribed to images on {image}, but publishes no vision_msgs/Detection2DArray on {detections}"
            ),
        };
        let remedy = if link.foreign { "its topics" } else { "its parameters" };
        format!("{} {what} after {} s; check {remedy} and ROS_DOMAIN_ID", link.name, STARTUP_TIMEOUT.as_secs())
    }

    fn restamped(&self, link: &Link) -> String {
        let seconds = |stamp: Option<&i64>| stamp.map_or(0.0, |&stamp| stamp as f64 / 1e9);
        format!(
            "{} does not copy the image's header.stamp into its detections on {}, by which both are matched: they have \
             stamps of no image that was sent, such as {:.6} s where images had {:.6} s",
            link.name,
            link.topics.detections,
            seconds(self.strange.last()),
            seconds(self.sent.iter().max())
        )
    }
}
