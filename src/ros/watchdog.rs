//! The thread that notices when the node hangs: a frame that takes too long, or a spinning thread
//! that does not spin. It uses no ROS, takes no lock that is held for long, and writes no log, so
//! that nothing that hangs holds it up.
//!
//! It tells the diagnostics, which say so at once, and a service manager such as systemd, which
//! restarts a node that stays stuck.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use peregrine_core::now_ns;

use super::clock::Nanoseconds;
use super::diagnostics::{lock, StatusBoard};
use super::lifecycle::LifecycleState;
use super::service_manager::ServiceManager;
use super::shared::NodeShared;
use super::watch::{FrameWatch, Stall};

/// How often it looks.
const PERIOD: Duration = Duration::from_millis(20);

/// How long the spinning thread may take for one spin: longer than it waits for the frames in
/// flight when the node is taken down.
const LONGEST_SPIN: Nanoseconds = 15_000_000_000;

/// What the watchdog looks at, and whom it tells.
pub struct Watchdog {
    pub board: Arc<Mutex<StatusBoard>>,
    /// When the spinning thread last spun, by the monotonic clock.
    pub spun: Arc<AtomicU64>,
    /// The diagnostics' thread.
    pub diagnostics: Thread,
    pub manager: Option<ServiceManager>,
    /// Whether the node is ready only once it is active.
    pub autostart: bool,
    pub stop: Arc<AtomicBool>,
}

/// What the service manager knows.
#[derive(Default)]
struct Told {
    ready: bool,
    status: String,
    alive: Option<Instant>,
}

impl Watchdog {
    /// # Errors
    /// When no thread can be started.
    pub fn start(self) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new().name("watchdog".into()).spawn(move || self.run())
    }

    /// Looks until `stop`. Unpark the thread to end it at once.
    fn run(self) {
        let mut told = Told::default();
        while !self.stop.load(Relaxed) {
            thread::park_timeout(PERIOD);
            let (shared, state, problem) = {
                let board = lock(&self.board);
                (board.shared.clone(), board.state, board.problem.clone())
            };
            let hangs = shared.is_some_and(|shared| self.check(&shared));
            if let Some(manager) = &self.manager {
                let status = problem.map_or(state.label().into(), |problem| format!("{}: {problem}", state.label()));
                let spins = (now_ns().saturating_sub(self.spun.load(Relaxed)) as i64) < LONGEST_SPIN;
                let ready = state == LifecycleState::Active || !self.autostart;
                told.tell(manager, ready, status, spins && !hangs);
            }
        }
        if let Some(manager) = &self.manager {
            manager.stopping();
        }
    }

    /// Whether a frame hangs; tells the diagnostics when one begins to, moves on, or ends.
    fn check(&self, shared: &NodeShared) -> bool {
        let stall = stall(shared, now_ns());
        if stall != shared.watch.stall() {
            shared.watch.set_stall(stall);
            self.diagnostics.unpark();
        }
        stall.is_some()
    }
}

/// The frame that hangs at `now`: one of the frame thread, which all cameras share, or else one that
/// a video's decoder does not end with.
fn stall(shared: &NodeShared, now: u64) -> Option<Stall> {
    let longest = shared.settings.load().stall_after;
    let of = |watch: &FrameWatch| watch.in_flight(now).filter(|frame| frame.lasts > longest).map(Stall::from);
    of(&shared.watch).or_else(|| shared.cameras.iter().find_map(|camera| of(&camera.decoding)))
}

impl Told {
    /// Tells what has changed, and that the node lives when it is time to.
    fn tell(&mut self, manager: &ServiceManager, ready: bool, status: String, lives: bool) {
        if ready && !self.ready {
            manager.ready(&status);
            (self.ready, self.status) = (true, status);
        } else if status != self.status {
            manager.status(&status);
            self.status = status;
        }
        let due = |interval| self.alive.is_none_or(|last: Instant| last.elapsed() >= interval);
        if lives && manager.interval.is_some_and(due) {
            manager.alive();
            self.alive = Some(Instant::now());
        }
    }
}
