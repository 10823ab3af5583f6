//! The stamps of a recorded camera against the clock of the machine that recorded them.

use super::check::{Check, Topic};
use crate::recorded::Stamped;
use crate::trend;

const CAMERA_CLOCK: Topic = Topic {
    name: "camera clock",
    why: "the node takes a frame's age from its stamp: a camera's clock that is ahead hides lateness, one that is \
          behind makes frames late that are not",
};

/// Longest time from exposure to the recorder that is believed of a camera, seconds.
const LONGEST_DELAY: f64 = 0.5;

/// Drift of two clocks, in parts per million, that a crystal does not have while they are kept together.
const MOST_DRIFT: f64 = 20.0;

/// Compares stamps with the times of arrival, nanoseconds.
pub fn check(frames: &[Stamped]) -> Check {
    let stamped: Vec<_> = frames.iter().filter(|frame| frame.stamp != frame.log_time).collect();
    let remedy = "let the camera's driver stamp with the system's clock, or keep the camera's clock by PTP \
                  (ptp4l and phc2sys)";
    let (Some(first), Some(last)) = (stamped.first(), stamped.last()) else {
        return CAMERA_CLOCK
            .doubtful("the images have no stamps of their own: frames count from their arrival", remedy);
    };
    let mut delays: Vec<f64> = stamped.iter().map(|frame| frame.delay_s()).collect();
    let drift = drift_ppm(&delays, last.log_time.saturating_sub(first.log_time) as f64 / 1e9);
    delays.sort_unstable_by(f64::total_cmp);
    let (least, median, most) = (delays[0], delays[delays.len() / 2], delays[delays.len() - 1]);
    let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
    let drifts = drift.filter(|ppm| ppm.abs() > MOST_DRIFT);
    let drift = drifts.map_or(String::new(), |ppm| format!(", and the difference changes by {ppm:.0} µs a second"));
    let finding = format!(
        "{} images arrived {} ms after their stamps ({} to {} ms){drift}",
        stamped.len(),
        ms(median),
        ms(least),
        ms(most)
    );
    if least < 0.0 {
        return CAMERA_CLOCK.doubtful(format!("{finding}: its clock is ahead, by {} ms or more", ms(-least)), remedy);
    }
    if median > LONGEST_DELAY {
        return CAMERA_CLOCK
            .doubtful(format!("{finding}: its clock is behind, or the driver holds images back"), remedy);
    }
    if drifts.is_some() {
        return CAMERA_CLOCK.doubtful(finding, remedy);
    }
    CAMERA_CLOCK.good(finding)
}

/// How the delay changes over `seconds`, µs a second, if it does so significantly.
fn drift_ppm(delays: &[f64], seconds: f64) -> Option<f64> {
    let trend = trend::of_many(delays)?;
    (seconds > 0.0 && trend.p_value.min(1.0 - trend.p_value) < 1e-3).then_some(trend.change / seconds * 1e6)
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    /// 600 frames at 30 Hz with the delays of `delay`, seconds by number.
    fn camera(delay: impl Fn(usize) -> f64) -> Check {
        let frame = |i: usize| {
            let stamp = 1_700_000_000_000_000_000 + i as u64 * 33_333_333;
            Stamped { stamp, log_time: stamp.saturating_add_signed((delay(i) * 1e9) as i64) }
        };
        check(&(0..600).map(frame).collect::<Vec<_>>())
    }

    /// Of 0 to 1 ms.
    fn jitter(i: usize) -> f64 {
        (i * 7919 % 1000) as f64 * 1e-6
    }

    #[test]
    fn a_camera_on_the_systems_clock_is_good() {
        let found = camera(|i| 0.012 + jitter(i));
        assert_eq!(found.health, Health::Good, "{found:?}");
        assert!(
            found.finding.starts_with("600 images arrived 12.5 ms after their stamps (12.0 to 13.0 ms)"),
            "{found:?}"
        );
    }

    #[test]
    fn a_clock_that_is_ahead_behind_or_drifting_is_told() {
        for (found, expected) in [
            (camera(|i| jitter(i) - 0.040), "its clock is ahead, by 40.0 ms or more"),
            (camera(|i| jitter(i) + 37.0), "its clock is behind"),
            // 100 ppm over 20 s.
            (camera(|i| 0.012 + jitter(i) + i as f64 / 30.0 * 100e-6), "and the difference changes by 97 µs a second"),
            (camera(|_| 0.0), "no stamps of their own"),
            (check(&[]), "no stamps of their own"),
        ] {
            assert!(found.health == Health::Doubtful && found.finding.contains(expected), "{found:?}");
        }
    }

    #[test]
    fn stamps_without_sense_are_no_panic() {
        let frame = |stamp, log_time| Stamped { stamp, log_time };
        let found = check(&[frame(u64::MAX, 0), frame(0, u64::MAX), frame(5, 3)]);
        assert_eq!(found.health, Health::Doubtful);
    }
}
