//! How an active node's stream is assessed: by a table of rules, of which the first that applies
//! gives the status.

use peregrine_core::FrameCounts;
use peregrine_pipeline::monitor::Condition;
use peregrine_vision::preprocess::levels::LevelDoubt;

use super::history::{StreamContext, StreamHistory};
use super::window::Window;
use crate::clock::Nanoseconds;
use crate::record::FrameRecord;

/// A status level, with its number in `diagnostic_msgs/DiagnosticStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Ok = 0,
    Warn = 1,
    Error = 2,
}

/// The status of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The rule that applied.
    pub rule: &'static str,
    pub level: Level,
    /// One sentence.
    pub message: String,
    /// Whether the log gets a line when the rule begins to apply, and one when it ends.
    logged: bool,
}

/// Gives the level and the message if the rule applies.
type Test = fn(&StreamHistory, &StreamContext) -> Option<(Level, String)>;

/// Camera and node disagree about the time if images are this far from the future.
const CLOCK_TOLERANCE: Nanoseconds = 1_000_000;

const LOGGED: bool = true;
const SILENT: bool = false;

const DOUBTFUL_LEVELS: &str = "doubtful_levels";

/// The rules, the most severe first.
const RULES: [(&str, bool, Test); 19] = [
    ("hanging", SILENT, hanging),
    ("no_image", LOGGED, no_image),
    ("waiting_for_first_image", SILENT, waiting_for_first_image),
    ("stale", LOGGED, stale),
    ("all_rejected", LOGGED, all_rejected),
    ("deadline_failing", SILENT, deadline_failing),
    ("deadlines_missed", SILENT, deadlines_missed),
    ("several_publishers", SILENT, several_publishers),
    ("no_clock", SILENT, no_clock),
    ("deadline_missed_lately", SILENT, deadline_missed_lately),
    ("degraded_mode", SILENT, degraded_mode),
    ("some_rejected", SILENT, some_rejected),
    ("no_stamps", SILENT, no_stamps),
    ("future_stamps", SILENT, future_stamps),
    (DOUBTFUL_LEVELS, LOGGED, doubtful_levels),
    ("not_on_ground", SILENT, not_on_ground),
    ("superseded", SILENT, superseded),
    ("publishing_failed", SILENT, publishing_failed),
    ("ok", SILENT, ok),
];

/// The status by the first rule that applies.
pub fn assess(history: &StreamHistory, context: &StreamContext) -> Assessment {
    let mut assessments = RULES.iter().filter_map(|&(rule, logged, test)| {
        test(history, context).map(|(level, message)| Assessment { rule, level, message, logged })
    });
    assessments.next().expect("the last rule always applies")
}

impl StreamHistory {
    /// Logs once that a rule which is to be logged begins to apply, and once that images are
    /// processed again if they were not.
    pub(super) fn log_change(&mut self, assessment: &Assessment, topic: &str) {
        let rule = assessment.logged.then_some(assessment.rule);
        if rule == self.logged {
            return;
        }
        if assessment.logged {
            tracing::warn!("{}", assessment.message);
        } else if self.logged == Some(DOUBTFUL_LEVELS) {
            // They were processed all the time.
        } else if self.window.gained().published() > 0 {
            tracing::info!("images on {topic} are processed again");
        } else {
            return;
        }
        self.logged = rule;
    }

    /// Forgets what was logged: the node does not take images any more.
    pub(super) fn reset_log(&mut self) {
        self.logged = None;
    }
}

fn hanging(_: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let frame = context.hanging.filter(|frame| frame.holds_up(context.topic))?;
    Some((Level::Error, format!("{frame}; {}", frame.meanwhile())))
}

fn no_image(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let (_, message) = waiting_for_first_image(history, context)?;
    is_stale(history, context).then_some((Level::Error, message))
}

fn waiting_for_first_image(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let message = || format!("no image has arrived on {} yet: {}", context.topic, context.publishers);
    (!history.has_begun).then(|| (Level::Warn, message()))
}

fn stale(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let seconds = history.silence as f64 / 1e9;
    let message = || format!("no image on {} for {seconds:.1} s: {}", context.topic, context.publishers);
    is_stale(history, context).then(|| (Level::Error, message()))
}

fn all_rejected(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let gained = history.window.gained();
    (gained.rejected > 0 && finished(&gained) == 0)
        .then(|| (Level::Error, format!("every image on {} is rejected: {}", context.topic, history.last_rejection())))
}

fn deadline_failing(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let wanted = context.settings.monitor.recover_after;
    let message = || match history.misses_in_a_row {
        0 => format!("recovering: the error is cleared after {wanted} consecutive frames on time"),
        misses => format!("{misses} consecutive frames {}", missed_or_rejected(history, context)),
    };
    (history.condition == Condition::Failing).then(|| (Level::Error, message()))
}

/// More than one in a hundred is a warning, more than half an error.
fn deadlines_missed(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let gained = history.window.gained();
    let (missed, finished) = (missed(&gained), finished(&gained));
    let level = if missed * 2 > finished { Level::Error } else { Level::Warn };
    let (deadline, seconds) = (deadline_ms(context), history.window.seconds());
    let message = || format!("{missed} of {finished} frames missed the deadline of {deadline} ms in {seconds:.0} s");
    (missed * 100 > finished).then(|| (level, message()))
}

fn several_publishers(_: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    context.rivals.map(|rivals| (Level::Warn, rivals.to_owned()))
}

fn no_clock(_: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    context.clock.map(|clock| (Level::Warn, format!("{clock}; latency cannot be told meanwhile")))
}

fn not_on_ground(_: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    context.ground.map(|fault| (Level::Warn, format!("nothing is placed on the ground: {fault}")))
}

fn deadline_missed_lately(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let wanted = context.settings.monitor.recover_after;
    let message = || format!("a frame {} within the last {wanted} frames", missed_or_rejected(history, context));
    (history.condition == Condition::Missing).then(|| (Level::Warn, message()))
}

fn degraded_mode(_: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    context.left_out.map(|left_out| (Level::Warn, format!("degraded mode, to keep deadlines: {left_out}")))
}

fn some_rejected(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let rejected = history.window.gained().rejected;
    (rejected > 0)
        .then(|| (Level::Warn, format!("{rejected} images were rejected, the last: {}", history.last_rejection())))
}

fn no_stamps(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let message = "images have no stamp: latency counts from arrival";
    most_frames(&history.window, |frame| !frame.has_stamp).then(|| (Level::Warn, message.into()))
}

fn future_stamps(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let message = "images are stamped in the future: the clocks of camera and node are not synchronised";
    most_frames(&history.window, |frame| frame.age_at_arrival < -CLOCK_TOLERANCE).then(|| (Level::Warn, message.into()))
}

fn doubtful_levels(history: &StreamHistory, context: &StreamContext) -> Option<(Level, String)> {
    let message = |doubt: LevelDoubt| {
        let (setting, value) = doubt.setting();
        format!("images on {}: {doubt}; if so, start with {setting}:={value}", context.topic)
    };
    history.doubt.map(|doubt| (Level::Warn, message(doubt)))
}

fn superseded(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let FrameCounts { superseded, arrived, .. } = history.window.gained();
    let message =
        || format!("{superseded} of {arrived} images were superseded: they arrive faster than they are processed");
    (superseded * 2 > arrived).then(|| (Level::Warn, message()))
}

fn publishing_failed(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let failures = history.publishing_failures;
    (failures > 0).then(|| (Level::Warn, format!("{failures} messages could not be published")))
}

fn ok(history: &StreamHistory, _: &StreamContext) -> Option<(Level, String)> {
    let rate = history.window.rate(history.window.gained().published());
    let latency = history.window.percentiles(|frame| Some(frame.latency)).map_or(0.0, |p| p.p99);
    Some((Level::Ok, format!("{rate:.1} Hz, p99 {latency:.1} ms from stamp to publish")))
}

fn is_stale(history: &StreamHistory, context: &StreamContext) -> bool {
    history.silence >= context.settings.stale_after
}

/// What has happened to frames that the monitor counts as missed.
fn missed_or_rejected(history: &StreamHistory, context: &StreamContext) -> String {
    let missed = format!("missed the deadline of {} ms", deadline_ms(context));
    match (history.window.gained().rejected, context.settings.deadline) {
        (0, _) => missed,
        (_, Some(_)) => format!("{missed} or were rejected, the last: {}", history.last_rejection()),
        (_, None) => format!("were rejected, the last: {}", history.last_rejection()),
    }
}

/// Frames that missed their deadline.
fn missed(counts: &FrameCounts) -> u64 {
    counts.late + counts.dropped_late
}

/// Frames that were processed, or dropped since they were too late for that.
fn finished(counts: &FrameCounts) -> u64 {
    counts.on_time + missed(counts)
}

fn deadline_ms(context: &StreamContext) -> f64 {
    context.settings.deadline.unwrap_or(0) as f64 / 1e6
}

/// Whether more than half of the window's frames pass the test.
fn most_frames(window: &Window, test: fn(&FrameRecord) -> bool) -> bool {
    let (hits, all) = window.frames().fold((0, 0), |(hits, all), frame| (hits + usize::from(test(frame)), all + 1));
    hits * 2 > all
}

#[cfg(test)]
mod tests {
    use peregrine_core::ImageError;
    use peregrine_pipeline::Stage;

    use super::super::history::Hanging;
    use super::super::values::tests::{after_a_second, context, GOOD};
    use super::*;
    use crate::incoming::UnpackError;
    use crate::live::FrameSettings;

    fn assessed(history: &StreamHistory, context: &StreamContext) -> (Level, String) {
        let Assessment { level, message, .. } = assess(history, context);
        (level, message)
    }

    fn after(counts: FrameCounts, frame: FrameRecord) -> (Level, String) {
        assessed(&after_a_second(counts, frame), &context())
    }

    #[test]
    fn frames_on_time_are_ok() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        assert_eq!(after(counts, GOOD), (Level::Ok, "30.0 Hz, p99 20.0 ms from stamp to publish".into()));
    }

    #[test]
    fn few_misses_warn_and_many_are_an_error() {
        let few = FrameCounts { arrived: 100, on_time: 95, late: 5, ..FrameCounts::default() };
        assert_eq!(after(few, GOOD).0, Level::Warn);
        let many = FrameCounts { arrived: 100, on_time: 40, dropped_late: 60, ..FrameCounts::default() };
        let (level, sentence) = after(many, GOOD);
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("60 of 100 frames missed the deadline of 50 ms"), "{sentence}");
    }

    #[test]
    fn before_the_first_image_the_ros_graph_is_quoted() {
        let sentence = "no image has arrived on /image yet: it has no publisher";
        let mut history = StreamHistory::default();
        assert_eq!(assessed(&history, &context()), (Level::Warn, sentence.into()));
        history.silence = context().settings.stale_after;
        assert_eq!(assessed(&history, &context()), (Level::Error, sentence.into()), "for too long");
    }

    #[test]
    fn a_stream_that_stops_is_an_error() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        let mut history = after_a_second(counts, GOOD);
        history.silence = 5_000_000_000;
        let (level, sentence) = assessed(&history, &context());
        assert_eq!((level, sentence), (Level::Error, "no image on /image for 5.0 s: it has no publisher".into()));
    }

    #[test]
    fn when_every_image_is_rejected_the_reason_is_given() {
        let mut history = after_a_second(FrameCounts { arrived: 9, rejected: 9, ..FrameCounts::default() }, GOOD);
        history.rejections.last = Some(UnpackError::from(ImageError::Step { step: 1, row_bytes: 9 }).into());
        let (level, sentence) = assessed(&history, &context());
        assert_eq!(level, Level::Error);
        assert!(sentence.starts_with("every image on /image is rejected: step is 1 bytes"), "{sentence}");
    }

    #[test]
    fn stamps_from_the_future_are_pointed_out() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        let ahead = FrameRecord { age_at_arrival: -5_000_000, ..GOOD };
        assert!(after(counts, ahead).1.contains("future"));
    }

    #[test]
    fn what_spoils_the_answers_of_a_stream_on_time_is_a_warning() {
        let counts = FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() };
        let ahead = FrameRecord { age_at_arrival: -5_000_000_000, ..GOOD };
        let no_clock = StreamContext { clock: Some("no /clock has come for 5 s"), ..context() };
        let (level, sentence) = assessed(&after_a_second(counts, ahead), &no_clock);
        assert_eq!(level, Level::Warn);
        assert!(sentence.starts_with("no /clock has come for 5 s") && !sentence.contains("future"), "{sentence}");
        for context in [
            StreamContext { rivals: Some("/left and /right"), ..context() },
            StreamContext { ground: Some("/left and /right"), ..context() },
        ] {
            let (level, sentence) = assessed(&after_a_second(counts, GOOD), &context);
            assert!(level == Level::Warn && sentence.contains("/left and /right"), "{sentence}");
        }
        let mut doubtful = after_a_second(counts, GOOD);
        doubtful.doubt = Some(LevelDoubt::FullRange);
        let (level, sentence) = assessed(&doubtful, &context());
        assert!(level == Level::Warn && sentence.ends_with("if so, start with yuv_range:=full"), "{sentence}");
    }

    #[test]
    fn a_miss_warns_at_once_and_consecutive_misses_are_an_error() {
        let counts = FrameCounts { arrived: 1000, on_time: 1000, ..FrameCounts::default() };
        let mut history = after_a_second(counts, GOOD);
        history.condition = Condition::Missing;
        assert_eq!(assessed(&history, &context()).0, Level::Warn);
        (history.condition, history.misses_in_a_row) = (Condition::Failing, 7);
        let (level, sentence) = assessed(&history, &context());
        assert_eq!((level, sentence.as_str()), (Level::Error, "7 consecutive frames missed the deadline of 50 ms"));
        history.misses_in_a_row = 0;
        assert!(assessed(&history, &context()).1.starts_with("recovering"));
    }

    #[test]
    fn a_frame_that_hangs_is_an_error_that_names_the_stage_and_the_camera() {
        let history = after_a_second(FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() }, GOOD);
        for stage in Stage::ALL {
            let hanging = Some(Hanging { topic: "/rear/image", stage, lasts: 1_250_000_000 });
            // The thread that all cameras share, but for the decoder of a video.
            let other = assessed(&history, &StreamContext { hanging, ..context() }).0;
            assert_eq!(other, if stage == Stage::Video { Level::Ok } else { Level::Error }, "{stage:?}");
            let (level, sentence) = assessed(&history, &StreamContext { hanging, topic: "/rear/image", ..context() });
            assert_eq!(level, Level::Error);
            assert!(sentence.starts_with("a frame of /rear/image has hung for 1.2 s "), "{sentence}");
            assert!(sentence.contains(stage.name()) || stage == Stage::Take, "{sentence}");
        }
    }

    #[test]
    fn rejections_in_a_row_are_told_from_missed_deadlines() {
        let mut history =
            after_a_second(FrameCounts { arrived: 30, on_time: 23, rejected: 7, ..FrameCounts::default() }, GOOD);
        history.rejections.last = Some(UnpackError::Damaged.into());
        (history.condition, history.misses_in_a_row) = (Condition::Failing, 7);
        let sentence = assessed(&history, &context()).1;
        let expected =
            "7 consecutive frames missed the deadline of 50 ms or were rejected, the last: the JPEG or PNG is damaged";
        assert_eq!(sentence, expected);
        let settings = FrameSettings { deadline: None, ..context().settings };
        let sentence = assessed(&history, &StreamContext { settings, ..context() }).1;
        assert_eq!(sentence, "7 consecutive frames were rejected, the last: the JPEG or PNG is damaged");
    }

    #[test]
    fn the_degraded_mode_is_announced() {
        let history = after_a_second(FrameCounts { arrived: 30, on_time: 30, ..FrameCounts::default() }, GOOD);
        let context = StreamContext { left_out: Some("without segmentation"), ..context() };
        let expected = "degraded mode, to keep deadlines: without segmentation";
        assert_eq!(assessed(&history, &context), (Level::Warn, expected.into()));
    }

    #[test]
    fn a_logged_rule_is_remembered_until_images_are_processed() {
        let rejected = FrameCounts { arrived: 9, rejected: 9, ..FrameCounts::default() };
        let mut history = after_a_second(rejected, GOOD);
        history.log_change(&assess(&history, &context()), "/image");
        assert_eq!(history.logged, Some("all_rejected"));
        let logged_after = |counts| {
            let mut history = after_a_second(counts, GOOD);
            history.logged = Some("all_rejected");
            history.log_change(&assess(&history, &context()), "/image");
            history.logged
        };
        assert_eq!(logged_after(FrameCounts::default()), Some("all_rejected"), "nothing has come since");
        assert_eq!(logged_after(FrameCounts { arrived: 9, on_time: 9, ..FrameCounts::default() }), None);
    }
}
