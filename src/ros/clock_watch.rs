//! Whether the time of `/clock` goes on, for a node that uses it.

use peregrine_core::now_ns;

use super::clock::Nanoseconds;

/// Without a change for so long, simulated time counts as standing still.
const LONGEST_STEP: Nanoseconds = 2_000_000_000;

/// Steps back that are no more than messages out of order.
const OUT_OF_ORDER: Nanoseconds = 100_000_000;

/// The watch over simulated time. All times but `ros` are the monotonic clock's.
#[derive(Debug)]
pub struct ClockWatch {
    /// 0 before the first message.
    ros: Nanoseconds,
    changed: u64,
    jumps_back: u64,
    /// Whether the log has a line that says that no time comes.
    told: bool,
}

impl Default for ClockWatch {
    /// From now on.
    fn default() -> Self {
        Self { ros: 0, changed: now_ns(), jumps_back: 0, told: false }
    }
}

impl ClockWatch {
    /// Takes in the ROS time at `now`, and logs when it begins or ceases to come, and when it jumps
    /// back.
    pub fn observe(&mut self, ros: Nanoseconds, now: u64) {
        if ros == self.ros {
            if !self.told {
                if let Some(problem) = self.problem(now, "") {
                    self.told = true;
                    tracing::warn!("{problem}");
                }
            }
            return;
        }
        let back = self.ros.saturating_sub(ros);
        if self.ros != 0 && back > OUT_OF_ORDER {
            self.jumps_back += 1;
            let seconds = back as f64 / 1e9;
            tracing::warn!("/clock went back by {seconds:.1} s, as when a bag is played again");
        }
        if std::mem::take(&mut self.told) {
            tracing::info!("/clock comes again");
        }
        (self.ros, self.changed) = (ros, now);
    }

    /// How often the time has jumped back.
    pub fn jumps_back(&self) -> u64 {
        self.jumps_back
    }

    /// That no time comes, for so long by `now` that it matters; `publishers` is what the ROS graph
    /// says of `/clock`.
    pub fn problem(&self, now: u64, publishers: &str) -> Option<String> {
        let lasts = now.saturating_sub(self.changed) as Nanoseconds;
        let seconds = lasts as f64 / 1e9;
        let what = match self.ros {
            0 => format!("no /clock has come for {seconds:.0} s, and the parameter use_sim_time is true"),
            ros => format!("/clock has stood still for {seconds:.0} s, at {:.1} s", ros as f64 / 1e9),
        };
        let who = if publishers.is_empty() { String::new() } else { format!(": {publishers}") };
        (lasts >= LONGEST_STEP).then(|| what + &who)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn watch(seen: &[(i64, u64)]) -> ClockWatch {
        let mut watch = ClockWatch { ros: 0, changed: 0, jumps_back: 0, told: false };
        seen.iter().for_each(|&(ros, now)| watch.observe(ros * SECOND as i64, now * SECOND));
        watch
    }

    #[test]
    fn a_clock_that_never_comes_is_told_with_how_long() {
        let watch = watch(&[(0, 0), (0, 1), (0, 5)]);
        assert_eq!(watch.problem(SECOND, ""), None, "there was hardly time for it");
        let told = watch.problem(5 * SECOND, "it has no publisher").unwrap();
        assert_eq!(told, "no /clock has come for 5 s, and the parameter use_sim_time is true: it has no publisher");
    }

    #[test]
    fn a_clock_that_stops_is_told_until_it_goes_on() {
        let mut watch = watch(&[(10, 1), (11, 2), (11, 3), (11, 6)]);
        assert!(watch.told);
        assert_eq!(watch.problem(6 * SECOND, "").unwrap(), "/clock has stood still for 4 s, at 11.0 s");
        watch.observe(12 * SECOND as i64, 7 * SECOND);
        assert_eq!((watch.problem(7 * SECOND, ""), watch.told), (None, false));
    }

    #[test]
    fn a_bag_that_is_played_again_is_counted_and_a_late_message_is_not() {
        let mut watch = watch(&[(10, 1), (70, 61), (10, 62), (11, 63)]);
        assert_eq!(watch.jumps_back(), 1);
        watch.observe(11 * SECOND as i64 - 50_000_000, 63 * SECOND);
        assert_eq!((watch.jumps_back(), watch.problem(64 * SECOND, "")), (1, None));
    }
}
