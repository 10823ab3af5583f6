//! Two clocks: ROS time, in which images are stamped, and the monotonic clock, in which the pipeline is timed.

/// A point in time or a duration, in nanoseconds.
pub type Nanoseconds = i64;

/// One instant read on both clocks, from which others are carried over.
///
/// Within a frame only the monotonic clock is read: an adjustment of the system's time in mid-frame does not distort
/// the steps, and the frame thread needs no access to the node. With simulated time this takes the simulation to run
/// at the rate of real time for the milliseconds that a frame takes.
#[derive(Debug, Clone, Copy)]
pub struct Instant {
    pub ros: Nanoseconds,
    /// As [`peregrine_core::now_ns`] tells it.
    pub monotonic: u64,
}

impl Instant {
    /// The ROS time at which the monotonic clock showed `monotonic`.
    pub fn ros_at(&self, monotonic: u64) -> Nanoseconds {
        self.ros + (monotonic as i64 - self.monotonic as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_and_later_times_are_carried_over() {
        let instant = Instant { ros: 1_700_000_000_000_000_000, monotonic: 5_000 };
        assert_eq!(instant.ros_at(7_500), 1_700_000_000_000_002_500);
        assert_eq!(instant.ros_at(4_000), 1_699_999_999_999_999_000);
    }
}
