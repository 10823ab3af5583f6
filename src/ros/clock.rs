//! Two clocks: ROS time, in which images are stamped, and the monotonic clock, in which the
//! pipeline is timed.

/// A point in time or a duration, in nanoseconds.
pub type Nanoseconds = i64;

/// Both clocks read at one instant, from which times of one are converted to the other.
///
/// Within a frame only the monotonic clock is read: an adjustment of the system's time in mid-frame
/// does not distort the stages, and the frame thread needs no access to the node. Simulated time
/// must run at the rate of real time for the milliseconds that a frame takes.
#[derive(Debug, Clone, Copy)]
pub struct ClockSample {
    /// ROS time, ns since the epoch.
    pub ros: Nanoseconds,
    /// [`peregrine_core::now_ns`] at the same instant.
    pub monotonic: u64,
}

impl ClockSample {
    /// The ROS time at which the monotonic clock shows `monotonic`.
    pub fn ros_at(&self, monotonic: u64) -> Nanoseconds {
        self.ros + (monotonic as i64 - self.monotonic as i64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_and_later_times_are_converted() {
        let sample = ClockSample { ros: 1_700_000_000_000_000_000, monotonic: 5_000 };
        assert_eq!(sample.ros_at(7_500), 1_700_000_000_000_002_500);
        assert_eq!(sample.ros_at(4_000), 1_699_999_999_999_999_000);
    }
}
