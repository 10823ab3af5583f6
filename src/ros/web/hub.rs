//! What viewers see: the newest event of each kind, and who is looking.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use r2r::diagnostic_msgs::msg::DiagnosticArray;

use super::events;
use crate::capture::CaptureQueue;

/// An event for the page: its kind, and JSON.
#[derive(Debug, Clone)]
pub struct Event {
    pub kind: &'static str,
    pub json: Arc<str>,
    version: u64,
}

/// What an event replaces: the one before of the same kind and camera.
pub type Slot = (&'static str, usize);

/// See the module. A viewer who is slow gets the newest events, and not those in between.
pub struct Hub {
    pub node: String,
    /// Names of the cameras.
    pub cameras: Vec<String>,
    pub max_viewers: usize,
    viewers: AtomicUsize,
    queue: Arc<CaptureQueue>,
    events: Mutex<Events>,
    changed: Condvar,
}

#[derive(Default)]
struct Events {
    newest: BTreeMap<Slot, Event>,
    /// Number of events so far.
    version: u64,
}

impl Hub {
    /// Nobody is looking yet, and so no frames are wanted from `queue`.
    pub fn new(node: &str, cameras: &[String], max_viewers: usize, queue: Arc<CaptureQueue>) -> Self {
        queue.set_wanted(false);
        Self {
            node: node.to_owned(),
            cameras: cameras.to_vec(),
            max_viewers,
            viewers: AtomicUsize::new(0),
            queue,
            events: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Makes an event the newest in its slot.
    pub fn publish(&self, slot: Slot, json: String) {
        let mut events = self.lock();
        events.version += 1;
        let event = Event { kind: slot.0, json: json.into(), version: events.version };
        events.newest.insert(slot, event);
        self.changed.notify_all();
    }

    /// Diagnostics that were published.
    pub fn put_diagnostics(&self, array: &DiagnosticArray) {
        if self.is_watched() {
            self.publish(("status", 0), events::status(array));
        }
    }

    /// Whether anybody is looking.
    pub fn is_watched(&self) -> bool {
        self.viewers.load(Relaxed) > 0
    }

    /// One viewer more, until it is dropped; `None` if there are as many as there may be.
    pub fn join(self: &Arc<Self>) -> Option<Viewer> {
        let more = |viewers| (viewers < self.max_viewers).then_some(viewers + 1);
        self.viewers.fetch_update(Relaxed, Relaxed, more).ok()?;
        self.queue.set_wanted(true);
        Some(Viewer { hub: Arc::clone(self), seen: 0, pending: Vec::new() })
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody who is looking.
pub struct Viewer {
    hub: Arc<Hub>,
    seen: u64,
    /// The newest first.
    pending: Vec<Event>,
}

impl Viewer {
    /// The next event that this viewer has not seen; `None` if there is none within `timeout`.
    pub fn next(&mut self, timeout: Duration) -> Option<Event> {
        if self.pending.is_empty() {
            let seen = self.seen;
            let events = self.hub.lock();
            let waited = self.hub.changed.wait_timeout_while(events, timeout, |events| events.version <= seen);
            let events = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.seen = events.version;
            self.pending = events.newest.values().filter(|event| event.version > seen).cloned().collect();
            self.pending.sort_by_key(|event| std::cmp::Reverse(event.version));
        }
        self.pending.pop()
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        if self.hub.viewers.fetch_sub(1, Relaxed) == 1 {
            self.hub.queue.set_wanted(false);
            // The next viewer is not shown what is old.
            self.hub.lock().newest.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn hub(viewers: usize) -> Arc<Hub> {
        Arc::new(Hub::new("/eye", &[String::new()], viewers, Arc::new(CaptureQueue::new(1))))
    }

    fn next(viewer: &mut Viewer) -> Option<String> {
        viewer.next(Duration::ZERO).map(|event| event.json.to_string())
    }

    #[test]
    fn a_viewer_sees_the_newest_of_each_camera_once() {
        let hub = hub(1);
        let mut viewer = hub.join().unwrap();
        for (camera, json) in [(0, "a"), (1, "b"), (0, "c")] {
            hub.publish(("frame", camera), json.into());
        }
        assert_eq!(
            [next(&mut viewer), next(&mut viewer), next(&mut viewer)],
            [Some("b".into()), Some("c".into()), None]
        );
        hub.publish(("frame", 1), "d".into());
        assert_eq!([next(&mut viewer), next(&mut viewer)], [Some("d".into()), None]);
    }

    #[test]
    fn there_are_no_more_viewers_than_permitted_and_frames_only_for_them() {
        let hub = hub(2);
        assert!(!hub.is_watched());
        let both = (hub.join().unwrap(), hub.join().unwrap());
        assert!(hub.join().is_none() && hub.is_watched());
        drop(both.0);
        drop(hub.join().unwrap());
        drop(both.1);
        assert!(!hub.is_watched());
    }
}
