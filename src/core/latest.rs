//! A slot for the newest value between producers and one consumer.

use std::sync::atomic::{fence, Ordering};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

/// Holds the newest value; a newer one supersedes one not yet taken.
///
/// Any thread may [`put`](Self::put); one thread takes. Neither ever waits for the other: a slow
/// consumer costs old values, never the producer's time, and no queue builds up.
#[derive(Debug)]
pub struct LatestSlot<T> {
    slot: ArrayQueue<T>,
    consumer: OnceLock<Thread>,
}

impl<T> Default for LatestSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> LatestSlot<T> {
    /// An empty slot.
    pub fn new() -> Self {
        Self { slot: ArrayQueue::new(1), consumer: OnceLock::new() }
    }

    /// Puts a value and wakes the consumer; returns the value that it supersedes, if any.
    pub fn put(&self, value: T) -> Option<T> {
        let superseded = self.slot.force_push(value);
        // Either this thread sees the consumer, or the consumer, which registers before it looks,
        // sees the value.
        fence(Ordering::SeqCst);
        if let Some(consumer) = self.consumer.get() {
            consumer.unpark();
        }
        superseded
    }

    /// Takes the value; `None` if there is none.
    pub fn take(&self) -> Option<T> {
        self.slot.pop()
    }

    /// Takes the value, waiting for one up to `timeout`. Only the first thread ever to call this is
    /// woken by a value; another would sleep to its timeout.
    pub fn take_timeout(&self, timeout: Duration) -> Option<T> {
        let consumer = self.consumer.get_or_init(thread::current);
        debug_assert_eq!(consumer.id(), thread::current().id(), "only one thread may wait at a slot");
        fence(Ordering::SeqCst);
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(value) = self.take() {
                return Some(value);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            thread::park_timeout(left);
        }
    }

    /// Whether there is nothing to take at this moment.
    pub fn is_empty(&self) -> bool {
        self.slot.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_newest_value_wins_and_the_older_comes_back() {
        let slot = LatestSlot::new();
        assert_eq!(slot.put(1), None);
        assert_eq!(slot.put(2), Some(1));
        assert_eq!(slot.take(), Some(2));
        assert_eq!(slot.take(), None);
    }

    #[test]
    fn nothing_is_lost_between_two_threads() {
        const LAST: u64 = 200_000;
        let slot = LatestSlot::new();
        let (taken, superseded) = std::thread::scope(|scope| {
            let producer = scope.spawn(|| (1..=LAST).filter_map(|value| slot.put(value)).collect::<Vec<_>>());
            let mut taken = Vec::new();
            while taken.last() != Some(&LAST) {
                taken.extend(slot.take_timeout(LONG));
            }
            (taken, producer.join().unwrap())
        });
        assert!(taken.is_sorted(), "values are taken in the order in which they were put");
        let mut all = [taken, superseded].concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=LAST), "each value is either taken or comes back, once");
    }

    #[test]
    fn a_waiting_consumer_is_woken() {
        let slot = Arc::new(LatestSlot::new());
        let consumer = std::thread::spawn({
            let slot = slot.clone();
            move || slot.take_timeout(LONG)
        });
        std::thread::sleep(Duration::from_millis(20));
        slot.put(7);
        assert_eq!(consumer.join().unwrap(), Some(7));
    }

    #[test]
    fn a_wait_without_a_value_ends() {
        assert_eq!(LatestSlot::<u8>::new().take_timeout(Duration::from_millis(1)), None);
    }

    #[test]
    fn values_left_behind_are_dropped() {
        let value = Arc::new(());
        let slot = LatestSlot::new();
        slot.put(value.clone());
        drop(slot);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
