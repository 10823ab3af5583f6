//! When a frame passed each stage.

/// When a frame passed each stage, by [`now_ns`](peregrine_core::now_ns).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageTimes {
    pub preprocess_start: u64,
    /// Letterbox done; the network starts.
    pub preprocess_end: u64,
    /// Network done; decoding starts.
    pub inference_end: u64,
    /// Boxes and mask done; tracking starts.
    pub decode_end: u64,
    /// Tracks carried on to this frame; 0 without tracking.
    pub track_end: u64,
}

impl StageTimes {
    /// Nanoseconds of the letterbox.
    pub fn preprocess(&self) -> u64 {
        self.preprocess_end - self.preprocess_start
    }

    /// Nanoseconds of the network.
    pub fn inference(&self) -> u64 {
        self.inference_end - self.preprocess_end
    }

    /// Nanoseconds of decoding boxes and mask.
    pub fn decode(&self) -> u64 {
        self.decode_end - self.inference_end
    }

    /// Nanoseconds of tracking; 0 without it.
    pub fn track(&self) -> u64 {
        self.track_end.saturating_sub(self.decode_end)
    }

    /// When the last stage ended.
    pub fn done(&self) -> u64 {
        self.decode_end.max(self.track_end)
    }

    /// Nanoseconds of all stages.
    pub fn total(&self) -> u64 {
        self.done() - self.preprocess_start
    }
}
