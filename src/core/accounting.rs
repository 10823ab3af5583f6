//! Frame accounting: each received frame gets exactly one outcome.

use std::fmt;
use std::iter::Sum;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a frame ends. Every frame that arrives gets exactly one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameOutcome {
    /// Its result was published within the deadline.
    OnTime,
    /// Its result was published after the deadline.
    Late,
    /// A newer frame superseded it before work on it began.
    Superseded,
    /// Its deadline had passed, and its result was not published.
    DroppedLate,
    /// It could not be used: a malformed image, or an engine that failed.
    Rejected,
}

impl FrameOutcome {
    /// In lower case, such as `on time`.
    pub fn name(self) -> &'static str {
        match self {
            Self::OnTime => "on time",
            Self::Late => "late",
            Self::Superseded => "superseded",
            Self::DroppedLate => "dropped late",
            Self::Rejected => "rejected",
        }
    }
}

/// The counts at one time. `arrived` is always the sum of all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct FrameCounts {
    /// All frames.
    pub arrived: u64,
    /// [`FrameOutcome::OnTime`].
    pub on_time: u64,
    /// [`FrameOutcome::Late`].
    pub late: u64,
    /// [`FrameOutcome::Superseded`].
    pub superseded: u64,
    /// [`FrameOutcome::DroppedLate`].
    pub dropped_late: u64,
    /// [`FrameOutcome::Rejected`].
    pub rejected: u64,
    /// Arrived and not yet ended.
    // The key in results that users keep.
    #[serde(rename = "in_hand")]
    pub in_flight: u64,
}

impl FrameCounts {
    /// Frames whose results were published.
    pub fn published(&self) -> u64 {
        self.on_time + self.late
    }

    /// Frames that have ended, with any outcome.
    pub fn ended(&self) -> u64 {
        self.published() + self.superseded + self.dropped_late + self.rejected
    }
}

/// Of several cameras together.
impl Sum for FrameCounts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, c| Self {
            arrived: sum.arrived + c.arrived,
            on_time: sum.on_time + c.on_time,
            late: sum.late + c.late,
            superseded: sum.superseded + c.superseded,
            dropped_late: sum.dropped_late + c.dropped_late,
            rejected: sum.rejected + c.rejected,
            in_flight: sum.in_flight + c.in_flight,
        })
    }
}

/// In one line.
impl fmt::Display for FrameCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { arrived, on_time, late, superseded, dropped_late, rejected, in_flight } = self;
        write!(
            f,
            "{arrived} images arrived: {on_time} published on time, {late} late, {superseded} superseded, \
             {dropped_late} dropped late, {rejected} rejected, {in_flight} in flight"
        )
    }
}

/// Counts frames as they arrive and end, from any number of threads, without locks.
#[derive(Debug, Default)]
pub struct FrameAccounting {
    arrived: AtomicU64,
    outcomes: [AtomicU64; 5],
}

impl FrameAccounting {
    /// No frames yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame has arrived; returns its number, from 1. Call before handing it to any other thread.
    pub fn arrive(&self) -> u64 {
        self.arrived.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A frame that has arrived ends with an outcome.
    pub fn end(&self, outcome: FrameOutcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Release);
    }

    /// The counts now, always adding up.
    ///
    /// Ends are read before arrivals, and each end comes after its frame's arrival: so no frame is
    /// seen to end that is not seen to arrive, and one that arrives during the call counts as in
    /// flight.
    pub fn counts(&self) -> FrameCounts {
        let ended = |outcome: FrameOutcome| self.outcomes[outcome as usize].load(Ordering::Acquire);
        let mut counts = FrameCounts {
            on_time: ended(FrameOutcome::OnTime),
            late: ended(FrameOutcome::Late),
            superseded: ended(FrameOutcome::Superseded),
            dropped_late: ended(FrameOutcome::DroppedLate),
            rejected: ended(FrameOutcome::Rejected),
            ..FrameCounts::default()
        };
        counts.arrived = self.arrived.load(Ordering::Acquire);
        counts.in_flight = counts.arrived.saturating_sub(counts.ended());
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;
    use crate::LatestSlot;

    /// One step of a schedule of a node.
    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A number of frames arrive at once; if the flag is set, malformed ones.
        Burst(u8, bool),
        /// The worker takes the newest frame, if there is one.
        Take,
        /// The worker ends the frame it has.
        Finish(FrameOutcome),
    }

    fn step() -> impl Strategy<Value = Step> {
        let end = prop::sample::select(vec![
            FrameOutcome::OnTime,
            FrameOutcome::Late,
            FrameOutcome::DroppedLate,
            FrameOutcome::Rejected,
        ]);
        prop_oneof![
            (1u8..6, prop::bool::weighted(0.2)).prop_map(|(n, malformed)| Step::Burst(n, malformed)),
            Just(Step::Take),
            end.prop_map(Step::Finish),
        ]
    }

    proptest! {
        #[test]
        fn counts_add_up_at_each_step_of_any_schedule(steps in prop::collection::vec(step(), 1..200)) {
            let (accounting, slot) = (FrameAccounting::new(), LatestSlot::new());
            let (mut worked_on, mut arrived) = (VecDeque::new(), 0u64);
            for step in steps {
                match step {
                    Step::Burst(n, malformed) => for _ in 0..n {
                        accounting.arrive();
                        arrived += 1;
                        if malformed {
                            accounting.end(FrameOutcome::Rejected);
                        } else if slot.put(arrived).is_some() {
                            accounting.end(FrameOutcome::Superseded);
                        }
                    },
                    Step::Take if worked_on.is_empty() => worked_on.extend(slot.take()),
                    Step::Take => {}
                    Step::Finish(outcome) => if worked_on.pop_front().is_some() {
                        accounting.end(outcome);
                    },
                }
                let counts = accounting.counts();
                prop_assert_eq!(counts.arrived, arrived);
                prop_assert_eq!(counts.in_flight, worked_on.len() as u64 + !slot.is_empty() as u64);
                prop_assert_eq!(counts.arrived, counts.ended() + counts.in_flight);
            }
        }
    }

    #[test]
    fn counts_add_up_while_other_threads_count() {
        let (accounting, done) = (FrameAccounting::new(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..50_000 {
                    accounting.arrive();
                    accounting.end(if i % 3 == 0 { FrameOutcome::Superseded } else { FrameOutcome::OnTime });
                }
                done.store(true, Ordering::Release);
            });
            let mut before = FrameCounts::default();
            while !done.load(Ordering::Acquire) {
                let now = accounting.counts();
                assert_eq!(now.arrived, now.ended() + now.in_flight);
                assert!(now.arrived >= before.arrived && now.on_time >= before.on_time);
                before = now;
            }
        });
        let counts = accounting.counts();
        assert_eq!((counts.arrived, counts.in_flight), (50_000, 0));
    }
}
