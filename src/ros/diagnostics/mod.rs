//! `/diagnostics`, on a thread of its own: once a second, and at once when something becomes better
//! or worse. The same thread publishes the log.
//!
//! - [`history`]: the last seconds of one camera's stream; [`window`]: distributions over them;
//!   `cameras`: all of them.
//! - [`rules`]: how a stream is assessed. `values`: the numbers behind it.
//! - `board`: what the diagnostics learn of the node. Here: the thread, and the message.

mod board;
mod cameras;
pub mod history;
pub mod rules;
mod values;
pub mod window;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use peregrine_core::now_ns;
use r2r::diagnostic_msgs::msg::{DiagnosticArray, DiagnosticStatus, KeyValue};
use r2r::Publisher;

use super::lifecycle::LifecycleState;
use super::logging::RosoutPublisher;
use super::model::ModelDescription;
use super::realtime::ProfileReport;
use super::shared::CameraShared;

use super::watch::Stall;
pub use board::{lock, StatusBoard, StreamInfo};
pub use cameras::Cameras;
use history::{Hanging, StreamContext};
use rules::{assess, Level};

const PERIOD: Duration = Duration::from_secs(1);
/// How often it is checked whether something has changed, and whether there are records of the log.
const POLL_PERIOD: Duration = Duration::from_millis(100);

/// Publishes what it learns from the other threads.
pub struct Diagnostics {
    /// The node's full name.
    pub node: String,
    pub board: Arc<Mutex<StatusBoard>>,
    pub publisher: Publisher<DiagnosticArray>,
    /// `None` if the process logs elsewhere.
    pub rosout: Option<RosoutPublisher>,
    pub stop: Arc<AtomicBool>,
    pub cameras: Cameras,
}

impl Diagnostics {
    /// Publishes until `stop`. Unpark the thread to end it at once.
    pub fn run(mut self) {
        let mut next = Instant::now() + PERIOD;
        let mut seen = None;
        let mut degraded = false;
        let mut stall = None;
        while !self.stop.load(Relaxed) {
            std::thread::park_timeout(POLL_PERIOD);
            self.publish_log();
            let now = Instant::now();
            let digest = self.digest();
            let changed = seen.as_ref().is_some_and(|seen| *seen != digest);
            if now < next && !changed {
                seen.get_or_insert(digest);
                continue;
            }
            if digest.degraded != degraded {
                degraded = digest.degraded;
                self.log_mode(degraded);
            }
            self.log_stall(&mut stall, digest.stall);
            seen = Some(digest);
            if now >= next {
                next = (next + PERIOD).max(now);
            }
            let message = self.message(now);
            // If this fails, so does everything else that could report it.
            let _ = self.publisher.publish(&message);
            let (black_box, web) = {
                let board = lock(&self.board);
                (board.black_box.clone(), board.web.clone())
            };
            if let Some(web) = web {
                web.put_diagnostics(&message);
            }
            if let Some(black_box) = black_box {
                black_box.put_diagnostics(&message);
            }
        }
        self.publish_log();
    }

    fn publish_log(&self) {
        if let Some(rosout) = &self.rosout {
            rosout.publish_pending();
        }
    }

    fn digest(&self) -> Digest {
        let board = lock(&self.board);
        let (mut conditions, mut degraded, mut stall) = (Vec::new(), false, None);
        if let Some(shared) = &board.shared {
            let (now, stale_after) = (now_ns(), shared.settings.load().stale_after);
            let is_silent = |camera: &CameraShared| camera.liveness.silence(now).is_some_and(|ns| ns >= stale_after);
            conditions = shared.cameras.iter().map(|c| (c.condition.load(Relaxed), is_silent(c))).collect();
            degraded = shared.degraded.load(Relaxed);
            stall = shared.watch.stall();
        }
        Digest { state: board.state, problem: board.problem.clone(), conditions, degraded, stall }
    }

    /// Logs once that a frame hangs, and once that it has ended.
    fn log_stall(&self, logged: &mut Option<Stall>, now: Option<Stall>) {
        let hanging = |stall: Stall| {
            let board = lock(&self.board);
            let frame = hanging(&board, stall);
            (frame.lasts as f64 / 1e9, format!("{frame}; {}", frame.meanwhile()))
        };
        let same = |a: &Stall, b: &Stall| a.begun == b.begun;
        if let Some(ended) = logged.filter(|old| !now.as_ref().is_some_and(|now| same(old, now))) {
            let (stage, (seconds, _)) = (ended.stage.name(), hanging(ended));
            tracing::warn!("the frame that hung in {stage} has ended, after {seconds:.1} s");
        }
        if let Some(begun) = now.filter(|now| !logged.as_ref().is_some_and(|old| same(old, now))) {
            tracing::error!("{}", hanging(begun).1);
        }
        *logged = now;
    }

    fn log_mode(&self, degraded: bool) {
        if degraded {
            let left_out = lock(&self.board).description.degraded_mode.clone().unwrap_or_default();
            tracing::warn!("degraded mode entered, to keep deadlines: {left_out}");
        } else {
            tracing::info!("degraded mode left: deadlines are kept again");
        }
    }

    fn message(&mut self, now: Instant) -> DiagnosticArray {
        // A copy, since the rest takes milliseconds, and the thread that takes the images writes to
        // the board.
        let board = lock(&self.board).clone();
        let mut array = DiagnosticArray { status: self.streams(&board, now), ..Default::default() };
        array.status.push(self.node(&board));
        // Simulated time is known from a configuration alone, which keeps its offset.
        let offset = board.shared.as_ref().map(|shared| shared.ros_offset.load(Relaxed)).filter(|&offset| offset != 0);
        let stamp = match offset {
            Some(offset) => Duration::from_nanos((now_ns() as i64 + offset).max(0) as u64),
            None => std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default(),
        };
        array.header.stamp = r2r::Clock::to_builtin_time(&stamp);
        array
    }

    /// One status for each camera of a configured node.
    fn streams(&mut self, board: &StatusBoard, now: Instant) -> Vec<DiagnosticStatus> {
        let known = self.cameras.of(board, now);
        let Some(shared) = &board.shared else { return Vec::new() };
        let settings = shared.settings.load();
        let left_out = if shared.degraded.load(Relaxed) { board.description.degraded_mode.as_deref() } else { None };
        let mut statuses = Vec::new();
        let hanging = shared.watch.stall().map(|stall| hanging(board, stall));
        for ((history, camera), stream) in known.zip(&board.streams) {
            let counts = history.update(camera, now);
            let context = StreamContext {
                topic: &stream.topic,
                publishers: &stream.publishers,
                settings,
                left_out,
                clock: board.clock.as_deref(),
                rivals: stream.rivals.as_deref(),
                ground: stream.ground.as_ref().err().map(String::as_str),
                hanging,
            };
            let (level, message) = if board.state == LifecycleState::Active || hanging.is_some() {
                let assessment = assess(history, &context);
                history.log_change(&assessment, &stream.topic);
                (assessment.level, assessment.message)
            } else {
                history.reset_log();
                (Level::Ok, format!("{}: images are ignored", board.state.label()))
            };
            let name = if stream.name.is_empty() { "frames" } else { &stream.name };
            let mut values = values::of(history, &counts, &context);
            values.push(("stalls".into(), shared.watch.stalls().to_string()));
            values.push(("hangs_in".into(), hanging.map_or("none", |frame| frame.stage.name()).into()));
            let ground = stream.ground.as_ref().unwrap_or_else(|fault| fault);
            values.push(("ground".into(), ground.clone()));
            if let Some(classes) = &board.description.classes {
                values.extend(camera.scene.values(&classes.scene));
            }
            values.push(("student".into(), board.description.student.clone()));
            values.push(("device".into(), board.description.device.clone()));
            values.push(("precision".into(), board.description.precision.to_string()));
            values.push(("saturated_values".into(), shared.saturated_values.load(Relaxed).to_string()));
            statuses.push(status(&self.node, name, level, message, board, values));
        }
        statuses
    }

    /// The node itself: its state, its model, its real-time profile.
    fn node(&self, board: &StatusBoard) -> DiagnosticStatus {
        let refused = board.reports.iter().find_map(|r| r.outcome.as_ref().err().map(|why| (r.what, why)));
        let (level, message) = match (&board.problem, &board.clock, refused) {
            (Some(problem), ..) => (Level::Error, format!("{}: {problem}", board.state.label())),
            (None, Some(clock), _) => (Level::Warn, format!("{}; {clock}", board.state.label())),
            (None, None, Some((what, why))) => {
                (Level::Warn, format!("{}; {what} is not applied: {why}", board.state.label()))
            }
            (None, None, None) => (Level::Ok, board.state.label().to_owned()),
        };
        let ModelDescription { student, device, precision, degraded_mode, .. } = &board.description;
        let mut values = vec![
            ("state".into(), board.state.label().to_owned()),
            ("student".into(), student.clone()),
            ("device".into(), device.clone()),
            ("precision".into(), precision.to_string()),
            ("degraded_mode_leaves_out".into(), degraded_mode.clone().unwrap_or_else(|| "off".into())),
        ];
        if let Some(jumps) = board.clock_jumps_back {
            values.push(("clock_jumps_back".into(), jumps.to_string()));
        }
        for ProfileReport { what, outcome } in &board.reports {
            let text = outcome.clone().unwrap_or_else(|why| format!("refused: {why}"));
            values.push(((*what).into(), text));
        }
        let (mut level, mut message) = (level, message);
        if let Some(recorder) = board.black_box.as_ref().map(|black_box| black_box.status()) {
            if let (Level::Ok, Some(problem)) = (level, &recorder.problem) {
                level = Level::Warn;
                message = format!("{message}; the black box cannot write: {problem}");
            }
            values.extend(recorder.values());
        }
        status(&self.node, "node", level, message, board, values)
    }
}

/// A change of any of these is published at once.
#[derive(Debug, PartialEq)]
struct Digest {
    state: LifecycleState,
    problem: Option<String>,
    /// The condition of each camera, and whether it is silent.
    conditions: Vec<(u8, bool)>,
    degraded: bool,
    /// The frame that hangs, and in which stage.
    stall: Option<Stall>,
}

/// A frame that hangs, as it is told now.
fn hanging(board: &StatusBoard, stall: Stall) -> Hanging<'_> {
    let topic = board.streams.get(stall.camera).map_or("a camera", |stream| stream.topic.as_str());
    Hanging { topic, stage: stall.stage, lasts: now_ns().saturating_sub(stall.begun) as i64 }
}

fn status(
    node: &str,
    part: &str,
    level: Level,
    message: String,
    board: &StatusBoard,
    values: Vec<(String, String)>,
) -> DiagnosticStatus {
    DiagnosticStatus {
        level: level as u8,
        name: format!("{}: {part}", node.trim_start_matches('/')),
        message,
        // The kind alone: what follows it is human-readable detail.
        hardware_id: board.description.device.split(' ').next().unwrap_or_default().to_owned(),
        values: values.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
    }
}
