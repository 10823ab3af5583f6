//! The recorder's thread: compresses and keeps what comes, and has a file written when there is a
//! reason to.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peregrine_core::files::FileError;
use peregrine_core::scheduling::use_default_scheduling;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus};

use super::file::Recording;
use super::folder::system_time;
use super::messages::{self, Channel, Serializer};
use super::ring::{Message, Ring};
use super::{Inbox, RecordOn, Settings, THREADS};
use crate::capture::CaptureQueue;
use crate::diagnostics::rules::Level;
use crate::shared::NodeShared;

/// Longest wait for a frame before all else is looked at.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// How long a recording goes on after its reason: until the diagnostics have told it.
const AFTERMATH: Duration = Duration::from_secs(1);

/// Most changes of parameters that are kept.
const MAX_CHANGES: usize = 100;

/// Why a file is to be written.
struct Trigger {
    /// In the file's name.
    reason: &'static str,
    /// In words.
    why: String,
    /// When it is to be written.
    due: Instant,
}

/// The state of the thread.
pub struct Recorder {
    settings: Settings,
    topics: Vec<(Channel, String)>,
    queue: Arc<CaptureQueue>,
    inbox: Arc<Inbox>,
    shared: Arc<NodeShared>,
    serializer: Serializer,
    ring: Ring,
    /// Each holds from its time on.
    parameters: Vec<Message>,
    /// Frames of each camera that have missed their deadline so far.
    missed: Vec<u64>,
    /// Of each part of the node, as the diagnostics tell it.
    levels: BTreeMap<String, u8>,
    trigger: Option<Trigger>,
    /// When the last file was begun.
    last: Option<Instant>,
    writing: Option<JoinHandle<Written>>,
    undecodable: u64,
}

/// How a recording ended.
struct Written {
    recording: Recording,
    outcome: Result<u64, FileError>,
}

impl Recorder {
    pub fn new(
        settings: Settings,
        topics: Vec<(Channel, String)>,
        queue: Arc<CaptureQueue>,
        inbox: Arc<Inbox>,
        shared: Arc<NodeShared>,
    ) -> Self {
        let ring = Ring::new(settings.keep, settings.max_bytes);
        let missed = shared.cameras.iter().map(|camera| missed(&camera.accounting.counts())).collect();
        Self {
            settings,
            topics,
            queue,
            inbox,
            shared,
            serializer: Serializer::default(),
            ring,
            parameters: Vec::new(),
            missed,
            levels: BTreeMap::new(),
            trigger: None,
            last: None,
            writing: None,
            undecodable: 0,
        }
    }

    /// Until it is to stop; what is to be written then is written still.
    pub fn run(mut self) {
        // The thread that started this one may have a real-time priority.
        use_default_scheduling();
        if let Err(error) = self.settings.folder.prepare() {
            self.failed(&error);
        }
        while !self.inbox.stop.load(Relaxed) {
            self.queue.wait(MAX_WAIT);
            self.keep_all();
            if self.writing.as_ref().is_some_and(JoinHandle::is_finished) {
                self.finish_writing();
            }
            if self.writing.is_none() && self.trigger.as_ref().is_some_and(|trigger| Instant::now() >= trigger.due) {
                self.write();
            }
            self.tell();
        }
        self.keep_all();
        self.finish_writing();
        self.write();
        self.finish_writing();
        self.tell();
    }

    /// Takes everything that has come.
    fn keep_all(&mut self) {
        while let Some(frame) = self.queue.take() {
            let (messages, has_image) = self.serializer.frame(&frame);
            self.queue.recycle(frame);
            self.undecodable += u64::from(!has_image);
            messages.into_iter().for_each(|message| self.ring.push_frame(message));
        }
        while let Some(event) = self.inbox.parameters.pop() {
            self.parameters.extend(messages::parameters(&event));
            let excess = self.parameters.len().saturating_sub(MAX_CHANGES);
            self.parameters.drain(..excess);
        }
        self.look_for_misses();
        while let Some(array) = self.inbox.diagnostics.pop() {
            if let Some(message) = messages::diagnostics(&array) {
                self.ring.push(message);
            }
            self.look_for_errors(&array);
        }
        if self.inbox.failed.swap(false, Relaxed) {
            self.pull("error", "the node failed".into());
        }
    }

    fn look_for_misses(&mut self) {
        for camera in 0..self.missed.len() {
            let now = missed(&self.shared.cameras[camera].accounting.counts());
            let new = now - std::mem::replace(&mut self.missed[camera], now);
            if new > 0 && self.settings.on == RecordOn::Miss {
                let topic = self.topics.iter().find(|(channel, _)| *channel == Channel::Image(camera));
                let topic = topic.map_or("", |(_, name)| name.as_str());
                self.pull("miss", format!("a frame of {topic} missed its deadline"));
            }
        }
    }

    /// Whether a part of the node has become an error.
    fn look_for_errors(&mut self, array: &DiagnosticArray) {
        for DiagnosticStatus { level, name, message, .. } in &array.status {
            let before = self.levels.insert(name.clone(), *level);
            // Without any image there is nothing that a file could show, such as while a camera starts.
            let is_new = *level == Level::Error as u8 && before != Some(*level);
            if is_new && !self.ring.has_no_frames() {
                self.pull("error", format!("{name}: {message}"));
            }
        }
    }

    /// There is a reason to write a file, unless one is on its way or was begun lately.
    fn pull(&mut self, reason: &'static str, why: String) {
        if self.trigger.is_some() {
            return;
        }
        if self.last.is_some_and(|last| last.elapsed() < self.settings.interval) {
            self.inbox.lock().not_written += 1;
            return;
        }
        self.trigger = Some(Trigger { reason, why, due: Instant::now() + AFTERMATH });
    }

    /// Begins to write a file, if there is a reason to. Without any image there is nothing that it
    /// could answer.
    fn write(&mut self) {
        let Some(Trigger { reason, why, .. }) = self.trigger.take() else { return };
        if self.ring.has_no_frames() {
            return;
        }
        self.last = Some(Instant::now());
        let notes =
            [("reason", reason), ("why", &why), ("node", &self.inbox.node), ("version", env!("CARGO_PKG_VERSION"))];
        let recording = Recording {
            path: self.settings.folder.file(system_time(), reason),
            folder: self.settings.folder.clone(),
            topics: self.topics.clone(),
            messages: self.messages(),
            notes: notes.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        };
        let job = move || {
            use_default_scheduling();
            let outcome = recording.write();
            Written { recording, outcome }
        };
        match thread::Builder::new().name(THREADS[1].into()).spawn(job) {
            Ok(thread) => self.writing = Some(thread),
            Err(error) => self.failed(&error),
        }
    }

    /// All that is kept, with the parameters that held at its beginning and their changes since.
    fn messages(&self) -> Vec<Message> {
        let mut all = self.ring.messages();
        let start = all.first().map_or(0, |message| message.log_time);
        let before = self.parameters.iter().rfind(|message| message.log_time <= start);
        let since = self.parameters.iter().filter(|message| message.log_time > start);
        all.extend(since.cloned());
        all.extend(before.map(|message| Message { log_time: start, ..message.clone() }));
        all.sort_by_key(|message| message.log_time);
        all
    }

    /// Waits for the file that is being written, if one is.
    fn finish_writing(&mut self) {
        let Some(thread) = self.writing.take() else { return };
        let Ok(Written { recording, outcome }) = thread.join() else {
            self.failed(&"the thread that writes it has panicked");
            return;
        };
        match outcome {
            Ok(removed) => {
                let (path, images) = (recording.path, recording.messages.iter().filter(|m| m.is_image()).count());
                let why = &recording.notes["why"];
                tracing::info!("the black box has written {images} images to {}: {why}", path.display());
                let mut status = self.inbox.lock();
                status.written += 1;
                status.removed += removed;
                status.last_file = Some(path);
                status.problem = None;
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Counts a failure; the log says it once, until a file is written again.
    fn failed(&mut self, why: &impl ToString) {
        let mut status = self.inbox.lock();
        status.failures += 1;
        if status.problem.replace(why.to_string()).is_none() {
            tracing::error!("the black box cannot write: {}; see the parameter record_folder", why.to_string());
        }
    }

    fn tell(&mut self) {
        let mut status = self.inbox.lock();
        (status.span, status.bytes) = (self.ring.span(), self.ring.bytes());
        status.is_cut |= self.ring.take_cut();
        status.frames_lost = self.queue.lost() + self.undecodable;
    }
}

fn missed(counts: &peregrine_core::FrameCounts) -> u64 {
    counts.late + counts.dropped_late
}
