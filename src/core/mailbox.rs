//! Where the frames of several cameras wait for one consumer: keep-latest per camera, earliest
//! deadline first.

use std::sync::atomic::{fence, AtomicU64, Ordering};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

/// One slot for each camera. A newer frame supersedes one not yet taken, and the consumer takes
/// first the frame whose camera has the earliest deadline.
///
/// A camera's deadline is that of the *first* frame put since the consumer last took one of it,
/// superseded or not. So waiting counts for the camera and not for the frame: under overload, where
/// slots are overwritten again and again, every camera gets its turn, whatever the phases of their
/// clocks. (With deadlines of the frames themselves, a camera whose frames always come just before
/// the consumer looks would starve.)
///
/// Any thread may [`put`](Self::put), one thread takes, and neither ever waits for the other.
#[derive(Debug)]
pub struct FrameMailbox<T> {
    slots: Vec<Slot<T>>,
    consumer: OnceLock<Thread>,
}

#[derive(Debug)]
struct Slot<T> {
    frame: ArrayQueue<T>,
    /// [`NONE`] while no frame waits.
    due: AtomicU64,
}

const NONE: u64 = u64::MAX;

impl<T> FrameMailbox<T> {
    /// Slots for `cameras` cameras, which are numbered from 0.
    pub fn new(cameras: usize) -> Self {
        let slot = || Slot { frame: ArrayQueue::new(1), due: AtomicU64::new(NONE) };
        Self { slots: (0..cameras).map(|_| slot()).collect(), consumer: OnceLock::new() }
    }

    /// Puts a frame of `camera`, due at `due` (any clock, as long as it is the same for all), and
    /// wakes the consumer. Returns the frame that it supersedes, if any.
    ///
    /// # Panics
    /// When `camera` is not below the number of cameras.
    pub fn put(&self, camera: usize, frame: T, due: u64) -> Option<T> {
        let slot = &self.slots[camera];
        // Before the frame, so that one that can be taken has a due time; should the consumer take
        // the frame before in between, this one waits without a due time and counts as overdue,
        // which does no harm.
        let _ = slot.due.compare_exchange(NONE, due.min(NONE - 1), Ordering::Relaxed, Ordering::Relaxed);
        let superseded = slot.frame.force_push(frame);
        // Either this thread sees the consumer, or the consumer, which registers before it looks,
        // sees the frame.
        fence(Ordering::SeqCst);
        if let Some(consumer) = self.consumer.get() {
            consumer.unpark();
        }
        superseded
    }

    /// Takes the most urgent frame and returns it with its camera; the lower camera wins a tie.
    /// `None` if no frame waits.
    pub fn take(&self) -> Option<(usize, T)> {
        self.take_of(|_| true)
    }

    /// The same among the cameras that are `wanted`.
    pub fn take_of(&self, wanted: impl Fn(usize) -> bool) -> Option<(usize, T)> {
        loop {
            let urgency = |slot: &Slot<T>| match slot.due.load(Ordering::Relaxed) {
                NONE => 0,
                due => due,
            };
            let wanted = self.slots.iter().enumerate().filter(|(camera, _)| wanted(*camera));
            let waiting = wanted.filter(|(_, slot)| !slot.frame.is_empty());
            let (camera, slot) = waiting.min_by_key(|(_, slot)| urgency(slot))?;
            slot.due.store(NONE, Ordering::Relaxed);
            // No other thread takes; and if a producer is just replacing the frame, there is one
            // again at the next look.
            if let Some(frame) = slot.frame.pop() {
                return Some((camera, frame));
            }
        }
    }

    /// Takes the most urgent frame, waiting for one up to `timeout`. Only the first thread ever to
    /// call this is woken.
    pub fn take_timeout(&self, timeout: Duration) -> Option<(usize, T)> {
        let consumer = self.consumer.get_or_init(thread::current);
        debug_assert_eq!(consumer.id(), thread::current().id(), "only one thread may wait");
        fence(Ordering::SeqCst);
        let end = Instant::now() + timeout;
        loop {
            if let Some(taken) = self.take() {
                return Some(taken);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }

    /// Whether there is nothing to take at this moment.
    pub fn is_empty(&self) -> bool {
        self.slots.iter().all(|slot| slot.frame.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_earliest_deadline_and_the_newest_frame_win() {
        let mailbox = FrameMailbox::new(3);
        assert_eq!(mailbox.put(0, "a", 30), None);
        assert_eq!(mailbox.put(1, "b", 10), None);
        assert_eq!(mailbox.put(2, "c", 20), None);
        assert_eq!(mailbox.put(2, "d", 40), Some("c"));
        let order: Vec<_> = std::iter::from_fn(|| mailbox.take()).collect();
        assert_eq!(order, [(1, "b"), (2, "d"), (0, "a")], "camera 2 has waited since its first frame");
    }

    #[test]
    fn a_camera_that_is_not_wanted_goes_on_waiting() {
        let mailbox = FrameMailbox::new(3);
        (0..3).for_each(|camera| _ = mailbox.put(camera, camera, 10 * camera as u64));
        assert_eq!(mailbox.take_of(|camera| camera != 0), Some((1, 1)));
        assert_eq!(mailbox.take_of(|camera| camera == 1), None);
        assert_eq!((mailbox.take(), mailbox.take(), mailbox.take()), (Some((0, 0)), Some((2, 2)), None));
    }

    #[test]
    fn a_camera_that_was_served_waits_anew() {
        let mailbox = FrameMailbox::new(2);
        mailbox.put(0, 1, 10);
        assert_eq!(mailbox.take(), Some((0, 1)));
        mailbox.put(0, 2, 30);
        mailbox.put(1, 3, 20);
        assert_eq!(mailbox.take(), Some((1, 3)));
    }

    #[test]
    fn a_waiting_worker_is_woken_by_any_camera() {
        let mailbox = Arc::new(FrameMailbox::new(2));
        let worker = thread::spawn({
            let mailbox = mailbox.clone();
            move || mailbox.take_timeout(Duration::from_secs(20))
        });
        thread::sleep(Duration::from_millis(20));
        mailbox.put(1, 7, 0);
        assert_eq!(worker.join().unwrap(), Some((1, 7)));
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        const LAST: u64 = 50_000;
        let mailbox = FrameMailbox::new(2);
        let mailbox = &mailbox;
        let (mut taken, superseded) = thread::scope(|scope| {
            let putters = [0, 1].map(|camera| {
                scope.spawn(move || (1..=LAST).filter_map(|i| mailbox.put(camera, (camera, i), i)).collect::<Vec<_>>())
            });
            let (mut taken, mut last) = (Vec::new(), 0);
            while last < 2 {
                let (camera, frame) =
                    mailbox.take_timeout(Duration::from_secs(20)).expect("the last is not superseded");
                assert_eq!(camera, frame.0);
                last += usize::from(frame.1 == LAST);
                taken.push(frame);
            }
            (taken, putters.map(|p| p.join().unwrap()).concat())
        });
        taken.extend(superseded);
        taken.sort_unstable();
        assert!(taken.into_iter().eq([0, 1].into_iter().flat_map(|c| (1..=LAST).map(move |i| (c, i)))));
    }

    proptest! {
        // Overload: each service takes longer than every camera's period, at any phase.
        #[test]
        fn under_overload_every_camera_gets_its_turn(
            phases in prop::collection::vec(0u64..33, 2..9),
            service in 34u64..300,
        ) {
            let cameras = phases.len();
            let mailbox = FrameMailbox::new(cameras);
            let mut next = phases.clone();
            let mut served = vec![0usize; cameras];
            for turn in 1..=(cameras as u64 * 20) {
                let now = 40 + turn * service;
                for (camera, next) in next.iter_mut().enumerate() {
                    while *next <= now {
                        mailbox.put(camera, *next, *next + 100);
                        *next += 33;
                    }
                }
                served[mailbox.take().unwrap().0] += 1;
            }
            let (least, most) = (served.iter().min().unwrap(), served.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{served:?}");
        }
    }
}
