//! Publishes images to nodes, and receives detections and timing.
//!
//! ```text
//!   camera thread ──▶ middleware ──▶ nodes ──▶ middleware ──▶ calling thread
//!    (timetable)       images                   detections, FrameTiming, matched by timestamp
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::bail;
use peregrine_core::now_ns;
use peregrine_ros::client::{CameraImage, Client, FrameTimes, ImagePublisher, NodeLink};

use super::matching::{Exchange, NodeTiming};
use crate::frames::Frames;
use crate::timetable::Timetable;

/// Longest wait for a message at a time.
const TICK: Duration = Duration::from_millis(20);

/// How long nodes may take to start and to answer a first image.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(90);

/// How often the sleeping camera thread checks whether to stop, in nanoseconds.
const MAX_SLEEP_NS: u64 = 50_000_000;

/// The topics of one node, and its name in messages.
pub struct Link {
    name: String,
    node: NodeLink,
}

impl Link {
    /// On the topics `image`, `detections` and `timing` below `prefix`.
    ///
    /// # Errors
    /// If a topic cannot be created.
    pub fn new(client: &mut Client, name: &str, prefix: &str) -> anyhow::Result<Self> {
        Ok(Self { name: name.to_owned(), node: NodeLink::new(client, prefix)? })
    }
}

/// A sequence of frames, each for one of the nodes.
pub struct ExchangePlan {
    pub timetable: Timetable,
    /// For each frame, the index of its node and of its image.
    pub frames: Vec<(usize, usize)>,
    /// The first frame that the camera does not send, if a fault silences it.
    pub dropped_from: Option<usize>,
    /// How long to wait for results after the last frame.
    pub linger: Duration,
    /// Set to interrupt the exchange.
    pub stop: Arc<AtomicBool>,
}

/// The camera's images as messages, created once. All nodes receive the same.
pub struct Messages(Vec<CameraImage>);

impl Messages {
    /// One message for each image.
    pub fn new(frames: &Frames) -> Self {
        Self((0..frames.count()).map(|index| CameraImage::new(&frames.image(index))).collect())
    }
}

/// ROS time in nanoseconds, and the monotonic clock at the same moment.
fn clocks() -> (i64, u64) {
    let before = now_ns();
    let ros = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i64);
    (ros, before + (now_ns() - before) / 2)
}

/// Waits until each node has answered an image; an error of `alive` ends the wait.
///
/// # Errors
/// If a node does not answer in time, with what is missing; or that of `alive`.
pub fn wait_for_answers(
    client: &mut Client,
    links: &mut [Link],
    messages: &mut Messages,
    mut alive: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let give_up = Instant::now() + STARTUP_TIMEOUT;
    for link in links {
        let mut answered = false;
        while !answered {
            alive()?;
            let publisher = link.node.camera();
            let subscribers = publisher.subscribers()?;
            if Instant::now() > give_up {
                let what = match subscribers {
                    0 => "has not subscribed to images",
                    _ => "has subscribed to images, but publishes no detections or timing",
                };
                bail!(
                    "{} {what} after {} s; check its parameters and ROS_DOMAIN_ID",
                    link.name,
                    STARTUP_TIMEOUT.as_secs()
                );
            }
            if subscribers > 0 {
                publisher.publish(&mut messages.0[0], clocks().0)?;
            }
            let next = Instant::now() + Duration::from_millis(200);
            let (mut detected, mut timed) = (false, false);
            while Instant::now() < next && !(detected && timed) {
                client.spin_once(TICK);
                while link.node.next_detections().is_some() {
                    detected = true;
                }
                while link.node.next_timing().is_some() {
                    timed = true;
                }
            }
            answered = detected && timed;
        }
    }
    Ok(())
}

/// Runs the plan; returns the exchange of each frame, and the messages for another plan. `each` is
/// called about every 20 ms.
///
/// # Errors
/// That of `each`.
pub fn run(
    client: &mut Client,
    links: &mut [Link],
    messages: Messages,
    plan: &ExchangePlan,
    mut each: impl FnMut(&[Exchange]) -> anyhow::Result<()>,
) -> anyhow::Result<(Vec<Exchange>, Messages)> {
    let (ros, monotonic) = clocks();
    let start = monotonic + 50_000_000;
    let instant = |index: usize| start + plan.timetable.offset(index).unwrap_or(0);
    let mut exchanges: Vec<_> = (0..plan.timetable.len())
        .map(|index| {
            let scheduled = instant(index);
            // Unique: frames of the same instant, as in a burst, are a nanosecond apart.
            let stamp = ros + (scheduled - monotonic) as i64 + index as i64;
            Exchange { scheduled, stamp, ..Exchange::default() }
        })
        .collect();
    let by_stamp: HashMap<i64, usize> = exchanges.iter().enumerate().map(|(i, e)| (e.stamp, i)).collect();
    let camera = CameraThread::start(plan, &exchanges, links, messages);
    let mut last_received = Instant::now();
    loop {
        client.spin_once(TICK);
        let now = now_ns();
        for link in links.iter_mut() {
            while let Some((stamp, count)) = link.node.next_detections() {
                if let Some(&index) = by_stamp.get(&stamp) {
                    exchanges[index].received = Some(now);
                    exchanges[index].detections = count;
                    last_received = Instant::now();
                }
            }
            while let Some(times) = link.node.next_timing() {
                if let Some(&index) = by_stamp.get(&times.stamp) {
                    exchanges[index].timing = Some(times.into());
                    last_received = Instant::now();
                }
            }
        }
        if let Err(error) = each(&exchanges) {
            camera.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
        if camera.thread.is_finished() && last_received.elapsed() > plan.linger {
            break;
        }
        if !camera.thread.is_finished() {
            last_received = Instant::now();
        }
    }
    let Ok((sent, messages)) = camera.thread.join() else { bail!("the camera thread panicked; its message is above") };
    // Frames after an interrupt are not part of the run.
    exchanges.truncate(sent.len());
    exchanges.iter_mut().zip(sent).for_each(|(exchange, sent)| exchange.sent = sent);
    Ok((exchanges, messages))
}

impl From<FrameTimes> for NodeTiming {
    fn from(times: FrameTimes) -> Self {
        Self {
            sequence: times.sequence,
            arrival: times.arrival,
            preprocess_start: times.preprocess_start,
            preprocess_end: times.preprocess_end,
            inference_end: times.inference_end,
            decode_end: times.decode_end,
            track_end: times.track_end,
            publish: times.publish,
            dropped_late: times.dropped_late,
        }
    }
}

/// The thread that publishes images when they are due.
struct CameraThread {
    thread: JoinHandle<(Vec<Option<u64>>, Messages)>,
    stop: Arc<AtomicBool>,
}

impl CameraThread {
    fn start(plan: &ExchangePlan, exchanges: &[Exchange], links: &[Link], mut messages: Messages) -> Self {
        let publishers: Vec<ImagePublisher> = links.iter().map(|link| link.node.camera()).collect();
        let due: Vec<_> = exchanges.iter().map(|e| (e.scheduled, e.stamp)).collect();
        let (frames, dropped_from, stop) = (plan.frames.clone(), plan.dropped_from, Arc::clone(&plan.stop));
        let thread = thread::spawn(move || {
            let mut sent = Vec::with_capacity(due.len());
            for (index, (&(scheduled, stamp), &(to, image))) in due.iter().zip(&frames).enumerate() {
                while let left @ 1.. = scheduled.saturating_sub(now_ns()) {
                    if stop.load(Ordering::Relaxed) {
                        return (sent, messages);
                    }
                    thread::sleep(Duration::from_nanos(left.min(MAX_SLEEP_NS)));
                }
                if dropped_from.is_some_and(|first| index >= first) {
                    sent.push(None);
                    continue;
                }
                let count = messages.0.len();
                let now = now_ns();
                let published = publishers[to].publish(&mut messages.0[image % count], stamp);
                sent.push(published.is_ok().then_some(now));
            }
            (sent, messages)
        });
        Self { thread, stop: Arc::clone(&plan.stop) }
    }
}
