//! The frame and stage that a worker is at, published without locks for the thread that detects
//! stuck workers.

use std::sync::atomic::{AtomicU64, AtomicU8, Ordering::Relaxed};

use super::record::LatencyStage;

/// The frame in work, its start, and its present stage.
#[derive(Debug, Default)]
pub struct WorkerProgress {
    /// Index of the frame plus one; 0 while there is none.
    frame: AtomicU64,
    since: AtomicU64,
    stage: AtomicU8,
}

impl WorkerProgress {
    /// Records that work on frame `index` begins at `now`.
    pub fn begin(&self, index: usize, now: u64) {
        self.stage.store(LatencyStage::Preprocess as u8, Relaxed);
        self.since.store(now, Relaxed);
        self.frame.store(index as u64 + 1, Relaxed);
    }

    /// Records that the frame is done.
    pub fn end(&self) {
        self.frame.store(0, Relaxed);
    }

    /// Records that the frame enters a stage.
    pub fn enter(&self, stage: LatencyStage) {
        self.stage.store(stage as u8, Relaxed);
    }

    /// The stage that was entered last.
    pub fn stage(&self) -> LatencyStage {
        LatencyStage::ALL.get(usize::from(self.stage.load(Relaxed))).copied().unwrap_or(LatencyStage::Inference)
    }

    /// The frame in work, and when it began.
    pub fn in_work(&self) -> Option<(usize, u64)> {
        let frame = self.frame.load(Relaxed).checked_sub(1)?;
        Some((frame as usize, self.since.load(Relaxed)))
    }
}
