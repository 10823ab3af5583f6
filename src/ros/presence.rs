//! Whether a camera's images come at all: told by the thread that takes them, asked by those that watch for silence.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::clock::Nanoseconds;

/// When images of one camera were listened for, and when the last one came. All times are the monotonic clock's.
#[derive(Debug, Default)]
pub struct Presence {
    /// 0 while nobody listens.
    listening_since: AtomicU64,
    /// 0 before the first since then.
    last_arrival: AtomicU64,
    interrupted: AtomicBool,
}

impl Presence {
    /// Images are listened for from `now` on. What was before is no silence: nobody would have heard a thing.
    pub fn listen(&self, now: u64) {
        self.last_arrival.store(0, Relaxed);
        self.interrupted.store(false, Relaxed);
        self.listening_since.store(now.max(1), Relaxed);
    }

    /// Images are not listened for any more.
    pub fn pause(&self) {
        self.listening_since.store(0, Relaxed);
    }

    /// An image has come, usable or not; the stream had stopped if the one before was longer ago than `stale_after`.
    pub fn arrive(&self, now: u64, stale_after: Nanoseconds) {
        let last = self.last_arrival.swap(now.max(1), Relaxed);
        if last != 0 && now.saturating_sub(last) as i64 > stale_after {
            self.interrupted.store(true, Relaxed);
        }
    }

    /// How long no image has come by `now`. None while nobody listens.
    pub fn silence(&self, now: u64) -> Option<Nanoseconds> {
        let since = self.listening_since.load(Relaxed);
        (since != 0).then(|| now.saturating_sub(since.max(self.last_arrival.load(Relaxed))) as i64)
    }

    /// Whether any image has come since images are listened for.
    pub fn has_begun(&self) -> bool {
        self.last_arrival.load(Relaxed) != 0
    }

    /// Whether the stream had stopped, and went on, since this was last asked.
    pub fn take_interruption(&self) -> bool {
        self.interrupted.load(Relaxed) && self.interrupted.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Nanoseconds = 100;

    #[test]
    fn a_gap_between_two_images_interrupts_once_and_one_of_ordinary_length_does_not() {
        let presence = Presence::default();
        presence.listen(1_000);
        [1_010, 1_100].iter().for_each(|&now| presence.arrive(now, STALE));
        assert!(!presence.take_interruption());
        [1_300, 1_310].iter().for_each(|&now| presence.arrive(now, STALE));
        assert_eq!([presence.take_interruption(), presence.take_interruption()], [true, false]);
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_silence() {
        let presence = Presence::default();
        assert_eq!(presence.silence(5_000), None);
        presence.listen(1_000);
        presence.arrive(1_010, STALE);
        presence.pause();
        assert_eq!(presence.silence(5_000), None);
        presence.listen(9_000);
        assert_eq!((presence.silence(9_050), presence.has_begun()), (Some(50), false));
        presence.arrive(9_060, STALE);
        assert!(presence.has_begun() && !presence.take_interruption());
    }

    #[test]
    fn a_camera_that_never_sent_anything_is_silent_from_the_beginning() {
        let presence = Presence::default();
        presence.listen(1_000);
        assert_eq!(presence.silence(1_700), Some(700));
        presence.arrive(1_800, STALE);
        assert_eq!(presence.silence(1_830), Some(30));
    }
}
