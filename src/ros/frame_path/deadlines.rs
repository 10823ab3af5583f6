//! What follows from deadlines that were missed or kept: a camera's condition, and the degraded mode.

use std::sync::atomic::Ordering::Relaxed;

use peregrine_core::now_ns;

use super::outputs::DeadlineState;
use super::FramePath;
use crate::live::FrameSettings;
use crate::liveness::StreamLiveness;

impl FramePath {
    /// Images that were rejected on arrival are missed deadlines as well.
    pub(super) fn observe_rejected_on_arrival(&mut self) {
        for camera in 0..self.outputs.len() {
            let rejected = &self.shared.cameras[camera].rejected_on_arrival;
            if rejected.load(Relaxed) == 0 {
                continue;
            }
            let settings = self.shared.settings.load();
            for _ in 0..rejected.swap(0, Relaxed) {
                self.update_deadline_state(camera, true, &settings);
            }
        }
    }

    /// Updates the camera's condition after a deadline that was missed or kept, and enters or
    /// leaves the degraded mode: not while frames are begun in the other.
    pub(super) fn update_deadline_state(&mut self, camera: usize, missed: bool, settings: &FrameSettings) {
        let DeadlineState { monitor, degradation } = &mut self.outputs[camera].deadlines;
        let condition = monitor.observe(missed, &settings.monitor);
        let watched = &self.shared.cameras[camera];
        watched.condition.store(condition as u8, Relaxed);
        watched.misses_in_a_row.store(monitor.misses_in_a_row(), Relaxed);
        if self.model.can_degrade() {
            degradation.observe(missed, &settings.degradation);
            let degraded = self.needs_degraded_mode(settings);
            if degraded != self.model.is_degraded() && self.taken.is_empty() {
                self.model.set_degraded(degraded);
                self.shared.degraded.store(degraded, Relaxed);
            }
        }
    }

    /// Whether any camera needs the degraded mode to keep its deadlines: all share one thread, so
    /// it holds for all. A camera that has gone silent does not count.
    fn needs_degraded_mode(&self, settings: &FrameSettings) -> bool {
        let now = now_ns();
        let is_alive = |liveness: &StreamLiveness| liveness.silence(now).is_none_or(|ns| ns < settings.stale_after);
        let mut watched = self.outputs.iter().zip(&self.shared.cameras);
        watched.any(|(output, camera)| output.deadlines.degradation.is_degraded() && is_alive(&camera.liveness))
    }
}
