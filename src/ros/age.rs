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
    /// Whether simulated time has begun. Before, when it is zero, age counts from the arrival.
    has_time: bool,
}

impl Age {
    pub fn of(frame: &Frame) -> Self {
        let from = match stamp(frame.message.header()) {
            0 => frame.arrival.ros,
            stamp => stamp,
        };
        Self { from, arrival: frame.arrival, has_time: frame.arrival.ros != 0 }
    }

    /// Age when the monotonic clock shows `monotonic`; negative if the camera's clock is ahead.
    pub fn at(&self, monotonic: u64) -> Nanoseconds {
        let from = if self.has_time { self.from } else { self.arrival.ros };
        self.arrival.ros_at(monotonic) - from
    }

    /// Whether the deadline, if there is one, has passed when the monotonic clock shows
    /// `monotonic`.
    pub fn is_past(&self, deadline: Option<Nanoseconds>, monotonic: u64) -> bool {
        deadline.is_some_and(|deadline| self.at(monotonic) > deadline)
    }
}
