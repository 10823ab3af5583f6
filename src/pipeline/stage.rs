//! Where a frame is on its way, for somebody who watches from outside.

/// A part of a frame's way through the program, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Taken from the mailbox; a new model may take over here.
    Take = 0,
    /// Checked, and decompressed.
    Unpack = 1,
    /// Letterbox; on a GPU the copy to it and the launch.
    Preprocess = 2,
    /// The network, on the CPU.
    Inference = 3,
    /// Waiting for the GPU, which does the whole frame.
    GpuWait = 4,
    /// Boxes and mask.
    Decode = 5,
    Track = 6,
    /// The middleware's `publish` of the detections.
    Publish = 7,
    /// All that is published after them.
    Outputs = 8,
    /// Decoding of H.264 and H.265, before all others, by a thread of the camera's own.
    Video = 9,
}

impl Stage {
    pub const ALL: [Self; 10] = [
        Self::Take,
        Self::Unpack,
        Self::Preprocess,
        Self::Inference,
        Self::GpuWait,
        Self::Decode,
        Self::Track,
        Self::Publish,
        Self::Outputs,
        Self::Video,
    ];

    /// The inverse of `as u8`; an unknown value is the first stage.
    pub fn from_number(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or(Self::Take)
    }

    /// In lower case, such as `gpu_wait`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Unpack => "unpack",
            Self::Preprocess => "preprocess",
            Self::Inference => "inference",
            Self::GpuWait => "gpu_wait",
            Self::Decode => "decode",
            Self::Track => "track",
            Self::Publish => "publish",
            Self::Outputs => "outputs",
            Self::Video => "video",
        }
    }
}

/// Is told of each stage that a frame enters, by the thread that processes it: it must neither
/// allocate nor wait.
pub trait StageObserver: Send + Sync {
    fn enter(&self, stage: Stage);
}

/// For a pipeline that nobody watches.
impl StageObserver for () {
    fn enter(&self, _: Stage) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_known_by_its_number() {
        for (number, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!((stage as usize, Stage::from_number(number as u8)), (number, stage));
        }
    }
}
