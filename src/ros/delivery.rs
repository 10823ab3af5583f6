//! From a camera's intake, or its video decoder, to the frame thread.

use std::sync::atomic::Ordering::Relaxed;

use peregrine_core::FrameOutcome;

use super::age::Age;
use super::clock::Nanoseconds;
use super::incoming::Frame;
use super::record::{Record, Rejection};
use super::shared::NodeShared;

/// The due time in [`FrameMailbox`](peregrine_core::FrameMailbox) of an image without a deadline,
/// in ns from arrival. The same for all cameras, so that the one that has waited longest comes
/// first.
const NO_DEADLINE: i64 = 1_000_000_000;

/// Puts a frame into the mailbox, in the place of one of its camera that waits there still.
pub fn deliver(shared: &NodeShared, frame: Frame) {
    let (camera, arrival) = (frame.camera, frame.arrival.monotonic);
    let age = Age::of(&frame).at(arrival);
    let due = due(arrival, age, shared.settings.load().deadline.unwrap_or(NO_DEADLINE));
    if let Some(superseded) = shared.mailbox.put(camera, frame, due) {
        shared.cameras[camera].accounting.end(FrameOutcome::Superseded);
        drop(superseded);
    }
}

/// Ends a frame of `camera` that cannot be used, before it reaches the mailbox: an unusable image
/// never supersedes a good one.
pub fn reject(shared: &NodeShared, camera: usize, rejection: Rejection) {
    let camera = &shared.cameras[camera];
    camera.accounting.end(FrameOutcome::Rejected);
    camera.records.force_push(Record::Rejected(rejection));
    camera.rejected_on_arrival.fetch_add(1, Relaxed);
}

/// When an image of that age is due on the monotonic clock.
///
/// Clamped between its arrival and a whole deadline later: the age relies on the camera's clock,
/// and a camera whose clock is behind would otherwise always come first, and one whose clock is
/// ahead never.
fn due(arrival: u64, age: Nanoseconds, deadline: Nanoseconds) -> u64 {
    arrival.saturating_add(deadline.saturating_sub(age).clamp(0, deadline) as u64)
}

#[cfg(test)]
mod tests {
    use peregrine_core::FrameMailbox;

    use super::*;

    const HOUR: Nanoseconds = 3_600_000_000_000;
    const MS: u64 = 1_000_000;

    /// How often each of two cameras is served in 60 frames of an overloaded worker, given the ages
    /// of their images.
    fn times_served(ages: [Nanoseconds; 2]) -> [u32; 2] {
        let (mailbox, mut served, mut next) = (FrameMailbox::new(2), [0; 2], [3 * MS, 17 * MS]);
        for frame in 1..=60 {
            let now = frame * 50 * MS;
            for camera in 0..2 {
                while next[camera] <= now {
                    mailbox.put(camera, (), due(next[camera], ages[camera], 100 * MS as i64));
                    next[camera] += 33 * MS;
                }
            }
            served[mailbox.take().expect("an image has come").0] += 1;
        }
        served
    }

    #[test]
    fn a_camera_with_a_clock_an_hour_off_gets_its_share_and_no_more() {
        for ages in [[HOUR, 0], [0, -HOUR], [HOUR, -HOUR], [i64::MAX, i64::MIN]] {
            let served = times_served(ages);
            assert!(served.iter().all(|&times| times >= 10), "{served:?} for ages of {ages:?}");
        }
    }

    #[test]
    fn with_synchronised_clocks_a_frame_is_due_at_its_deadline() {
        assert_eq!(due(500, 30, 100), 570);
        assert_eq!(due(500, 130, 100), 500, "past its deadline");
        assert_eq!(due(500, -30, 100), 600, "from the future");
    }
}
