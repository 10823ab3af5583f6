//! The node put together.
//!
//! - here: `Perception`, from its start over each spin to its stop.
//! - `transitions`: how it is led through its lifecycle. `loading`: models, loaded on a thread of
//!   their own.

mod loading;
mod transitions;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peregrine_core::{now_ns, FrameAccounting, FrameCounts};
use r2r::{Node, QosProfile};

use super::arguments::given::{self, Given, Source};
use super::arguments::RosArguments;
use super::clock_watch::ClockWatch;
use super::configured::Configured;
use super::diagnostics::{lock, Cameras, Diagnostics, StatusBoard};
use super::error::NodeError;
use super::graph;
use super::lifecycle::{LifecycleMachine, LifecycleServices};
use super::logging::{LogQueue, RosoutPublisher};
use super::parameter_services::{NewModel, ParameterServices};
use super::parameters::Parameters;
use super::realtime::ProcessProfile;
use super::service_manager::ServiceManager;
use super::watchdog::Watchdog;
use loading::Loading;

/// Longest time between two looks at parameters, subscribers and the stop flag. Images wake the
/// node at once.
const SPIN_TIMEOUT: Duration = Duration::from_millis(100);

/// The same while a model is being loaded, the end of which does not wake the node.
const SPIN_TIMEOUT_WHILE_LOADING: Duration = Duration::from_millis(10);

/// How long the diagnostics thread may take to end when the node is to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The node, and what the spinning thread keeps from its start to its end.
pub(super) struct Perception {
    node: Node,
    parameters: Parameters,
    parameter_services: ParameterServices,
    machine: LifecycleMachine,
    lifecycle: LifecycleServices,
    board: Arc<Mutex<StatusBoard>>,
    diagnostics: JoinHandle<()>,
    stop_diagnostics: Arc<AtomicBool>,
    watchdog: JoinHandle<()>,
    stop_watchdog: Arc<AtomicBool>,
    /// When this thread last spun, for the watchdog.
    spun: Arc<AtomicU64>,
    configured: Option<Configured>,
    loading: Option<Loading>,
    /// By camera; counts continue when the node is configured again.
    accountings: BTreeMap<String, Arc<FrameAccounting>>,
    autostart: bool,
    profile: ProcessProfile,
    last_post: Instant,
    /// While the node is configured with simulated time.
    clock: Option<ClockWatch>,
}

impl Perception {
    /// Starts the node, which publishes the records of `log` on `/rosout`.
    ///
    /// # Errors
    /// When ROS refuses a publisher or a service; with `autostart` also when the node cannot be
    /// configured.
    pub(super) fn start(mut node: Node, log: Option<LogQueue>) -> Result<Self, NodeError> {
        let parameters = parameters_at_start(&node)?;
        let board = Arc::new(Mutex::new(StatusBoard::default()));
        let stop_diagnostics = Arc::new(AtomicBool::new(false));
        let diagnostics = Diagnostics {
            node: node.fully_qualified_name()?,
            board: Arc::clone(&board),
            publisher: node.create_publisher("/diagnostics", QosProfile::default())?,
            rosout: log.map(|queue| RosoutPublisher::new(&mut node, queue)).transpose()?,
            stop: Arc::clone(&stop_diagnostics),
            cameras: Cameras::default(),
        };
        // Awaited, since its name, which it sets itself, tells it from the middleware's threads.
        let (started, is_started) = std::sync::mpsc::sync_channel(1);
        let diagnostics = thread::Builder::new().name("diagnostics".into()).spawn(move || {
            let _ = started.send(());
            diagnostics.run();
        })?;
        let _ = is_started.recv();
        let autostart = parameters.flag("autostart");
        let (stop_watchdog, spun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(now_ns())));
        let watchdog = Watchdog {
            board: Arc::clone(&board),
            spun: Arc::clone(&spun),
            diagnostics: diagnostics.thread().clone(),
            manager: service_manager(),
            autostart,
            stop: Arc::clone(&stop_watchdog),
        };
        let watchdog = watchdog.start()?;
        let mut perception = Self {
            parameter_services: ParameterServices::new(&mut node)?,
            lifecycle: LifecycleServices::new(&mut node)?,
            autostart,
            diagnostics,
            node,
            parameters,
            machine: LifecycleMachine::default(),
            board,
            stop_diagnostics,
            watchdog,
            stop_watchdog,
            spun,
            configured: None,
            loading: None,
            accountings: BTreeMap::new(),
            profile: ProcessProfile::of_caller(),
            last_post: Instant::now(),
            clock: None,
        };
        if perception.autostart {
            perception.begin(1, "", None)?;
        }
        Ok(perception)
    }

    /// Waits for something to happen, and handles it.
    ///
    /// # Errors
    /// Only of a node with `autostart`; see [`run`](super::run::run).
    pub(super) fn spin_once(&mut self) -> Result<(), NodeError> {
        self.spun.store(now_ns(), Relaxed);
        self.node.spin_once(if self.loading.is_some() { SPIN_TIMEOUT_WHILE_LOADING } else { SPIN_TIMEOUT });
        if let Some(configured) = &mut self.configured {
            configured.poll(&self.node);
            if let Some(device) = configured.shared.device_fallback.pop() {
                tracing::warn!("inference continues on {device}");
                lock(&self.board).description.device = device;
            }
        }
        if let Some(request) = self.lifecycle.serve(&self.machine) {
            let wanted = request.message.transition.clone();
            self.begin(wanted.id, &wanted.label, Some(request))?;
        }
        self.serve_parameters()?;
        if self.loading.as_ref().is_some_and(Loading::is_finished) {
            self.finish_loading()?;
        }
        if self.configured.as_ref().is_some_and(|configured| !configured.is_alive()) {
            self.process_error()?;
        }
        self.watch_clock();
        // Not at every image: the diagnostics, which are less urgent, may be reading the board.
        if self.last_post.elapsed() >= SPIN_TIMEOUT {
            self.post();
        }
        Ok(())
    }

    fn serve_parameters(&mut self) -> Result<(), NodeError> {
        let new_model = match (&self.loading, &self.configured) {
            (Some(_), _) => NewModel::Refuse,
            (None, Some(_)) => NewModel::Load,
            (None, None) => NewModel::Set,
        };
        let served = self.parameter_services.serve(&mut self.parameters, new_model);
        if let Some(configured) = self.configured.as_ref().filter(|_| !served.changed.is_empty()) {
            configured.shared.settings.store(&self.parameters);
            if let Some(black_box) = configured.black_box() {
                black_box.put_parameters(&self.parameters, configured.shared.ros_now());
            }
        }
        if let Some(folder) = served.model {
            self.start_replacing(&folder)?;
        }
        Ok(())
    }

    /// Looks whether simulated time goes on.
    fn watch_clock(&mut self) {
        let Some(watch) = &mut self.clock else { return };
        let time = self.node.get_ros_clock().lock().unwrap_or_else(PoisonError::into_inner).get_now();
        if let Ok(time) = time {
            watch.observe(time.as_nanos() as i64, now_ns());
        }
    }

    /// Why simulated time does not come, while it does not.
    fn clock_problem(&self) -> Option<String> {
        let watch = self.clock.as_ref()?;
        watch.problem(now_ns(), "")?;
        let publishers = match graph::publishers(&self.node, "/clock") {
            Ok(names) if names.is_empty() => "it has no publisher".into(),
            Ok(names) => format!("{} publishes it, but sends nothing new", names.join(" and ")),
            Err(_) => String::new(),
        };
        watch.problem(now_ns(), &publishers)
    }

    /// Updates the diagnostics' board.
    fn post(&mut self) {
        self.last_post = Instant::now();
        let configured = self.configured.as_ref().map(|c| (Arc::clone(&c.shared), c.streams()));
        let clock = self.clock_problem();
        let mut board = lock(&self.board);
        board.state = self.machine.state();
        (board.clock, board.clock_jumps_back) = (clock, self.clock.as_ref().map(ClockWatch::jumps_back));
        if let Some((shared, streams)) = configured {
            (board.shared, board.streams) = (Some(shared), streams);
        }
    }

    /// Ends the node and its threads; `outcome` is how spinning ended. Returns the final counts of
    /// all cameras together.
    ///
    /// # Errors
    /// That of `outcome`; else when a thread did not end.
    pub(super) fn stop(mut self, outcome: Result<(), NodeError>) -> Result<FrameCounts, NodeError> {
        self.autostart = false;
        // The service manager learns of the stop before anything may take time.
        self.stop_watchdog.store(true, Relaxed);
        self.watchdog.thread().unpark();
        // A thread that loads a model is detached: it uses nothing that goes away.
        self.loading = None;
        let outcome = outcome.and_then(|()| self.shut_down());
        self.stop_diagnostics.store(true, Relaxed);
        self.diagnostics.thread().unpark();
        let _ = self.watchdog.join();
        let give_up = Instant::now() + STOP_TIMEOUT;
        while !self.diagnostics.is_finished() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        if !self.diagnostics.is_finished() || matches!(outcome, Err(NodeError::Stuck)) {
            // The node's destructor waits for every thread that is publishing, which a stuck one
            // may do for ever.
            std::mem::forget(self.node);
            return Err(NodeError::Stuck);
        }
        outcome.map(|()| self.accountings.values().map(|accounting| accounting.counts()).sum())
    }
}

/// The parameters that the node is given at start; what of them is ignored is logged.
fn parameters_at_start(node: &Node) -> Result<Parameters, NodeError> {
    let arguments = RosArguments::of_process().map_err(NodeError::Ros)?;
    let (mut given, mut told) = given::parameters(&arguments, &node.fully_qualified_name()?);
    // Those that whoever made the node has set.
    let set = node.params.lock().expect("nothing panics while it holds this lock");
    for (name, parameter) in set.iter().filter(|(name, _)| !given.iter().any(|g| g.name == **name)).collect::<Vec<_>>()
    {
        given.push(Given { name: name.clone(), value: parameter.value.clone(), source: Source::CommandLine });
    }
    let (parameters, ignored) = Parameters::given(given);
    told.extend(ignored);
    told.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    Ok(parameters)
}

/// The service manager that watches this process, if there is one.
fn service_manager() -> Option<ServiceManager> {
    ServiceManager::of_environment().unwrap_or_else(|error| {
        tracing::warn!("the service manager at NOTIFY_SOCKET is not told about this node: {error}");
        None
    })
}

#[cfg(test)]
mod tests;
