//! The stream liveness watchdog: whether images of a camera arrive at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::clock::Nanoseconds;

/// The liveness of one camera's stream: written by the thread that takes the images, read by those
/// that watch for silence. All times are the monotonic clock's.
#[derive(Debug, Default)]
pub struct StreamLiveness {
    /// When the watchdog was started; 0 while it is stopped.
    started: AtomicU64,
    /// 0 before the first arrival since then.
    last_arrival: AtomicU64,
    interrupted: AtomicBool,
}

impl StreamLiveness {
    /// Images are expected from `now` on; silence counts from here.
    pub fn start(&self, now: u64) {
        self.last_arrival.store(0, Relaxed);
        self.interrupted.store(false, Relaxed);
        self.started.store(now.max(1), Relaxed);
    }

    /// Images are not expected any more.
    pub fn stop(&self) {
        self.started.store(0, Relaxed);
    }

    /// An image has come, usable or not. The stream was interrupted if the one before came longer
    /// than `stale_after` ago.
    pub fn on_arrival(&self, now: u64, stale_after: Nanoseconds) {
        let last = self.last_arrival.swap(now.max(1), Relaxed);
        if last != 0 && now.saturating_sub(last) as i64 > stale_after {
            self.interrupted.store(true, Relaxed);
        }
    }

    /// How long no image has come by `now`; `None` while the watchdog is stopped.
    pub fn silence(&self, now: u64) -> Option<Nanoseconds> {
        let started = self.started.load(Relaxed);
        (started != 0).then(|| now.saturating_sub(started.max(self.last_arrival.load(Relaxed))) as i64)
    }

    /// Whether any image has come since the watchdog was started.
    pub fn has_begun(&self) -> bool {
        self.last_arrival.load(Relaxed) != 0
    }

    /// Whether the stream was interrupted since the last call.
    pub fn take_interruption(&self) -> bool {
        self.interrupted.load(Relaxed) && self.interrupted.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Nanoseconds = 100;

    #[test]
    fn only_a_long_gap_interrupts_the_stream_and_only_once() {
        let liveness = StreamLiveness::default();
        liveness.start(1_000);
        [1_010, 1_100].iter().for_each(|&now| liveness.on_arrival(now, STALE));
        assert!(!liveness.take_interruption());
        [1_300, 1_310].iter().for_each(|&now| liveness.on_arrival(now, STALE));
        assert_eq!([liveness.take_interruption(), liveness.take_interruption()], [true, false]);
    }

    #[test]
    fn time_while_stopped_is_not_silence() {
        let liveness = StreamLiveness::default();
        assert_eq!(liveness.silence(5_000), None);
        liveness.start(1_000);
        liveness.on_arrival(1_010, STALE);
        liveness.stop();
        assert_eq!(liveness.silence(5_000), None);
        liveness.start(9_000);
        assert_eq!((liveness.silence(9_050), liveness.has_begun()), (Some(50), false));
        liveness.on_arrival(9_060, STALE);
        assert!(liveness.has_begun() && !liveness.take_interruption());
    }

    #[test]
    fn a_camera_that_never_sent_anything_is_silent_from_the_start() {
        let liveness = StreamLiveness::default();
        liveness.start(1_000);
        assert_eq!(liveness.silence(1_700), Some(700));
        liveness.on_arrival(1_800, STALE);
        assert_eq!(liveness.silence(1_830), Some(30));
    }
}
