//! One camera's stream in `/diagnostics`: what it does, and whether that is well.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use peregrine_core::{now_ns, FrameCounts};
use peregrine_pipeline::camera::StampCounts;
use peregrine_pipeline::monitor::Condition;

use super::window::Window;
use crate::clock::Nanoseconds;
use crate::live::FrameSettings;
use crate::record::{FrameRecord, Record, Rejection};
use crate::shared::Camera;

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

/// Rejected images by reason, and why the last one was.
#[derive(Default)]
pub struct Rejections {
    by_reason: BTreeMap<&'static str, u64>,
    last: Option<Rejection>,
}

/// What is remembered of a stream from one time to the next.
#[derive(Default)]
pub struct Memory {
    window: Window,
    rejections: Rejections,
    publishing_failures: u64,
    /// How long no image has come, and whether any ever did since the node is active.
    silence: Nanoseconds,
    has_begun: bool,
    stamps: StampCounts,
    condition: Condition,
    misses_in_a_row: u32,
}

/// What the stream is judged by besides its own past.
pub struct View<'a> {
    /// Where the images come from, remapped.
    pub topic: &'a str,
    /// What ROS knows of the topic's publishers.
    pub publishers: &'a str,
    pub settings: FrameSettings,
    /// What is left out at the moment, if anything is.
    pub left_out: Option<&'a str>,
}

/// How well the node does, with the numbers of `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok = 0,
    Warn = 1,
    Error = 2,
}

impl Memory {
    /// For a stream whose window begins now. What came since configure, before diagnostics first looked, is within it.
    /// Rejections are counted on from those given.
    pub fn new(now: Instant, camera: &Camera, rejections: Rejections) -> Self {
        let mut memory = Self { rejections, ..Self::default() };
        memory.window.advance(now, camera.counted_before);
        memory
    }

    /// Takes in what has happened since the last time.
    pub fn learn(&mut self, camera: &Camera, now: Instant) -> FrameCounts {
        while let Some(record) = camera.records.pop() {
            match record {
                Record::Frame(frame) => self.window.add(now, frame),
                Record::Rejected(rejection) => {
                    *self.rejections.by_reason.entry(rejection.reason()).or_default() += 1;
                    self.rejections.last = Some(rejection);
                }
                Record::PublishingFailed => self.publishing_failures += 1,
            }
        }
        let counts = camera.ledger.counts();
        self.silence = camera.presence.silence(now_ns()).unwrap_or(0);
        self.has_begun = camera.presence.has_begun();
        self.stamps = camera.stream.load();
        self.condition = Condition::from_number(camera.condition.load(Relaxed));
        self.misses_in_a_row = camera.misses_in_a_row.load(Relaxed);
        self.window.advance(now, counts);
        counts
    }

    /// How many were rejected for a reason, by its short name.
    pub fn rejected(&self, reason: &str) -> u64 {
        self.rejections.by_reason.get(reason).copied().unwrap_or(0)
    }

    pub fn into_rejections(self) -> Rejections {
        self.rejections
    }

    /// The worst that is true of an active node's stream, in one sentence.
    pub fn assess(&self, view: &View) -> (Level, String) {
        let (topic, publishers, deadline) = (view.topic, view.publishers, view.settings.deadline);
        let is_stale = self.silence >= view.settings.stale_after;
        if !self.has_begun {
            let level = if is_stale { Level::Error } else { Level::Warn };
            return (level, format!("no image has arrived on {topic} yet: {publishers}"));
        }
        if is_stale {
            return (Level::Error, format!("no image on {topic} for {:.1} s: {publishers}", self.silence as f64 / 1e9));
        }
        let gained = self.window.gained();
        let missed = gained.late + gained.dropped_late;
        let finished = gained.on_time + missed;
        let rejected = || self.rejections.last.map_or("unknown".into(), |r| r.to_string());
        if gained.rejected > 0 && finished == 0 {
            return (Level::Error, format!("every image is rejected: {}", rejected()));
        }
        if self.condition == Condition::Failing {
            let (row, wanted) = (self.misses_in_a_row, view.settings.monitor.recover_after);
            let text = match row {
                0 => format!("recovering: an error ends after {wanted} frames on time in a row"),
                _ => format!("{row} frames in a row missed the deadline of {} ms", milliseconds(deadline)),
            };
            return (Level::Error, text);
        }
        if missed * 100 > finished {
            let level = if missed * 2 > finished { Level::Error } else { Level::Warn };
            let deadline = milliseconds(deadline);
            let span = self.window.seconds();
            let text = format!("{missed} of {finished} frames missed the deadline of {deadline} ms in {span:.0} s");
            return (level, text);
        }
        if self.condition == Condition::Missing {
            let wanted = view.settings.monitor.recover_after;
            let deadline = milliseconds(deadline);
            let text = format!("a frame missed the deadline of {deadline} ms, less than {wanted} frames ago");
            return (Level::Warn, text);
        }
        if let Some(left_out) = view.left_out {
            return (Level::Warn, format!("degraded mode, to keep deadlines: {left_out}"));
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

    /// The numbers behind it.
    pub fn values(&self, counts: &FrameCounts, view: &View) -> Vec<(String, String)> {
        let mut values: Vec<(String, String)> = Vec::new();
        let mut put = |key: &str, value: String| values.push((key.into(), value));
        put("topic", view.topic.to_owned());
        put("deadline_ms", view.settings.deadline.map_or("none".into(), |ns| milliseconds(Some(ns)).to_string()));
        put("mode", view.left_out.map_or("full".into(), |left_out| format!("degraded: {left_out}")));

        for (key, count) in [
            ("arrived", counts.arrived),
            ("published_on_time", counts.on_time),
            ("published_late", counts.late),
            ("superseded", counts.superseded),
            ("dropped_late", counts.dropped_late),
            ("rejected", counts.rejected),
            ("in_flight", counts.in_flight),
            ("publishing_failures", self.publishing_failures),
            ("misses_in_a_row", u64::from(self.misses_in_a_row)),
            // Estimated from stamps, and apart from the counts above: these images never arrived.
            ("camera_missing_estimate", self.stamps.missing),
            ("stamps_duplicate", self.stamps.duplicates),
            ("stamps_out_of_order", self.stamps.out_of_order),
            ("stamps_jumped", self.stamps.jumps),
        ] {
            put(key, count.to_string());
        }
        for (reason, count) in &self.rejections.by_reason {
            put(&format!("rejected.{reason}"), count.to_string());
        }
        put("last_rejection", self.rejections.last.map_or("none".into(), |r| r.to_string()));
        if let Some(last) = self.window.frames().last() {
            let nowhere = "none in the image's header: what is published in it has no place for tf";
            put("frame_id", if last.framed { "as in the image's header" } else { nowhere }.into());
        }

        let (gained, seconds) = (self.window.gained(), self.window.seconds());
        put("window_s", format!("{seconds:.1}"));
        put("rate_in_hz", format!("{:.1}", rate(gained.arrived, seconds)));
        put("rate_out_hz", format!("{:.1}", rate(gained.published(), seconds)));
        put("deadline_misses_in_window", (gained.late + gained.dropped_late).to_string());
        for (name, step) in STEPS {
            if let Some(p) = self.window.percentiles(step) {
                put(&format!("{name}_p50_ms"), format!("{:.2}", p.p50));
                put(&format!("{name}_p99_ms"), format!("{:.2}", p.p99));
                put(&format!("{name}_p99.9_ms"), format!("{:.2}", p.p999));
                put(&format!("{name}_max_ms"), format!("{:.2}", p.max));
            }
        }
        values
    }
}

fn milliseconds(deadline: Option<Nanoseconds>) -> f64 {
    deadline.unwrap_or(0) as f64 / 1e6
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
    use std::time::Duration;

    use super::*;
    use crate::incoming::UnpackError;
    use crate::live::LiveSettings;
    use crate::parameters::Parameters;
    use peregrine_core::ImageError;

    /// With a deadline of 50 ms.
    fn view() -> View<'static> {
        let settings = LiveSettings::new(&Parameters::default()).load();
        let settings = FrameSettings { deadline: Some(50_000_000), ..settings };
        View { topic: "/image", publishers: "nobody publishes it", settings, left_out: None }
    }

    /// A second in which `counts` were gained, all frames being like `frame`.
    fn after_a_second(counts: FrameCounts, frame: FrameRecord) -> Memory {
        let (start, mut memory) = (Instant::now(), Memory::default());
        memory.window.advance(start, FrameCounts::default());
        let now = start + Duration::from_secs(1);
        memory.window.add(now, frame);
        memory.window.advance(now, counts);
        memory.has_begun = true;
        memory
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
        framed: true,
    };

    fn assessed(counts: FrameCounts, frame: FrameRecord) -> (Level, String) {
        after_a_second(counts, frame).assess(&view())
    }

    #[test]
    fn frames_on_time_are_well() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        assert_eq!(assessed(counts, GOOD), (Level::Ok, "30.0 Hz, p99 20.0 ms from stamp to publish".into()));
    }

    #[test]
    fn few_misses_warn_and_many_are_an_error() {
        let few = FrameCounts { arrived: 100, on_time: 95, late: 5, ..FrameCounts::default() };
        assert_eq!(assessed(few, GOOD).0, Level::Warn);
        let many = FrameCounts { arrived: 100, on_time: 40, dropped_late: 60, ..FrameCounts::default() };
        let (level, sentence) = assessed(many, GOOD);
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("60 of 100 frames missed the deadline of 50 ms"), "{sentence}");
    }

    #[test]
    fn before_the_first_image_the_sentence_says_what_ros_knows_of_publishers() {
        let sentence = "no image has arrived on /image yet: nobody publishes it";
        let mut memory = Memory::default();
        assert_eq!(memory.assess(&view()), (Level::Warn, sentence.into()));
        memory.silence = view().settings.stale_after;
        assert_eq!(memory.assess(&view()), (Level::Error, sentence.into()), "for too long");
    }

    #[test]
    fn a_stream_that_stops_is_an_error() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        let mut memory = after_a_second(counts, GOOD);
        memory.silence = 5_000_000_000;
        let (level, sentence) = memory.assess(&view());
        assert_eq!((level, sentence), (Level::Error, "no image on /image for 5.0 s: nobody publishes it".into()));
    }

    #[test]
    fn when_every_image_is_rejected_the_reason_is_given() {
        let mut memory = after_a_second(FrameCounts { arrived: 9, rejected: 9, ..FrameCounts::default() }, GOOD);
        memory.rejections.last = Some(UnpackError::from(ImageError::Step { step: 1, row_bytes: 9 }).into());
        let (level, sentence) = memory.assess(&view());
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("every image is rejected: step is 1 bytes"), "{sentence}");
    }

    #[test]
    fn stamps_from_the_future_are_pointed_out() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        let ahead = FrameRecord { age_at_arrival: -5_000_000, ..GOOD };
        assert!(assessed(counts, ahead).1.contains("future"));
    }

    #[test]
    fn frames_that_were_never_processed_have_no_stage_times() {
        let dropped = FrameRecord { processed: false, ..GOOD };
        let memory = after_a_second(FrameCounts { arrived: 1, dropped_late: 1, ..FrameCounts::default() }, dropped);
        let values = memory.values(&FrameCounts::default(), &view());
        let has = |key: &str| values.iter().any(|(k, _)| k == key);
        assert!(has("stamp_to_publish_p99_ms") && !has("inference_p99_ms"));
    }

    #[test]
    fn a_miss_warns_at_once_and_misses_in_a_row_are_an_error() {
        let counts = FrameCounts { arrived: 1000, on_time: 1000, ..FrameCounts::default() };
        let mut memory = after_a_second(counts, GOOD);
        memory.condition = Condition::Missing;
        assert_eq!(memory.assess(&view()).0, Level::Warn);
        (memory.condition, memory.misses_in_a_row) = (Condition::Failing, 7);
        let (level, sentence) = memory.assess(&view());
        assert_eq!((level, sentence.as_str()), (Level::Error, "7 frames in a row missed the deadline of 50 ms"));
        memory.misses_in_a_row = 0;
        assert!(memory.assess(&view()).1.starts_with("recovering"));
    }

    #[test]
    fn the_degraded_mode_is_announced() {
        let memory = after_a_second(FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() }, GOOD);
        let view = View { left_out: Some("without segmentation"), ..view() };
        let expected = "degraded mode, to keep deadlines: without segmentation";
        assert_eq!(memory.assess(&view), (Level::Warn, expected.into()));
        let values = memory.values(&FrameCounts::default(), &view);
        assert!(values.contains(&("mode".into(), "degraded: without segmentation".into())));
    }

    #[test]
    fn images_that_do_not_say_where_they_were_taken_are_told_of() {
        let frame_id = |framed: bool| {
            let memory = after_a_second(FrameCounts::default(), FrameRecord { framed, ..GOOD });
            let values = memory.values(&FrameCounts::default(), &view());
            values.into_iter().find(|(key, _)| key == "frame_id").unwrap().1
        };
        assert_eq!(frame_id(true), "as in the image's header");
        assert!(frame_id(false).starts_with("none in the image's header"));
    }
}
