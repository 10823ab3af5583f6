//! The numbers behind the assessment of a stream, as key and value.

use peregrine_core::FrameCounts;

use super::history::{StreamContext, StreamHistory};
use crate::record::FrameRecord;

/// A stage of a frame in nanoseconds; `None` for a frame that did not get there.
type Stage = fn(&FrameRecord) -> Option<i64>;

/// The stages whose percentiles are published.
const STAGES: [(&str, Stage); 9] = [
    ("stamp_to_publish", |f| Some(f.latency)),
    ("arrival_to_publish", |f| Some(f.from_arrival)),
    ("stamp_to_arrival", |f| Some(f.age_at_arrival)),
    ("wait", |f| f.processed.then_some(f.wait)),
    ("preprocess", |f| f.processed.then_some(f.preprocess)),
    ("inference", |f| f.processed.then_some(f.inference)),
    ("decode", |f| f.processed.then_some(f.decode)),
    ("track", |f| (f.track > 0).then_some(f.track)),
    ("publish", |f| (f.publish > 0).then_some(f.publish)),
];

/// The values of a stream, of which `counts` are the counts of all frames.
pub(super) fn of(history: &StreamHistory, counts: &FrameCounts, context: &StreamContext) -> Vec<(String, String)> {
    let mut values: Vec<(String, String)> = Vec::new();
    let mut put = |key: &str, value: String| values.push((key.into(), value));
    put("topic", context.topic.to_owned());
    put("deadline_ms", context.settings.deadline.map_or("none".into(), |ns| (ns as f64 / 1e6).to_string()));
    put("mode", context.left_out.map_or("full".into(), |left_out| format!("degraded: {left_out}")));

    for (key, count) in [
        ("arrived", counts.arrived),
        ("published_on_time", counts.on_time),
        ("published_late", counts.late),
        ("superseded", counts.superseded),
        ("dropped_late", counts.dropped_late),
        ("rejected", counts.rejected),
        ("in_flight", counts.in_flight),
        ("publishing_failures", history.publishing_failures),
        ("panics", history.panics),
        ("misses_in_a_row", u64::from(history.misses_in_a_row)),
        // Estimated from stamps, and not part of the counts above: these images never arrived.
        ("camera_missing_estimate", history.stamps.missing),
        ("stamps_duplicate", history.stamps.duplicates),
        ("stamps_out_of_order", history.stamps.out_of_order),
        ("stamps_jumped", history.stamps.jumps),
    ] {
        put(key, count.to_string());
    }
    for (reason, count) in &history.rejections.by_reason {
        put(&format!("rejected.{reason}"), count.to_string());
    }
    put("last_rejection", history.last_rejection());
    if let Some(last) = history.window.frames().last() {
        let empty = "empty: outputs cannot be transformed by tf";
        put("frame_id", if last.has_frame_id { "as in the image's header" } else { empty }.into());
    }

    let window = &history.window;
    let gained = window.gained();
    put("window_s", format!("{:.1}", window.seconds()));
    put("rate_in_hz", format!("{:.1}", window.rate(gained.arrived)));
    put("rate_out_hz", format!("{:.1}", window.rate(gained.published())));
    put("deadline_misses_in_window", (gained.late + gained.dropped_late).to_string());
    for (name, stage) in STAGES {
        if let Some(p) = window.percentiles(stage) {
            put(&format!("{name}_p50_ms"), format!("{:.2}", p.p50));
            put(&format!("{name}_p99_ms"), format!("{:.2}", p.p99));
            put(&format!("{name}_p99.9_ms"), format!("{:.2}", p.p999));
            put(&format!("{name}_max_ms"), format!("{:.2}", p.max));
        }
    }
    values
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::live::{FrameSettings, LiveSettings};
    use crate::parameters::Parameters;

    /// With a deadline of 50 ms.
    pub fn context() -> StreamContext<'static> {
        let settings = LiveSettings::new(&Parameters::default()).load();
        let settings = FrameSettings { deadline: Some(50_000_000), ..settings };
        StreamContext {
            topic: "/image",
            publishers: "it has no publisher",
            settings,
            left_out: None,
            clock: None,
            rivals: None,
            ground: None,
            hanging: None,
        }
    }

    /// A second in which `counts` were gained, all frames being like `frame`.
    pub fn after_a_second(counts: FrameCounts, frame: FrameRecord) -> StreamHistory {
        let (start, mut history) = (Instant::now(), StreamHistory::default());
        history.window.advance(start, FrameCounts::default());
        let now = start + Duration::from_secs(1);
        history.window.add(now, frame);
        history.window.advance(now, counts);
        history.has_begun = true;
        history
    }

    pub const GOOD: FrameRecord = FrameRecord {
        latency: 20_000_000,
        age_at_arrival: 1_000_000,
        from_arrival: 19_000_000,
        wait: 100_000,
        preprocess: 1_000_000,
        inference: 16_000_000,
        decode: 1_000_000,
        track: 20_000,
        publish: 60_000,
        processed: true,
        has_stamp: true,
        has_frame_id: true,
    };

    #[test]
    fn frames_that_were_never_processed_have_no_stage_times() {
        let dropped = FrameRecord { processed: false, ..GOOD };
        let history = after_a_second(FrameCounts { arrived: 1, dropped_late: 1, ..FrameCounts::default() }, dropped);
        let values = of(&history, &FrameCounts::default(), &context());
        let has = |key: &str| values.iter().any(|(k, _)| k == key);
        assert!(has("stamp_to_publish_p99_ms") && !has("inference_p99_ms"));
    }

    #[test]
    fn the_mode_says_what_the_degraded_mode_leaves_out() {
        let history = after_a_second(FrameCounts::default(), GOOD);
        let context = StreamContext { left_out: Some("without segmentation"), ..context() };
        let values = of(&history, &FrameCounts::default(), &context);
        assert!(values.contains(&("mode".into(), "degraded: without segmentation".into())));
    }

    #[test]
    fn an_empty_frame_id_is_pointed_out() {
        let frame_id = |has_frame_id: bool| {
            let history = after_a_second(FrameCounts::default(), FrameRecord { has_frame_id, ..GOOD });
            let values = of(&history, &FrameCounts::default(), &context());
            values.into_iter().find(|(key, _)| key == "frame_id").unwrap().1
        };
        assert_eq!(frame_id(true), "as in the image's header");
        assert!(frame_id(false).starts_with("empty"));
    }
}
