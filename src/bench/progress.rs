//! What a worker is at, for those who watch it: told without locks, so that watching costs it nothing.

use std::sync::atomic::{AtomicU64, AtomicU8, Ordering::Relaxed};

use super::record::Stage;

/// The frame in work, since when, and the stage it has come to.
#[derive(Debug, Default)]
pub struct Progress {
    /// Index of the frame plus one; 0 while there is none.
    frame: AtomicU64,
    since: AtomicU64,
    stage: AtomicU8,
}

impl Progress {
    /// Work on frame `index` begins at `now`.
    pub fn begin(&self, index: usize, now: u64) {
        self.stage.store(Stage::Preprocess as u8, Relaxed);
        self.since.store(now, Relaxed);
        self.frame.store(index as u64 + 1, Relaxed);
    }

    /// Work on it is over.
    pub fn end(&self) {
        self.frame.store(0, Relaxed);
    }

    pub fn enter(&self, stage: Stage) {
        self.stage.store(stage as u8, Relaxed);
    }

    pub fn stage(&self) -> Stage {
        Stage::ALL.get(usize::from(self.stage.load(Relaxed))).copied().unwrap_or(Stage::Inference)
    }

    /// The frame in work, and when work on it began.
    pub fn in_work(&self) -> Option<(usize, u64)> {
        let frame = self.frame.load(Relaxed).checked_sub(1)?;
        Some((frame as usize, self.since.load(Relaxed)))
    }
}
