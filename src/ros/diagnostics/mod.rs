//! `/diagnostics`, on a thread of its own: once a second, and at once when something becomes better or worse.
//!
//! - [`stream`]: one camera's stream, judged; [`window`]: distributions over its last seconds; `cameras`: all of them.
//! - here: the thread, what it is told of the node ([`Board`]), and the message.

mod cameras;
pub mod stream;
pub mod window;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use peregrine_core::now_ns;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::Publisher;

use super::engines::Description;
use super::lifecycle::State;
use super::realtime::Report;
use super::shared::{Camera, Shared};

pub use cameras::Cameras;
use stream::{Level, View};

const PERIOD: Duration = Duration::from_secs(1);
/// How soon a change for better or worse is published.
const GLANCE: Duration = Duration::from_millis(100);

/// What the spinning thread tells the diagnostics. The frame thread has no part in it.
#[derive(Clone)]
pub struct Board {
    pub state: State,
    /// Why the last transition, or the last change of model, failed.
    pub problem: Option<String>,
    pub description: Description,
    pub reports: Vec<Report>,
    /// While the node is configured.
    pub shared: Option<Arc<Shared>>,
    pub streams: Vec<Stream>,
}

/// A camera's stream, as ROS knows it.
#[derive(Debug, Clone)]
pub struct Stream {
    /// Of the camera; empty where there is one without a name.
    pub name: String,
    /// Where the images come from, remapped.
    pub topic: String,
    /// What ROS knows of the topic's publishers, while no images come.
    pub publishers: String,
    /// Whether objects are placed on the ground, or why not.
    pub ground: String,
}

impl Default for Board {
    fn default() -> Self {
        Self {
            state: State::Unconfigured,
            problem: None,
            description: Description::default(),
            reports: Vec::new(),
            shared: None,
            streams: Vec::new(),
        }
    }
}

/// The board in the hands of one thread. It holds plain values, so it is sound even after a panic.
pub fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Publishes what it learns from the other threads.
pub struct Diagnostics {
    /// The node's full name.
    pub node: String,
    pub logger: String,
    pub board: Arc<Mutex<Board>>,
    pub publisher: Publisher<DiagnosticArray>,
    pub stop: Arc<AtomicBool>,
    pub cameras: Cameras,
}

impl Diagnostics {
    /// Publishes until `stop`. Unpark the thread to end it at once.
    pub fn run(mut self) {
        let mut next = Instant::now() + PERIOD;
        let mut seen = None;
        let mut degraded = false;
        while !self.stop.load(Relaxed) {
            std::thread::park_timeout(GLANCE);
            let now = Instant::now();
            let glance = self.glance();
            let changed = seen.as_ref().is_some_and(|seen| *seen != glance);
            if now < next && !changed {
                seen.get_or_insert(glance);
                continue;
            }
            if glance.degraded != degraded {
                degraded = glance.degraded;
                self.log_mode(degraded);
            }
            seen = Some(glance);
            if now >= next {
                next = (next + PERIOD).max(now);
            }
            let message = self.message(now);
            // If this fails, so does all else that could tell of it.
            let _ = self.publisher.publish(&message);
        }
    }

    fn glance(&self) -> Glance {
        let board = lock(&self.board);
        let (mut conditions, mut degraded) = (Vec::new(), false);
        if let Some(shared) = &board.shared {
            let (now, stale_after) = (now_ns(), shared.settings.load().stale_after);
            let is_silent = |camera: &Camera| camera.presence.silence(now).is_some_and(|ns| ns >= stale_after);
            conditions = shared.cameras.iter().map(|c| (c.condition.load(Relaxed), is_silent(c))).collect();
            degraded = shared.degraded.load(Relaxed);
        }
        Glance { state: board.state, problem: board.problem.clone(), conditions, degraded }
    }

    fn log_mode(&self, degraded: bool) {
        let left_out = lock(&self.board).description.less.clone().unwrap_or_default();
        if degraded {
            r2r::log_warn!(&self.logger, "degraded mode, to keep deadlines: {left_out}");
        } else {
            r2r::log_info!(&self.logger, "deadlines are kept again: the degraded mode is left");
        }
    }

    fn message(&mut self, now: Instant) -> DiagnosticArray {
        // A copy, since the rest takes milliseconds, and the thread that takes the images writes to the board.
        let board = lock(&self.board).clone();
        let mut array = DiagnosticArray { status: self.streams(&board, now), ..Default::default() };
        array.status.push(self.node(&board));
        // Simulated time is only known from a configuration that keeps it.
        let offset = board.shared.as_ref().map(|shared| shared.ros_offset.load(Relaxed)).filter(|&offset| offset != 0);
        let stamp = match offset {
            Some(offset) => Duration::from_nanos((now_ns() as i64 + offset).max(0) as u64),
            None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default(),
        };
        array.header.stamp = r2r::Clock::to_builtin_time(&stamp);
        array
    }

    /// One status for each camera of a configured node.
    fn streams(&mut self, board: &Board, now: Instant) -> Vec<DiagnosticStatus> {
        let known = self.cameras.of(board, now);
        let Some(shared) = &board.shared else { return Vec::new() };
        let settings = shared.settings.load();
        let left_out = if shared.degraded.load(Relaxed) { board.description.less.as_deref() } else { None };
        let mut statuses = Vec::new();
        for ((memory, camera), stream) in known.zip(&board.streams) {
            let counts = memory.learn(camera, now);
            let view = View { topic: &stream.topic, publishers: &stream.publishers, settings, left_out };
            let (level, message) = if board.state == State::Active {
                memory.assess(&view)
            } else {
                (Level::Ok, format!("{}: images are not taken", board.state.label()))
            };
            let name = if stream.name.is_empty() { "frames" } else { &stream.name };
            let mut values = memory.values(&counts, &view);
            values.push(("ground".into(), stream.ground.clone()));
            values.push(("student".into(), board.description.student.clone()));
            values.push(("device".into(), board.description.device.clone()));
            statuses.push(status(&self.node, name, level, message, board, values));
        }
        statuses
    }

    /// The node itself: its state, its engine, its real-time profile.
    fn node(&self, board: &Board) -> DiagnosticStatus {
        let refused = board.reports.iter().find_map(|r| r.outcome.as_ref().err().map(|why| (r.what, why)));
        let (level, message) = match (&board.problem, refused) {
            (Some(problem), _) => (Level::Error, format!("{}: {problem}", board.state.label())),
            (None, Some((what, why))) => (Level::Warn, format!("{}, but without {what}: {why}", board.state.label())),
            (None, None) => (Level::Ok, board.state.label().to_owned()),
        };
        let Description { student, device, less, .. } = &board.description;
        let mut values = vec![
            ("state".into(), board.state.label().to_owned()),
            ("student".into(), student.clone()),
            ("device".into(), device.clone()),
            ("degraded_mode_leaves_out".into(), less.clone().unwrap_or_else(|| "nothing: it is off".into())),
        ];
        for Report { what, outcome } in &board.reports {
            let text = outcome.clone().unwrap_or_else(|why| format!("refused: {why}"));
            values.push(((*what).into(), text));
        }
        status(&self.node, "node", level, message, board, values)
    }
}

/// What has to be published at once when it changes.
#[derive(Debug, PartialEq)]
struct Glance {
    state: State,
    problem: Option<String>,
    /// Of each camera, and whether it is silent.
    conditions: Vec<(u8, bool)>,
    degraded: bool,
}

fn status(
    node: &str,
    part: &str,
    level: Level,
    message: String,
    board: &Board,
    values: Vec<(String, String)>,
) -> DiagnosticStatus {
    DiagnosticStatus {
        level: level as u8,
        name: format!("{}: {part}", node.trim_start_matches('/')),
        message,
        // The kind alone: what follows it is for people.
        hardware_id: board.description.device.split(' ').next().unwrap_or_default().to_owned(),
        values: values.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
    }
}
