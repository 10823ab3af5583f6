//! Publishes images to nodes, and receives detections and timing.
//!
//! ```text
//!   camera threads ──▶ middleware ──▶ nodes ──▶ middleware ──▶ calling thread
//!    (their plan)        images                   detections, FrameTiming, matched by timestamp
//! ```

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::bail;
use peregrine_core::now_ns;
use peregrine_ros::client::{Client, FrameTimes, ImagePublisher};

use super::links::{clocks, Link, Messages, TICK};
use super::matching::{Exchange, NodeTiming};
use super::plan::Due;

/// How often a sleeping camera thread checks whether to stop, in nanoseconds.
const MAX_SLEEP_NS: u64 = 50_000_000;

/// A sequence of frames, each for one link.
pub struct ExchangePlan {
    /// In the order of time.
    pub frames: Vec<Due>,
    /// The first frame that each camera does not send, if a fault silences them.
    pub dropped_from: Option<usize>,
    /// How long to wait for results after the last frame.
    pub linger: Duration,
    /// Set to interrupt the exchange.
    pub stop: Arc<AtomicBool>,
}

/// What came of a plan.
pub struct Outcome {
    /// The frames that were reached before an interrupt, and their exchange.
    pub exchanges: Vec<(Due, Exchange)>,
    /// The messages, for another plan.
    pub messages: Vec<Messages>,
    /// Detections with stamps of no image that was sent.
    pub strange: usize,
}

/// Runs the plan. `each` is called about every 20 ms.
///
/// # Errors
/// That of `each`.
pub fn run(
    client: &mut Client,
    links: &mut [Link],
    messages: Vec<Messages>,
    plan: &ExchangePlan,
    mut each: impl FnMut(&[(Due, Exchange)]) -> anyhow::Result<()>,
) -> anyhow::Result<Outcome> {
    let mut exchanges = with_stamps(&plan.frames);
    let first_stamp = exchanges.first().map_or(0, |(_, exchange)| exchange.stamp);
    let by_stamp: HashMap<i64, usize> = exchanges.iter().enumerate().map(|(i, (_, e))| (e.stamp, i)).collect();
    let cameras: Vec<_> = messages
        .into_iter()
        .enumerate()
        .map(|(link, messages)| CameraThread::start(plan, &exchanges, (link, links[link].node.camera()), messages))
        .collect();
    let mut strange = HashSet::new();
    let mut last_received = Instant::now();
    loop {
        client.spin_once(TICK);
        let now = now_ns();
        for link in links.iter_mut() {
            while let Some((stamp, count)) = link.node.next_detections() {
                if let Some(&index) = by_stamp.get(&stamp) {
                    let exchange = &mut exchanges[index].1;
                    // The first counts, if a node publishes them twice.
                    if exchange.received.is_none() {
                        (exchange.received, exchange.detections) = (Some(now), count);
                    }
                    last_received = Instant::now();
                } else if stamp >= first_stamp {
                    strange.insert(stamp);
                }
            }
            while let Some(times) = link.node.next_timing() {
                if let Some(&index) = by_stamp.get(&times.stamp) {
                    exchanges[index].1.timing = Some(times.into());
                    last_received = Instant::now();
                }
            }
        }
        if let Err(error) = each(&exchanges) {
            plan.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
        if !cameras.iter().all(|camera| camera.thread.is_finished()) {
            last_received = Instant::now();
        } else if last_received.elapsed() > plan.linger {
            break;
        }
    }
    let (mut reached, mut messages) = (vec![false; exchanges.len()], vec![]);
    for camera in cameras {
        let Ok((sent, used)) = camera.thread.join() else { bail!("a camera thread panicked; its message is above") };
        for (index, sent) in sent {
            (reached[index], exchanges[index].1.sent) = (true, sent);
        }
        messages.push(used);
    }
    // Frames after an interrupt are not part of the run.
    let exchanges = exchanges.into_iter().zip(reached).filter_map(|(exchange, reached)| reached.then_some(exchange));
    Ok(Outcome { exchanges: exchanges.collect(), messages, strange: strange.len() })
}

/// The frames with the instants at which they are due, and their stamps: unique, since frames of one instant, as of a
/// burst or of several cameras, are a nanosecond apart.
fn with_stamps(frames: &[Due]) -> Vec<(Due, Exchange)> {
    let (ros, monotonic) = clocks();
    let start = monotonic + 50_000_000;
    let mut last = i64::MIN;
    let mut exchange = |due: &Due| {
        let scheduled = start + due.offset;
        last = (ros + (scheduled - monotonic) as i64).max(last.saturating_add(1));
        (*due, Exchange { scheduled, stamp: last, ..Exchange::default() })
    };
    frames.iter().map(&mut exchange).collect()
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

/// For each frame of a camera that was reached its index, and when it was sent.
type Sent = Vec<(usize, Option<u64>)>;

/// The thread that publishes one camera's images when they are due.
struct CameraThread {
    thread: JoinHandle<(Sent, Messages)>,
}

impl CameraThread {
    fn start(
        plan: &ExchangePlan,
        exchanges: &[(Due, Exchange)],
        (link, publisher): (usize, ImagePublisher),
        mut messages: Messages,
    ) -> Self {
        let own = exchanges.iter().enumerate().filter(|(_, (due, _))| due.link == link);
        let own: Vec<_> = own.map(|(index, (due, e))| (index, due.image, e.scheduled, e.stamp)).collect();
        let (dropped_from, stop) = (plan.dropped_from, Arc::clone(&plan.stop));
        let thread = thread::spawn(move || {
            let mut sent = Vec::with_capacity(own.len());
            for (number, (index, image, scheduled, stamp)) in own.into_iter().enumerate() {
                while let left @ 1.. = scheduled.saturating_sub(now_ns()) {
                    if stop.load(Ordering::Relaxed) {
                        return (sent, messages);
                    }
                    thread::sleep(Duration::from_nanos(left.min(MAX_SLEEP_NS)));
                }
                if dropped_from.is_some_and(|first| number >= first) {
                    sent.push((index, None));
                    continue;
                }
                let now = now_ns();
                sent.push((index, messages.publish(&publisher, image, stamp).then_some(now)));
            }
            (sent, messages)
        });
        Self { thread }
    }
}
