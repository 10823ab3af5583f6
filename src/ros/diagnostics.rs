//! `/diagnostics`, once a second, on a thread of its own: what the node does, and whether that is well.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::Publisher;

use crate::pipeline::{now_ns, Counts};

use super::clock::Nanoseconds;
use super::frame_path::Shared;
use super::record::{FrameRecord, Record, Rejection};
use super::window::Window;

const PERIOD: Duration = Duration::from_secs(1);
/// Without an image for so long, a stream has stopped.
const SILENCE: Duration = Duration::from_secs(2);

/// A step of a frame in nanoseconds; none for a frame that did not get there.
type Step = fn(&FrameRecord) -> Option<i64>;

/// The steps whose percentiles are published.
const STEPS: [(&str, Step); 8] = [
    ("stamp_to_publish", |f| Some(f.latency)),
    ("arrival_to_publish", |f| Some(f.from_arrival)),
    ("stamp_to_arrival", |f| Some(f.age_at_arrival)),
    ("wait", |f| f.processed.then_some(f.wait)),
    ("preprocess", |f| f.processed.then_some(f.preprocess)),
    ("inference", |f| f.processed.then_some(f.inference)),
    ("decode", |f| f.processed.then_some(f.decode)),
    ("track", |f| (f.track > 0).then_some(f.track)),
];

/// What stays the same for as long as the node runs.
pub struct Identity {
    /// The node's full name.
    pub node: String,
    /// Where the images come from, remapped.
    pub topic: String,
    pub student: String,
    pub device: String,
}

/// Publishes what it learns from the other threads.
pub struct Diagnostics {
    pub identity: Identity,
    pub shared: Arc<Shared>,
    /// What ROS knows of the topic's publishers; kept by the thread that spins while no images come.
    pub publishers: Arc<Mutex<String>>,
    /// Whether objects are placed on the ground, or why not.
    pub ground: Arc<Mutex<String>>,
    pub publisher: Publisher<DiagnosticArray>,
    pub memory: Memory,
}

/// What is remembered from one second to the next.
#[derive(Default)]
pub struct Memory {
    window: Window,
    rejections: BTreeMap<&'static str, u64>,
    last_rejection: Option<Rejection>,
    publishing_failures: u64,
    arrived: u64,
    last_arrival: Option<Instant>,
}

/// How well the node does, with the numbers of `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok = 0,
    Warn = 1,
    Error = 2,
}

impl Diagnostics {
    /// Publishes once a second until the node is to stop. Unpark the thread to end it at once.
    pub fn run(mut self) {
        let start = Instant::now();
        self.memory.window.advance(start, Counts::default());
        let mut next = start + PERIOD;
        while !self.shared.stop.load(Relaxed) {
            let now = Instant::now();
            if now < next {
                std::thread::park_timeout(next - now);
                continue;
            }
            next = (next + PERIOD).max(now);
            let message = self.message(now);
            // If this fails, so does all else that could tell of it.
            let _ = self.publisher.publish(&message);
        }
    }

    fn message(&mut self, now: Instant) -> DiagnosticArray {
        let counts = self.memory.learn(&self.shared, now);
        let deadline = self.shared.settings.load().deadline;
        let publishers = self.publishers.lock().map(|text| text.clone()).unwrap_or_default();
        let (level, message) = self.memory.assess(now, &self.identity.topic, &publishers, deadline);
        let mut values = self.memory.values(&self.identity, &counts, deadline);
        values.push(("ground".into(), self.ground.lock().map(|text| text.clone()).unwrap_or_default()));
        let status = DiagnosticStatus {
            level: level as u8,
            name: format!("{}: frames", self.identity.node.trim_start_matches('/')),
            message,
            hardware_id: self.identity.device.clone(),
            values: values.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
        };
        let mut array = DiagnosticArray { status: vec![status], ..Default::default() };
        let ros_now = now_ns() as i64 + self.shared.ros_offset.load(Relaxed);
        array.header.stamp = r2r::Clock::to_builtin_time(&Duration::from_nanos(ros_now.max(0) as u64));
        array
    }
}

impl Memory {
    /// Takes in what has happened since the last time.
    fn learn(&mut self, shared: &Shared, now: Instant) -> Counts {
        while let Some(record) = shared.records.pop() {
            match record {
                Record::Frame(frame) => self.window.add(now, frame),
                Record::Rejected(rejection) => {
                    *self.rejections.entry(rejection.reason()).or_default() += 1;
                    self.last_rejection = Some(rejection);
                }
                Record::PublishingFailed => self.publishing_failures += 1,
            }
        }
        let counts = shared.ledger.counts();
        if counts.arrived > self.arrived {
            self.arrived = counts.arrived;
            self.last_arrival = Some(now);
        }
        self.window.advance(now, counts);
        counts
    }

    /// The worst that is true, in one sentence.
    fn assess(&self, now: Instant, topic: &str, publishers: &str, deadline: Option<Nanoseconds>) -> (Level, String) {
        let Some(last_arrival) = self.last_arrival else {
            return (Level::Warn, format!("no image has arrived on {topic} yet: {publishers}"));
        };
        let silence = now.duration_since(last_arrival);
        if silence >= SILENCE {
            return (Level::Error, format!("no image on {topic} for {} s: {publishers}", silence.as_secs()));
        }
        let gained = self.window.gained();
        let missed = gained.late + gained.dropped_late;
        let finished = gained.on_time + missed;
        let rejected = || self.last_rejection.map_or("unknown".into(), |r| r.to_string());
        if gained.rejected > 0 && finished == 0 {
            return (Level::Error, format!("every image is rejected: {}", rejected()));
        }
        if missed * 100 > finished {
            let level = if missed * 2 > finished { Level::Error } else { Level::Warn };
            let deadline = deadline.unwrap_or(0) as f64 / 1e6;
            let span = self.window.seconds();
            let text = format!("{missed} of {finished} frames missed the deadline of {deadline} ms in {span:.0} s");
            return (level, text);
        }
        let share = |test: fn(&FrameRecord) -> bool| {
            let (hits, all) = self.window.frames().fold((0, 0), |(h, n), f| (h + usize::from(test(f)), n + 1));
            all > 0 && hits * 2 > all
        };
        if gained.rejected > 0 {
            return (Level::Warn, format!("{} images were rejected, lately: {}", gained.rejected, rejected()));
        }
        if share(|f| !f.stamped) {
            return (Level::Warn, "images have no stamp, so latency counts from arrival only".into());
        }
        if share(|f| f.age_at_arrival < -1_000_000) {
            return (Level::Warn, "images are stamped in the future: camera and node disagree about the time".into());
        }
        if gained.superseded * 2 > gained.arrived {
            let (some, all) = (gained.superseded, gained.arrived);
            return (
                Level::Warn,
                format!("{some} of {all} images were superseded: they come faster than they are worked on"),
            );
        }
        if self.publishing_failures > 0 {
            return (Level::Warn, format!("{} messages could not be published", self.publishing_failures));
        }
        let out = rate(gained.published(), self.window.seconds());
        let latency = self.window.percentiles(|f| Some(f.latency)).map_or(0.0, |p| p.p99);
        (Level::Ok, format!("{out:.1} Hz, p99 {latency:.1} ms from stamp to publish"))
    }

    fn values(&self, identity: &Identity, counts: &Counts, deadline: Option<Nanoseconds>) -> Vec<(String, String)> {
        let mut values: Vec<(String, String)> = Vec::new();
        let mut put = |key: &str, value: String| values.push((key.into(), value));
        put("topic", identity.topic.clone());
        put("student", identity.student.clone());
        put("device", identity.device.clone());
        put("deadline_ms", deadline.map_or("none".into(), |ns| (ns as f64 / 1e6).to_string()));

        for (key, count) in [
            ("arrived", counts.arrived),
            ("published_on_time", counts.on_time),
            ("published_late", counts.late),
            ("superseded", counts.superseded),
            ("dropped_late", counts.dropped_late),
            ("rejected", counts.rejected),
            ("in_hand", counts.in_hand),
            ("publishing_failures", self.publishing_failures),
        ] {
            put(key, count.to_string());
        }
        for (reason, count) in &self.rejections {
            put(&format!("rejected.{reason}"), count.to_string());
        }
        put("last_rejection", self.last_rejection.map_or("none".into(), |r| r.to_string()));

        let (gained, seconds) = (self.window.gained(), self.window.seconds());
        put("window_s", format!("{seconds:.1}"));
        put("rate_in_hz", format!("{:.1}", rate(gained.arrived, seconds)));
        put("rate_out_hz", format!("{:.1}", rate(gained.published(), seconds)));
        put("deadline_misses_in_window", (gained.late + gained.dropped_late).to_string());
        for (name, step) in STEPS {
            if let Some(p) = self.window.percentiles(step) {
                put(&format!("{name}_p50_ms"), format!("{:.2}", p.p50));
                put(&format!("{name}_p99_ms"), format!("{:.2}", p.p99));
                put(&format!("{name}_max_ms"), format!("{:.2}", p.max));
            }
        }
        values
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preprocess::image::ImageError;
    use crate::ros::incoming::UnpackError;

    /// A second in which `counts` were gained, all frames being like `frame`.
    fn after_a_second(counts: Counts, frame: FrameRecord) -> (Memory, Instant) {
        let (start, mut memory) = (Instant::now(), Memory::default());
        memory.window.advance(start, Counts::default());
        let now = start + Duration::from_secs(1);
        memory.window.add(now, frame);
        memory.window.advance(now, counts);
        memory.last_arrival = Some(now);
        (memory, now)
    }

    const GOOD: FrameRecord = FrameRecord {
        latency: 20_000_000,
        age_at_arrival: 1_000_000,
        from_arrival: 19_000_000,
        wait: 100_000,
        preprocess: 1_000_000,
        inference: 16_000_000,
        decode: 1_000_000,
        track: 20_000,
        processed: true,
        stamped: true,
    };

    fn assessed(counts: Counts, frame: FrameRecord) -> (Level, String) {
        let (memory, now) = after_a_second(counts, frame);
        memory.assess(now, "/image", "nobody publishes it", Some(50_000_000))
    }

    #[test]
    fn frames_on_time_are_well() {
        let counts = Counts { arrived: 30, on_time: 30, ..Counts::default() };
        assert_eq!(assessed(counts, GOOD), (Level::Ok, "30.0 Hz, p99 20.0 ms from stamp to publish".into()));
    }

    #[test]
    fn few_misses_warn_and_many_are_an_error() {
        let few = Counts { arrived: 100, on_time: 95, late: 5, ..Counts::default() };
        assert_eq!(assessed(few, GOOD).0, Level::Warn);
        let many = Counts { arrived: 100, on_time: 40, dropped_late: 60, ..Counts::default() };
        let (level, sentence) = assessed(many, GOOD);
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("60 of 100 frames missed the deadline of 50 ms"), "{sentence}");
    }

    #[test]
    fn before_the_first_image_the_sentence_says_what_ros_knows_of_publishers() {
        let (level, sentence) = Memory::default().assess(Instant::now(), "/image", "nobody publishes it", None);
        assert_eq!(level, Level::Warn);
        assert_eq!(sentence, "no image has arrived on /image yet: nobody publishes it");
    }

    #[test]
    fn a_stream_that_stops_is_an_error() {
        let counts = Counts { arrived: 30, on_time: 30, ..Counts::default() };
        let (memory, now) = after_a_second(counts, GOOD);
        let later = now + Duration::from_secs(5);
        let (level, sentence) = memory.assess(later, "/image", "nobody publishes it", None);
        assert_eq!((level, sentence), (Level::Error, "no image on /image for 5 s: nobody publishes it".into()));
    }

    #[test]
    fn when_every_image_is_rejected_the_reason_is_given() {
        let (mut memory, now) = after_a_second(Counts { arrived: 9, rejected: 9, ..Counts::default() }, GOOD);
        memory.last_rejection = Some(UnpackError::from(ImageError::Step { step: 1, row_bytes: 9 }).into());
        let (level, sentence) = memory.assess(now, "/image", "", None);
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("every image is rejected: step is 1 bytes"), "{sentence}");
    }

    #[test]
    fn stamps_from_the_future_are_pointed_out() {
        let counts = Counts { arrived: 30, on_time: 30, ..Counts::default() };
        let ahead = FrameRecord { age_at_arrival: -5_000_000, ..GOOD };
        assert!(assessed(counts, ahead).1.contains("future"));
    }

    #[test]
    fn frames_that_were_never_processed_have_no_stage_times() {
        let dropped = FrameRecord { processed: false, ..GOOD };
        let (memory, _) = after_a_second(Counts { arrived: 1, dropped_late: 1, ..Counts::default() }, dropped);
        let identity =
            Identity { node: "/p".into(), topic: "/image".into(), student: "s".into(), device: "cpu".into() };
        let values = memory.values(&identity, &Counts::default(), None);
        let has = |key: &str| values.iter().any(|(k, _)| k == key);
        assert!(has("stamp_to_publish_p99_ms") && !has("inference_p99_ms"));
    }
}
