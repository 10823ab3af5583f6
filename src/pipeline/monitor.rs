//! Deadline monitoring, frame by frame: when to warn, when to degrade, and when to recover.
//!
//! Both state machines are a few numbers, updated once a frame on the frame thread: no clock, no allocation.

/// Health of a camera's stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(u8)]
pub enum Condition {
    #[default]
    Good = 0,
    /// A frame missed its deadline, and not enough have been on time since.
    Missing = 1,
    /// Too many misses in a row, or the stream had stopped, and not enough frames have been on time since.
    Failing = 2,
}

impl Condition {
    /// The inverse of `as u8`; an unknown value is the worst condition.
    pub fn from_number(number: u8) -> Self {
        match number {
            0 => Self::Good,
            1 => Self::Missing,
            _ => Self::Failing,
        }
    }
}

/// Thresholds of a [`Monitor`] in frames, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MonitorSettings {
    /// Misses in a row that make the stream [`Failing`](Condition::Failing).
    pub max_consecutive_misses: u32,
    /// Frames on time in a row that make it [`Good`](Condition::Good) again.
    pub recover_after: u32,
}

/// Monitors one camera's stream.
#[derive(Debug, Clone, Copy, Default)]
pub struct Monitor {
    condition: Condition,
    misses_in_a_row: u32,
    on_time_in_a_row: u32,
}

impl Monitor {
    /// A frame has ended, having missed its deadline or not.
    pub fn observe(&mut self, missed: bool, settings: &MonitorSettings) -> Condition {
        if missed {
            self.on_time_in_a_row = 0;
            self.misses_in_a_row = self.misses_in_a_row.saturating_add(1);
            let failing = self.misses_in_a_row >= settings.max_consecutive_misses;
            self.condition = self.condition.max(if failing { Condition::Failing } else { Condition::Missing });
        } else {
            self.misses_in_a_row = 0;
            self.on_time_in_a_row = self.on_time_in_a_row.saturating_add(1);
            if self.on_time_in_a_row >= settings.recover_after {
                self.condition = Condition::Good;
            }
        }
        self.condition
    }

    /// The stream had stopped, and resumes with the next observed frame.
    pub fn interrupt(&mut self) {
        self.condition = Condition::Failing;
        self.on_time_in_a_row = 0;
    }

    pub fn misses_in_a_row(&self) -> u32 {
        self.misses_in_a_row
    }
}

/// Thresholds of a [`Degradation`] in frames, at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DegradationSettings {
    /// Misses in a row after which less is computed.
    pub after_misses: u32,
    /// Frames on time in a row after which everything is computed again.
    pub restore_after: u32,
}

/// Decides whether frames are processed in full or in the degraded mode.
///
/// A machine that keeps its deadlines only in the degraded mode would alternate for ever, missing some each time.
/// So each restoration that lasts shorter than its wait doubles the wait before the next one (exponential back-off), up to
/// [`MOST_PATIENCE`](Self::MOST_PATIENCE) times; one that lasts makes it short again.
#[derive(Debug, Clone, Copy)]
pub struct Degradation {
    degraded: bool,
    misses_in_a_row: u32,
    on_time_in_a_row: u32,
    patience: u32,
    frames_since_restored: u32,
}

impl Default for Degradation {
    fn default() -> Self {
        let frames_since_restored = u32::MAX;
        Self { degraded: false, misses_in_a_row: 0, on_time_in_a_row: 0, patience: 1, frames_since_restored }
    }
}

impl Degradation {
    pub const MOST_PATIENCE: u32 = 16;

    /// A frame has ended, having missed its deadline or not. Returns whether the next one gets less work.
    pub fn observe(&mut self, missed: bool, settings: &DegradationSettings) -> bool {
        let wait = settings.restore_after.saturating_mul(self.patience);
        if missed {
            (self.misses_in_a_row, self.on_time_in_a_row) = (self.misses_in_a_row.saturating_add(1), 0);
        } else {
            (self.misses_in_a_row, self.on_time_in_a_row) = (0, self.on_time_in_a_row.saturating_add(1));
        }
        if self.degraded {
            if self.on_time_in_a_row >= wait {
                self.degraded = false;
                self.frames_since_restored = 0;
            }
            return self.degraded;
        }
        self.frames_since_restored = self.frames_since_restored.saturating_add(1);
        let lasted = self.frames_since_restored > wait;
        if lasted {
            self.patience = 1;
        }
        if self.misses_in_a_row >= settings.after_misses {
            self.degraded = true;
            if !lasted {
                self.patience = (self.patience * 2).min(Self::MOST_PATIENCE);
            }
        }
        self.degraded
    }

    pub fn is_degraded(&self) -> bool {
        self.degraded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SETTINGS: MonitorSettings = MonitorSettings { max_consecutive_misses: 3, recover_after: 5 };
    const LESS: DegradationSettings = DegradationSettings { after_misses: 2, restore_after: 10 };

    /// Observes frames, `x` a miss and `.` none, and returns the last condition.
    fn observed(monitor: &mut Monitor, frames: &str) -> Condition {
        frames.chars().map(|c| monitor.observe(c == 'x', &SETTINGS)).last().unwrap()
    }

    #[test]
    fn one_miss_warns_and_the_warning_stays_until_enough_frames_are_on_time() {
        let mut monitor = Monitor::default();
        assert_eq!(observed(&mut monitor, "..x"), Condition::Missing);
        assert_eq!(observed(&mut monitor, "...."), Condition::Missing);
        assert_eq!(observed(&mut monitor, "."), Condition::Good);
    }

    #[test]
    fn misses_in_a_row_fail_and_misses_between_others_do_not() {
        assert_eq!(observed(&mut Monitor::default(), "xxx"), Condition::Failing);
        assert_eq!(observed(&mut Monitor::default(), "xx.xx.xx"), Condition::Missing);
    }

    #[test]
    fn a_failing_stream_does_not_become_a_warning_on_the_way_back() {
        let mut monitor = Monitor::default();
        observed(&mut monitor, "xxx");
        assert_eq!(observed(&mut monitor, "....x...."), Condition::Failing);
        assert_eq!(observed(&mut monitor, "."), Condition::Good);
    }

    #[test]
    fn after_an_interruption_frames_on_time_are_waited_for() {
        let mut monitor = Monitor::default();
        observed(&mut monitor, ".....");
        monitor.interrupt();
        assert_eq!(observed(&mut monitor, "...."), Condition::Failing);
        assert_eq!(observed(&mut monitor, "."), Condition::Good);
    }

    /// How many frames on time in a row it takes to be restored.
    fn frames_to_restore(degradation: &mut Degradation) -> u32 {
        (1..).find(|_| !degradation.observe(false, &LESS)).unwrap()
    }

    #[test]
    fn less_is_done_after_misses_in_a_row_and_everything_again_after_frames_on_time() {
        let mut degradation = Degradation::default();
        assert!(!degradation.observe(true, &LESS));
        assert!(!degradation.observe(false, &LESS));
        assert!(!degradation.observe(true, &LESS));
        assert!(degradation.observe(true, &LESS));
        assert_eq!(frames_to_restore(&mut degradation), 10);
    }

    #[test]
    fn a_return_that_does_not_last_makes_the_next_one_wait_twice_as_long_up_to_a_limit() {
        let mut degradation = Degradation::default();
        let waits: Vec<_> = (0..7)
            .map(|_| {
                while !degradation.observe(true, &LESS) {}
                frames_to_restore(&mut degradation)
            })
            .collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 160, 160]);
        (0..200).for_each(|_| assert!(!degradation.observe(false, &LESS)));
        while !degradation.observe(true, &LESS) {}
        assert_eq!(frames_to_restore(&mut degradation), 10, "the last return has lasted");
    }

    proptest! {
        #[test]
        fn with_a_good_machine_both_end_well(frames in prop::collection::vec(any::<bool>(), 0..300)) {
            let (mut monitor, mut degradation) = (Monitor::default(), Degradation::default());
            for missed in frames {
                monitor.observe(missed, &SETTINGS);
                degradation.observe(missed, &LESS);
            }
            (0..LESS.restore_after * Degradation::MOST_PATIENCE).for_each(|_| { degradation.observe(false, &LESS); });
            (0..SETTINGS.recover_after).for_each(|_| { monitor.observe(false, &SETTINGS); });
            prop_assert!(!degradation.is_degraded());
            prop_assert_eq!(monitor.condition, Condition::Good);
        }
    }
}
