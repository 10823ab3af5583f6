//! The one place between the thread that receives frames and the thread that processes them.

use std::sync::atomic::{fence, Ordering};
use std::sync::OnceLock;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

/// Holds the newest value; a newer one takes the place of one not yet taken.
///
/// Any thread may [`put`](Self::put); one thread takes. Neither ever waits for the other: a slow taker costs old
/// values, never the time of the putter, and no queue builds up.
#[derive(Debug)]
pub struct LatestSlot<T> {
    place: ArrayQueue<T>,
    taker: OnceLock<Thread>,
}

impl<T> Default for LatestSlot<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> LatestSlot<T> {
    pub fn new() -> Self {
        Self { place: ArrayQueue::new(1), taker: OnceLock::new() }
    }

    /// Puts a value and wakes the taker; returns the value whose place it took, if any: count it as superseded.
    pub fn put(&self, value: T) -> Option<T> {
        let superseded = self.place.force_push(value);
        // Either this thread sees the taker, or the taker, which registers before it looks, sees the value.
        fence(Ordering::SeqCst);
        if let Some(taker) = self.taker.get() {
            taker.unpark();
        }
        superseded
    }

    /// Takes the value, if there is one.
    pub fn take(&self) -> Option<T> {
        self.place.pop()
    }

    /// Takes the value, waiting for one up to `timeout`. Only the first thread ever to call this is woken by a value;
    /// another would sleep to its timeout.
    pub fn take_timeout(&self, timeout: Duration) -> Option<T> {
        let taker = self.taker.get_or_init(thread::current);
        debug_assert_eq!(taker.id(), thread::current().id(), "only one thread may wait at a slot");
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
        self.place.is_empty()
    }
}
