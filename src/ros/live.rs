//! The parameters that may change while the node runs, as the frame thread reads them: without a
//! lock.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};

use peregrine_pipeline::monitor::{DegradationSettings, MonitorSettings};
use peregrine_vision::decode::NmsIou;

use super::clock::Nanoseconds;
use super::parameters::Parameters;

/// The settings of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FrameSettings {
    pub score_threshold: f32,
    pub nms: NmsIou,
    /// From the stamp to publishing, in ns; `None` without a deadline.
    pub deadline: Option<Nanoseconds>,
    pub drop_late: bool,
    /// Time constant in ns of the average over classes of scenes; 0 for none.
    pub scene_smoothing: Nanoseconds,
    /// Silence in ns after which a stream is stale.
    pub stale_after: Nanoseconds,
    /// Time in ns after which a frame that is being processed hangs.
    pub stall_after: Nanoseconds,
    pub monitor: MonitorSettings,
    pub degradation: DegradationSettings,
}

/// Written by the thread that serves parameters, read by the frame thread once a frame. Each
/// setting is independent of the others, so a frame may see one change of several before the
/// others.
#[derive(Debug, Default)]
pub struct LiveSettings {
    score_threshold: AtomicU32,
    nms_iou: AtomicU32,
    cross_class_nms_iou: AtomicU32,
    /// 0 without a deadline.
    deadline: AtomicI64,
    drop_late: AtomicBool,
    scene_smoothing: AtomicI64,
    stale_after: AtomicI64,
    stall_after: AtomicI64,
    max_consecutive_misses: AtomicU32,
    recover_after: AtomicU32,
    degrade_after: AtomicU32,
    restore_after: AtomicU32,
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
        self.cross_class_nms_iou.store((parameters.real("cross_class_nms_iou") as f32).to_bits(), Relaxed);
        self.deadline.store((parameters.real("deadline_ms") * 1e6).round() as i64, Relaxed);
        self.drop_late.store(parameters.text("deadline_policy") == "drop_late", Relaxed);
        self.scene_smoothing.store((parameters.real("scene_smoothing_s") * 1e9).round() as i64, Relaxed);
        self.stale_after.store((parameters.real("stale_after_ms") * 1e6).round() as i64, Relaxed);
        self.stall_after.store((parameters.real("stall_after_ms") * 1e6).round() as i64, Relaxed);
        for (setting, name) in [
            (&self.max_consecutive_misses, "max_consecutive_misses"),
            (&self.recover_after, "recover_after_frames"),
            (&self.degrade_after, "degrade_after_misses"),
            (&self.restore_after, "restore_after_frames"),
        ] {
            setting.store(u32::try_from(parameters.count(name)).unwrap_or(u32::MAX), Relaxed);
        }
    }

    pub fn load(&self) -> FrameSettings {
        let deadline = self.deadline.load(Relaxed);
        FrameSettings {
            score_threshold: f32::from_bits(self.score_threshold.load(Relaxed)),
            nms: NmsIou {
                same_class: f32::from_bits(self.nms_iou.load(Relaxed)),
                across_classes: f32::from_bits(self.cross_class_nms_iou.load(Relaxed)),
            },
            deadline: (deadline > 0).then_some(deadline),
            drop_late: self.drop_late.load(Relaxed),
            scene_smoothing: self.scene_smoothing.load(Relaxed),
            stale_after: self.stale_after.load(Relaxed),
            stall_after: self.stall_after.load(Relaxed),
            monitor: MonitorSettings {
                max_consecutive_misses: self.max_consecutive_misses.load(Relaxed),
                recover_after: self.recover_after.load(Relaxed),
            },
            degradation: DegradationSettings {
                after_misses: self.degrade_after.load(Relaxed),
                restore_after: self.restore_after.load(Relaxed),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use r2r::ParameterValue;

    #[test]
    fn a_frame_reads_the_latest_parameters() {
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
