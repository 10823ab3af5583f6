//! The events of the page, in JSON.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use peregrine_core::BoundingBox;
use r2r::diagnostic_msgs::msg::DiagnosticArray;
use serde_json::{json, Value};

use crate::capture::CapturedFrame;
use crate::messages::Timing;

/// A frame: its picture as JPEG, what was found in it, and its times. A frame whose picture nobody
/// would see in time has none, and is there for its times.
pub fn frame(frame: &CapturedFrame, picture: Option<(&[u8], [usize; 2])>) -> String {
    let mut event = json!({ "camera": frame.camera, "sequence": frame.sequence });
    if let Some((jpeg, size)) = picture {
        event["picture"] = STANDARD.encode(jpeg).into();
        event["size"] = json!(size);
        event["found"] = found(frame);
    }
    if let Some((timing, counts)) = &frame.timing {
        event["timing"] = self::timing(timing);
        event["counts"] = json!({
            "on time": counts.on_time, "late": counts.late, "superseded": counts.superseded,
            "dropped late": counts.dropped_late, "rejected": counts.rejected,
        });
    }
    if let Some(rejection) = &frame.rejection {
        event["rejection"] = rejection.to_string().into();
    }
    event.to_string()
}

/// Boxes, tracks without a box in this frame, and the mask. Boxes in pixels of the image: left, top,
/// width, height.
fn found(frame: &CapturedFrame) -> Value {
    let found = &frame.annotations;
    let Some(classes) = &found.classes else { return Value::Null };
    let place = |b: &BoundingBox| json!([b.x_min, b.y_min, b.x_max - b.x_min, b.y_max - b.y_min]);
    let name = |class: usize| classes.detection.get(class).map_or("", |name| name.as_str());
    let identities = found.identities.iter().copied().chain(std::iter::repeat(0));
    let boxes: Vec<_> = found
        .detections
        .iter()
        .zip(identities)
        .map(|(d, id)| json!({ "class": d.class, "name": name(d.class), "score": d.score, "id": id, "box": place(&d.bbox) }))
        .collect();
    let missed = found.tracks.iter().filter(|track| track.missed > 0);
    let tracks: Vec<_> =
        missed.map(|t| json!({ "class": t.class, "name": name(t.class), "id": t.id, "box": place(&t.bbox) })).collect();
    let mask = &found.mask;
    let road: Vec<u8> = mask.classes.iter().map(|&class| u8::from(classes.is_road(class))).collect();
    json!({
        "boxes": boxes,
        "tracks": tracks,
        "mask": (!road.is_empty()).then(|| json!({ "size": [mask.width, mask.height], "road": STANDARD.encode(road) })),
    })
}

/// In milliseconds. A stage that was not reached has no time.
fn timing(t: &Timing) -> Value {
    let ms = |ns: i64| ns as f64 / 1e6;
    let stage = |from: i64, to: i64| if from > 0 && to > 0 { json!(ms(to - from)) } else { Value::Null };
    json!({
        "latency": ms(t.latency),
        "deadline": ms(t.deadline),
        "verdict": t.verdict,
        "stages": {
            "wait": stage(t.arrival, t.preprocess_start),
            "preprocess": stage(t.preprocess_start, t.preprocess_end),
            "inference": stage(t.preprocess_end, t.inference_end),
            "decode": stage(t.inference_end, t.decode_end),
            "track": stage(t.decode_end, t.track_end),
        },
    })
}

/// The diagnostics, in their own words.
pub fn status(array: &DiagnosticArray) -> String {
    let parts: Vec<_> =
        array.status.iter().map(|s| json!({ "level": s.level, "name": s.name, "message": s.message })).collect();
    json!({ "parts": parts }).to_string()
}
