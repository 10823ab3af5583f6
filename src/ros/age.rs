//! How old the scene is that a frame shows.

use super::clock::{ClockSample, Nanoseconds};
use super::incoming::Frame;
use super::messages::stamp;

/// The age of one frame, at any time of the monotonic clock.
#[derive(Debug, Clone, Copy)]
pub struct Age {
    /// ROS time from which age counts: the stamp or, for an image without one, its arrival.
    pub from: Nanoseconds,
    arrival: ClockSample,
}

impl Age {
    pub fn of(frame: &Frame) -> Self {
        let from = match stamp(frame.message.header()) {
            0 => frame.arrival.ros,
            stamp => stamp,
        };
        Self { from, arrival: frame.arrival }
    }

    /// Age when the monotonic clock shows `monotonic`; negative if the camera's clock is ahead.
    pub fn at(&self, monotonic: u64) -> Nanoseconds {
        self.arrival.ros_at(monotonic) - self.from
    }

    /// Whether the deadline, if there is one, has passed when the monotonic clock shows
    /// `monotonic`.
    pub fn is_past(&self, deadline: Option<Nanoseconds>, monotonic: u64) -> bool {
        deadline.is_some_and(|deadline| self.at(monotonic) > deadline)
    }
}
