//! What became of every frame that arrived.

use std::sync::atomic::{AtomicU64, Ordering};

/// How a frame ends. Every frame that arrives ends in exactly one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Its result was published within the deadline.
    OnTime,
    /// Its result was published after the deadline.
    Late,
    /// A newer frame took its place before work on it began.
    Superseded,
    /// Its deadline had passed, so that its result was not published.
    DroppedLate,
    /// It could not be used: a malformed image, or an engine that failed.
    Rejected,
}

/// The counts at one time. `arrived` is always the sum of all the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Counts {
    pub arrived: u64,
    pub on_time: u64,
    pub late: u64,
    pub superseded: u64,
    pub dropped_late: u64,
    pub rejected: u64,
    /// Arrived, and not yet ended.
    pub in_hand: u64,
}

impl Counts {
    /// Frames whose results were published.
    pub fn published(&self) -> u64 {
        self.on_time + self.late
    }

    /// Frames that ended, in whichever way.
    pub fn ended(&self) -> u64 {
        self.published() + self.superseded + self.dropped_late + self.rejected
    }
}

/// Counts frames as they arrive and end, from any number of threads, without locks.
#[derive(Debug, Default)]
pub struct Ledger {
    arrived: AtomicU64,
    outcomes: [AtomicU64; 5],
}

impl Ledger {
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame has arrived. Call before handing it to any other thread.
    pub fn arrive(&self) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
    }

    /// A frame that has arrived has ended.
    pub fn end(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Release);
    }

    /// The counts now, always adding up.
    ///
    /// Ends are read before arrivals, and each end comes after its frame's arrival: so no frame is seen to end that is
    /// not seen to arrive, and one that arrives during the call counts as in hand.
    pub fn counts(&self) -> Counts {
        let ended = |outcome: Outcome| self.outcomes[outcome as usize].load(Ordering::Acquire);
        let mut counts = Counts {
            on_time: ended(Outcome::OnTime),
            late: ended(Outcome::Late),
            superseded: ended(Outcome::Superseded),
            dropped_late: ended(Outcome::DroppedLate),
            rejected: ended(Outcome::Rejected),
            ..Counts::default()
        };
        counts.arrived = self.arrived.load(Ordering::Acquire);
        counts.in_hand = counts.arrived.saturating_sub(counts.ended());
        counts
    }
}
