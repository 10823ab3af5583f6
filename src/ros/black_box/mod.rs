//! The black box: the last seconds of images, detections, timing, diagnostics and parameters in
//! memory, written as one MCAP file when a deadline is missed or something becomes an error.
//!
//! - here: [`BlackBox`], from configure to cleanup, and what others tell it through [`Inbox`].
//! - [`recorder`]: its thread. [`ring`]: what is kept. [`messages`]: frames as messages.
//! - [`file`](mod@file): a recording on disk, by [`mcap`]; `schemas`: the definitions in it. [`folder`]: names, and the
//!   room that recordings may take. [`status`]: for the diagnostics.

pub mod file;
pub mod folder;
pub mod mcap;
pub mod messages;
pub mod recorder;
pub mod ring;
mod schemas;
pub mod status;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use r2r::diagnostic_msgs::msg::DiagnosticArray;
use r2r::rcl_interfaces::msg::{Parameter, ParameterEvent};
use r2r::ParameterValue;

use super::capture::CaptureQueue;
use super::clock::Nanoseconds;
use super::parameter_services::to_message;
use super::parameters::Parameters;
use super::shared::NodeShared;
use folder::Folder;
use messages::Channel;
use recorder::Recorder;
use status::Status;

/// Frames that wait to be compressed, for each camera, and for all together.
const QUEUE: (usize, usize) = (4, 4);

/// Messages from other threads that wait for the recorder: seconds' worth.
const INBOX: usize = 64;

/// Names of its threads, which no frame waits for.
pub const THREADS: [&str; 2] = ["black box", "black box file"];

/// When a recording is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordOn {
    /// A deadline is missed, or something becomes an error.
    Miss,
    /// Something becomes an error.
    Error,
}

/// What the parameters say of it.
#[derive(Debug, Clone)]
pub struct Settings {
    pub on: RecordOn,
    /// How much is kept.
    pub keep: Nanoseconds,
    pub max_bytes: usize,
    /// Least time between two files.
    pub interval: Duration,
    pub folder: Folder,
}

impl Settings {
    /// Of the node with the full name `node`; `None` if nothing is to be recorded.
    pub fn new(parameters: &Parameters, node: &str) -> Option<Self> {
        let on = match parameters.text("record_on") {
            "miss" => RecordOn::Miss,
            "error" => RecordOn::Error,
            _ => return None,
        };
        let path = match parameters.text("record_folder") {
            "" => folder::default_folder(),
            path => PathBuf::from(path),
        };
        let bytes = |name| parameters.count(name) * 1_000_000;
        let disk = bytes("record_disk_mb");
        Some(Self {
            on,
            keep: (parameters.real("record_s") * 1e9) as Nanoseconds,
            // So that a file always fits.
            max_bytes: bytes("record_memory_mb").min(disk),
            interval: Duration::from_secs_f64(parameters.real("record_interval_s")),
            folder: Folder::new(path, node, disk as u64),
        })
    }
}

/// What other threads leave for the recorder.
pub struct Inbox {
    diagnostics: ArrayQueue<DiagnosticArray>,
    parameters: ArrayQueue<ParameterEvent>,
    failed: AtomicBool,
    stop: AtomicBool,
    status: Mutex<Status>,
    node: String,
}

impl Inbox {
    fn new(node: &str) -> Self {
        Self {
            diagnostics: ArrayQueue::new(INBOX),
            parameters: ArrayQueue::new(INBOX),
            failed: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            status: Mutex::default(),
            node: node.to_owned(),
        }
    }

    /// Diagnostics that were published.
    pub fn put_diagnostics(&self, array: &DiagnosticArray) {
        self.diagnostics.force_push(array.clone());
    }

    /// The parameters that hold from a time on.
    pub fn put_parameters(&self, parameters: &Parameters, from: Nanoseconds) {
        let parameter = |name: &str| Parameter {
            name: name.to_owned(),
            value: to_message(parameters.get(name).unwrap_or(&ParameterValue::NotSet)),
        };
        self.parameters.force_push(ParameterEvent {
            stamp: r2r::Clock::to_builtin_time(&Duration::from_nanos(from.max(0) as u64)),
            node: self.node.clone(),
            new_parameters: parameters.names().map(parameter).collect(),
            ..Default::default()
        });
    }

    /// The node is about to be taken down by an error, which no diagnostics tell before.
    pub fn put_failure(&self) {
        self.failed.store(true, Relaxed);
    }

    /// What has been done so far.
    pub fn status(&self) -> Status {
        self.lock().clone()
    }

    /// The status is plain values, so it is consistent even after a panic.
    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The names of a camera's topics.
pub struct CameraTopicNames {
    /// Of the images as JPEG.
    pub image: String,
    pub detections: String,
    pub timing: String,
}

/// The recorder, which ends with it; what it was about to write is written then.
pub struct BlackBox {
    /// For the frame thread.
    pub queue: Arc<CaptureQueue>,
    pub inbox: Arc<Inbox>,
    thread: Option<JoinHandle<()>>,
}

impl BlackBox {
    /// Starts to keep what happens on the node `node` with these cameras.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        settings: Settings,
        node: &str,
        cameras: Vec<CameraTopicNames>,
        shared: Arc<NodeShared>,
    ) -> std::io::Result<Self> {
        let queue = Arc::new(CaptureQueue::new(QUEUE.0 * cameras.len() + QUEUE.1));
        let inbox = Arc::new(Inbox::new(node));
        let recorder = Recorder::new(settings, topics(cameras), Arc::clone(&queue), Arc::clone(&inbox), shared);
        let thread = thread::Builder::new().name(THREADS[0].into()).spawn(move || recorder.run())?;
        Ok(Self { queue, inbox, thread: Some(thread) })
    }
}

impl Drop for BlackBox {
    fn drop(&mut self) {
        self.inbox.stop.store(true, Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

fn topics(cameras: Vec<CameraTopicNames>) -> Vec<(Channel, String)> {
    let of_camera = |(camera, names): (usize, CameraTopicNames)| {
        [
            (Channel::Image(camera), names.image),
            (Channel::Detections(camera), names.detections),
            (Channel::Timing(camera), names.timing),
        ]
    };
    let of_node = [(Channel::Diagnostics, "/diagnostics".into()), (Channel::Parameters, "/parameter_events".into())];
    cameras.into_iter().enumerate().flat_map(of_camera).chain(of_node).collect()
}
