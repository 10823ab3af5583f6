//! Lost frames, estimated from the gaps between a camera's stamps.

/// Intervals from which the period is estimated: half a second at 30 Hz.
const INTERVALS: usize = 16;

/// Periods that a gap may span; beyond it the camera was stopped or its clock was set, and nothing is estimated.
const LONGEST_GAP: i64 = 300;

/// Consecutive stamps older than the newest one, after which that newest one is treated as the outlier.
const STRAGGLERS: u32 = 4;

/// Anomalies in a camera's stamps. Each count is monotonic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct StampCounts {
    /// Estimated frames that the camera took and that never arrived; not part of any other count.
    pub missing: u64,
    /// Frames with the stamp of the one before.
    pub duplicates: u64,
    /// Frames with a stamp before that of the one before.
    pub out_of_order: u64,
    /// Jumps of the stamps, in either direction, that no frame rate explains: a clock step, or a recording that loops.
    pub jumps: u64,
}

/// Follows the stamps of one camera.
///
/// The period is the median of the last intervals, so neither a gap nor a hasty frame moves it; an interval of about
/// n periods means that n−1 frames are missing.
#[derive(Debug, Clone, Default)]
pub struct StampWatch {
    last: Option<i64>,
    intervals: [i64; INTERVALS],
    known: usize,
    stragglers: u32,
    counts: StampCounts,
}

impl StampWatch {
    /// The next frame's stamp in nanoseconds; 0, for a camera that sets none, is passed over.
    pub fn observe(&mut self, stamp: i64) {
        if stamp == 0 {
            return;
        }
        let Some(last) = self.last.replace(stamp) else { return };
        let interval = stamp.saturating_sub(last);
        let period = self.period();
        let farthest = period.map(|period| period.saturating_mul(LONGEST_GAP));
        if interval == 0 {
            self.counts.duplicates += 1;
        } else if farthest.is_some_and(|farthest| interval.saturating_abs() > farthest) {
            self.counts.jumps += 1;
        } else if interval < 0 {
            self.counts.out_of_order += 1;
            self.stragglers += 1;
            if self.stragglers < STRAGGLERS {
                // What follows is to be compared with the newest that there was.
                self.last = Some(last);
                return;
            }
            self.counts.jumps += 1;
        } else {
            if let Some(period) = period {
                let periods = interval.saturating_add(period / 2) / period;
                self.counts.missing += (periods - 1).max(0) as u64;
            }
            self.intervals[self.known % INTERVALS] = interval;
            // Wraps around within the upper half, so that "enough are known" stays true.
            self.known = if self.known + 1 == 2 * INTERVALS { INTERVALS } else { self.known + 1 };
        }
        self.stragglers = 0;
    }

    pub fn counts(&self) -> StampCounts {
        self.counts
    }

    /// Frame period in nanoseconds; `None` before enough frames have arrived.
    pub fn period(&self) -> Option<i64> {
        (self.known >= INTERVALS).then(|| {
            let mut sorted = self.intervals;
            sorted.sort_unstable();
            sorted[INTERVALS / 2]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: i64 = 33_333_333;
    const START: i64 = 1_700_000_000_000_000_000;

    fn watched(frames: impl IntoIterator<Item = i64>) -> StampWatch {
        let mut watch = StampWatch::default();
        frames.into_iter().for_each(|i| watch.observe(START + i * PERIOD));
        watch
    }

    proptest! {
        #[test]
        fn frames_left_out_are_counted_despite_jitter(
            gaps in prop::collection::vec(prop_oneof![9 => Just(0i64), 1 => 1i64..6], 1..100),
            jitter in prop::collection::vec(-0.03f64..0.03, 80),
        ) {
            // As long as gaps are the minority: where most frames are missing, that is the rate.
            let minority = |w: &[i64]| w.iter().filter(|&&gap| gap > 0).count() * 3 < INTERVALS;
            prop_assume!(gaps.windows(INTERVALS.min(gaps.len())).all(minority));
            let (mut watch, mut jitter) = (StampWatch::default(), jitter.into_iter().cycle());
            let mut send = |at: i64| watch.observe(START + at * PERIOD + (jitter.next().unwrap() * PERIOD as f64) as i64);
            (0..=INTERVALS as i64).for_each(&mut send);
            let mut at = INTERVALS as i64;
            for gap in &gaps {
                at += 1 + gap;
                send(at);
            }
            prop_assert_eq!(watch.counts().missing, gaps.iter().sum::<i64>() as u64);
        }

        #[test]
        fn no_stamps_at_all_make_it_panic_or_count_backwards(stamps in prop::collection::vec(any::<i64>(), 0..100)) {
            let (mut watch, mut before) = (StampWatch::default(), StampCounts::default());
            for stamp in stamps {
                watch.observe(stamp);
                let now = watch.counts();
                prop_assert!(now.missing >= before.missing && now.jumps >= before.jumps);
                prop_assert!(now.missing - before.missing <= LONGEST_GAP as u64);
                before = now;
            }
        }
    }

    #[test]
    fn stragglers_and_duplicates_are_no_gaps() {
        let counts = watched((0..20).chain([18, 20, 20, 21])).counts();
        assert_eq!(counts, StampCounts { out_of_order: 1, duplicates: 1, ..StampCounts::default() });
    }

    #[test]
    fn a_clock_that_was_set_is_no_gap() {
        let counts = watched((0..20).chain([100_000, 100_001]).chain([5, 6])).counts();
        assert_eq!(counts, StampCounts { jumps: 2, ..StampCounts::default() });
    }

    #[test]
    fn one_stamp_from_far_ahead_does_not_make_all_that_follow_late() {
        let counts = watched([1_000_000_000].into_iter().chain(0..100)).counts();
        assert_eq!(counts, StampCounts { out_of_order: u64::from(STRAGGLERS), jumps: 1, ..StampCounts::default() });
    }

    #[test]
    fn unstamped_frames_tell_nothing() {
        let mut watch = StampWatch::default();
        (0..100).for_each(|_| watch.observe(0));
        assert_eq!((watch.counts(), watch.period()), (StampCounts::default(), None));
    }
}
