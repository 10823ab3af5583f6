//! The settings that may change while the node runs, as the frame thread reads them: without a lock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};

use super::clock::Nanoseconds;
use super::parameters::Parameters;

/// One consistent reading for one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameSettings {
    pub score_threshold: f32,
    pub nms_iou: f32,
    /// None when there is no deadline.
    pub deadline: Option<Nanoseconds>,
    pub drop_late: bool,
}

/// Written by the thread that serves parameters, read by the frame thread once a frame. Each setting makes sense by
/// itself, so a frame may see one change of several before the others.
#[derive(Debug, Default)]
pub struct LiveSettings {
    score_threshold: AtomicU32,
    nms_iou: AtomicU32,
    /// 0 for none.
    deadline: AtomicI64,
    drop_late: AtomicBool,
}

impl LiveSettings {
    pub fn new(parameters: &Parameters) -> Self {
        let settings = Self::default();
        settings.store(parameters);
        settings
    }

    pub fn store(&self, parameters: &Parameters) {
        self.score_threshold.store((parameters.real("score_threshold") as f32).to_bits(), Relaxed);
        self.nms_iou.store((parameters.real("nms_iou") as f32).to_bits(), Relaxed);
        self.deadline.store((parameters.real("deadline_ms") * 1e6).round() as i64, Relaxed);
        self.drop_late.store(parameters.text("deadline_policy") == "drop_late", Relaxed);
    }

    pub fn load(&self) -> FrameSettings {
        let deadline = self.deadline.load(Relaxed);
        FrameSettings {
            score_threshold: f32::from_bits(self.score_threshold.load(Relaxed)),
            nms_iou: f32::from_bits(self.nms_iou.load(Relaxed)),
            deadline: (deadline > 0).then_some(deadline),
            drop_late: self.drop_late.load(Relaxed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::ParameterValue;

    #[test]
    fn a_frame_reads_what_was_set_last() {
        let mut parameters = Parameters::default();
        let settings = LiveSettings::new(&parameters);
        assert_eq!(settings.load().deadline, Some(100_000_000));
        parameters.set("deadline_ms", ParameterValue::Double(0.0)).unwrap();
        parameters.set("deadline_policy", ParameterValue::String("drop_late".into())).unwrap();
        settings.store(&parameters);
        assert_eq!(settings.load().deadline, None);
        assert!(settings.load().drop_late);
    }
}
