//! The node put together: what it does in each turn, and how it is led through its life.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use peregrine_core::{FrameAccounting, FrameCounts};
use r2r::{Node, QosProfile};

use super::configured::{camera_names, Configured};
use super::diagnostics::{lock, Board, Cameras, Diagnostics};
use super::engines::{Description, Engines, Recipe};
use super::error::NodeError;
use super::lifecycle::services::{answer, ChangeRequest};
use super::lifecycle::{LifecycleServices, Machine, Outcome, State};
use super::parameter_services::{NewModel, ParameterServices};
use super::parameters::Parameters;
use super::realtime::{Origin, Profile, Report};

/// Longest time between two looks at parameters, subscribers and the wish to stop. Images wake the node at once.
const TICK: Duration = Duration::from_millis(100);

/// The same while a model is loaded, whose end wakes nobody.
const TICK_WHILE_LOADING: Duration = Duration::from_millis(10);

/// How long the diagnostics thread may take to finish what it is at when the node is to stop.
const PATIENCE: Duration = Duration::from_secs(5);

/// Threads of ours that no frame waits for.
const PATIENT_THREADS: [&str; 2] = ["diagnostics", "pictures"];

/// The node, and what the spinning thread keeps from its start to its end.
pub(super) struct Perception {
    node: Node,
    parameters: Parameters,
    parameter_services: ParameterServices,
    machine: Machine,
    lifecycle: LifecycleServices,
    board: Arc<Mutex<Board>>,
    diagnostics: JoinHandle<()>,
    stop_diagnostics: Arc<AtomicBool>,
    configured: Option<Configured>,
    loading: Option<Loading>,
    /// By camera; counts go on when the node is configured anew.
    ledgers: BTreeMap<String, Arc<FrameAccounting>>,
    autostart: bool,
    origin: Origin,
    last_post: Instant,
}

/// A model on its way, on a thread of its own: frames and services go on meanwhile.
struct Loading {
    thread: JoinHandle<Result<(Box<Engines>, Description), NodeError>>,
    purpose: Purpose,
}

enum Purpose {
    /// To configure the node, and then to tell whoever asked for it.
    Configure(Option<ChangeRequest>, Profile, Vec<Report>),
    /// To replace the model of a configured node.
    Replace,
}

impl Perception {
    pub(super) fn start(mut node: Node) -> Result<Self, NodeError> {
        let overrides: Vec<_> = {
            let given = node.params.lock().expect("nothing panics while it holds this lock");
            given.iter().map(|(name, parameter)| (name.clone(), parameter.value.clone())).collect()
        };
        let parameters = Parameters::accepting(overrides);
        let board = Arc::new(Mutex::new(Board::default()));
        let stop_diagnostics = Arc::new(AtomicBool::new(false));
        let diagnostics = Diagnostics {
            node: node.fully_qualified_name()?,
            logger: node.logger().to_owned(),
            board: Arc::clone(&board),
            publisher: node.create_publisher("/diagnostics", QosProfile::default())?,
            stop: Arc::clone(&stop_diagnostics),
            cameras: Cameras::default(),
        };
        // Awaited, since it is told from the middleware's threads by its name, which it gives itself.
        let (started, is_started) = std::sync::mpsc::sync_channel(1);
        let diagnostics = thread::Builder::new().name("diagnostics".into()).spawn(move || {
            let _ = started.send(());
            diagnostics.run();
        })?;
        let _ = is_started.recv();
        let mut perception = Self {
            parameter_services: ParameterServices::new(&mut node)?,
            lifecycle: LifecycleServices::new(&mut node)?,
            autostart: parameters.flag("autostart"),
            diagnostics,
            node,
            parameters,
            machine: Machine::default(),
            board,
            stop_diagnostics,
            configured: None,
            loading: None,
            ledgers: BTreeMap::new(),
            origin: Origin::here(),
            last_post: Instant::now(),
        };
        if perception.autostart {
            perception.begin(1, "", None)?;
        }
        Ok(perception)
    }

    /// Waits for something to happen, and sees to it.
    ///
    /// # Errors
    /// Only of a node that starts itself; see [`run`](super::run::run).
    pub(super) fn turn(&mut self) -> Result<(), NodeError> {
        self.node.spin_once(if self.loading.is_some() { TICK_WHILE_LOADING } else { TICK });
        if let Some(configured) = &mut self.configured {
            configured.turn(&self.node);
            if let Some(device) = configured.shared.moved_to.pop() {
                r2r::log_warn!(self.node.logger(), "inference goes on on {device}");
                lock(&self.board).description.device = device;
            }
        }
        if let Some(request) = self.lifecycle.serve(&self.machine) {
            let wanted = request.message.transition.clone();
            self.begin(wanted.id, &wanted.label, Some(request))?;
        }
        let new_model = match (&self.loading, &self.configured) {
            (Some(_), _) => NewModel::Refuse,
            (None, Some(_)) => NewModel::Load,
            (None, None) => NewModel::Set,
        };
        let served = self.parameter_services.serve(&mut self.parameters, new_model);
        if let (true, Some(configured)) = (served.changed, &self.configured) {
            configured.shared.settings.store(&self.parameters);
        }
        if let Some(folder) = served.model {
            self.load(&folder)?;
        }
        if self.loading.as_ref().is_some_and(|loading| loading.thread.is_finished()) {
            self.loaded()?;
        }
        if self.configured.as_ref().is_some_and(|configured| !configured.is_sound()) {
            self.process_error()?;
        }
        // Not at every image: the diagnostics, which are less urgent, may be reading the board.
        if self.last_post.elapsed() >= TICK {
            self.post();
        }
        Ok(())
    }

    /// Begins a transition, and ends it unless it takes a model.
    fn begin(&mut self, id: u8, label: &str, request: Option<ChangeRequest>) -> Result<(), NodeError> {
        // A model that is being loaded is for the configuration that there is.
        let busy = self.loading.is_some();
        let Some(transition) = (!busy).then(|| self.machine.begin(id, label)).flatten() else {
            let (state, wanted) =
                (self.machine.state().label(), if label.is_empty() { id.to_string() } else { label.into() });
            let why = if busy { ", since a model is being loaded" } else { "" };
            r2r::log_warn!(self.node.logger(), "no transition {wanted} from the state {state}{why}");
            request.into_iter().for_each(|request| answer(request, false));
            return Ok(());
        };
        self.lifecycle.announce(transition);
        self.post();
        let outcome = match transition.goal {
            State::Configuring => {
                return match self.prepare() {
                    Ok((recipe, profile, reports)) => {
                        let thread = thread::Builder::new().name("loading".into()).spawn(move || recipe.build())?;
                        self.loading = Some(Loading { thread, purpose: Purpose::Configure(request, profile, reports) });
                        Ok(())
                    }
                    Err(error) => self.end(Err(error), request),
                };
            }
            State::Activating => {
                if let Some(configured) = &mut self.configured {
                    configured.set_active(true);
                }
                Ok(())
            }
            State::Deactivating => {
                let drained = self.configured.as_mut().is_none_or(|configured| {
                    configured.set_active(false);
                    configured.drain()
                });
                if drained {
                    Ok(())
                } else {
                    Err(NodeError::Stuck)
                }
            }
            // Cleanup and shutdown.
            _ => self.take_down(),
        };
        self.end(outcome, request)
    }

    /// Ends the transition that is under way, with the reason if it failed.
    fn end(&mut self, outcome: Result<(), NodeError>, request: Option<ChangeRequest>) -> Result<(), NodeError> {
        let (success, asked) = (outcome.is_ok(), request.is_some());
        // Configuring fails for want of something good to configure; whatever else goes wrong is an error.
        let failure = match self.machine.state() {
            State::Configuring => Outcome::Failure,
            _ => Outcome::Error,
        };
        let transition = self.machine.end(if success { Outcome::Success } else { failure });
        self.lifecycle.announce(transition);
        if self.machine.state() == State::ErrorProcessing {
            let outcome = self.take_down();
            let transition = self.machine.end(if outcome.is_ok() { Outcome::Success } else { Outcome::Failure });
            self.lifecycle.announce(transition);
        }
        self.parameters.set_open(self.machine.state() == State::Unconfigured);
        lock(&self.board).problem = outcome.as_ref().err().map(NodeError::to_string);
        self.post();
        request.into_iter().for_each(|request| answer(request, success));
        match outcome {
            Err(error) if self.autostart && !asked => return Err(error),
            Err(error) => r2r::log_error!(self.node.logger(), "{error}"),
            Ok(()) => r2r::log_info!(self.node.logger(), "{}", self.machine.state().label()),
        }
        // A node that starts itself goes on to be active.
        if self.autostart && !asked && transition.goal == State::Inactive && transition.start == State::Configuring {
            return self.begin(3, "", None);
        }
        Ok(())
    }

    /// What configuring needs to know, and what became of the real-time profile so far.
    fn prepare(&mut self) -> Result<(Recipe, Profile, Vec<Report>), NodeError> {
        if let Some(fault) = self.parameters.fault() {
            return Err(fault.clone().into());
        }
        camera_names(&self.parameters)?;
        let profile = Profile::new(&self.parameters)?;
        self.parameters.set_open(false);
        let time = self.node.get_time_source();
        match self.parameters.flag("use_sim_time") {
            true => time.enable_sim_time(&mut self.node)?,
            false => time.disable_sim_time(),
        }
        // This thread takes the images.
        let reports = self.origin.apply(&profile, &PATIENT_THREADS);
        Ok((Recipe::new(&self.parameters, profile.clone()), profile, reports))
    }

    /// Loads the model in `folder` beside the one in use.
    fn load(&mut self, folder: &str) -> Result<(), NodeError> {
        let recipe = Recipe::new(&self.parameters, Profile::new(&self.parameters)?).with_model(folder);
        let thread = thread::Builder::new().name("loading".into()).spawn(move || recipe.build())?;
        self.loading = Some(Loading { thread, purpose: Purpose::Replace });
        Ok(())
    }

    /// Does with a model that has been loaded what it was for.
    fn loaded(&mut self) -> Result<(), NodeError> {
        let Some(Loading { thread, purpose }) = self.loading.take() else { return Ok(()) };
        let built = thread.join().unwrap_or(Err(NodeError::Loading));
        match purpose {
            Purpose::Configure(request, profile, reports) => {
                let outcome =
                    built.and_then(|(engines, description)| self.configure(engines, description, profile, reports));
                self.end(outcome, request)
            }
            Purpose::Replace => {
                let built = built.and_then(|built| self.check_classes(&built.1).map(|()| built));
                let outcome = match (built, &self.configured) {
                    (Ok((engines, description)), Some(configured)) => {
                        configured.replace_engines(engines);
                        r2r::log_info!(self.node.logger(), "from the next frame on: {}", description.student);
                        let mut board = lock(&self.board);
                        board.description = description;
                        board.problem = None;
                        Ok(())
                    }
                    (Ok(_), None) => Err("the node is not configured any more".into()),
                    (Err(error), _) => {
                        r2r::log_error!(self.node.logger(), "the model stays as it is: {error}");
                        Err(error.to_string())
                    }
                };
                self.parameter_services.finish(&mut self.parameters, outcome);
                // What was set together with the model holds from now on as well.
                if let Some(configured) = &self.configured {
                    configured.shared.settings.store(&self.parameters);
                }
                Ok(())
            }
        }
    }

    /// The topics that name classes, some of them only once, are those of the model that the node was configured with.
    fn check_classes(&self, new: &Description) -> Result<(), NodeError> {
        match new.classes == lock(&self.board).description.classes {
            true => Ok(()),
            false => Err(NodeError::Classes(new.student.clone())),
        }
    }

    fn configure(
        &mut self,
        engines: Box<Engines>,
        description: Description,
        profile: Profile,
        mut reports: Vec<Report>,
    ) -> Result<(), NodeError> {
        let names = camera_names(&self.parameters)?;
        let ledgers = names.iter().map(|name| Arc::clone(self.ledgers.entry(name.clone()).or_default())).collect();
        let (configured, of_thread) =
            Configured::new(&mut self.node, &self.parameters, engines, names, ledgers, profile)?;
        reports.extend(of_thread);
        for report in &reports {
            if let Err(why) = &report.outcome {
                r2r::log_warn!(self.node.logger(), "{} is not applied: {why}", report.what);
            }
        }
        let topics: Vec<_> = configured.streams().into_iter().map(|stream| stream.topic).collect();
        let Description { student, device, .. } = &description;
        r2r::log_info!(self.node.logger(), "student {student} on {device}; images from {}", topics.join(", "));
        let mut board = lock(&self.board);
        (board.description, board.reports) = (description, reports);
        self.configured = Some(configured);
        Ok(())
    }

    /// The frame thread has died.
    fn process_error(&mut self) -> Result<(), NodeError> {
        self.machine.fail();
        let died = self.take_down().and(Err(NodeError::FrameThread));
        // Everything is taken down, and the node can be configured anew.
        self.end(Ok(()), None)?;
        lock(&self.board).problem = died.as_ref().err().map(NodeError::to_string);
        if self.autostart {
            return died;
        }
        Ok(())
    }

    /// Takes down what was configured, if anything was.
    fn take_down(&mut self) -> Result<(), NodeError> {
        let ended = self.configured.take().map_or(Ok(()), |configured| configured.end(&mut self.node));
        // Only now, so that the diagnostics still learn what became of the last frames.
        let mut board = lock(&self.board);
        (board.shared, board.streams, board.reports) = (None, Vec::new(), Vec::new());
        ended
    }

    /// Brings the diagnostics' board up to date.
    fn post(&mut self) {
        self.last_post = Instant::now();
        let configured = self.configured.as_ref().map(|c| (Arc::clone(&c.shared), c.streams()));
        let mut board = lock(&self.board);
        board.state = self.machine.state();
        if let Some((shared, streams)) = configured {
            (board.shared, board.streams) = (Some(shared), streams);
        }
    }

    /// Ends everything; `outcome` is how spinning ended.
    pub(super) fn stop(mut self, outcome: Result<(), NodeError>) -> Result<FrameCounts, NodeError> {
        self.autostart = false;
        // A thread that loads a model is left to itself: it touches nothing that goes away.
        self.loading = None;
        let outcome = outcome.and_then(|()| self.shut_down());
        self.stop_diagnostics.store(true, Relaxed);
        self.diagnostics.thread().unpark();
        let give_up = Instant::now() + PATIENCE;
        while !self.diagnostics.is_finished() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        if !self.diagnostics.is_finished() || matches!(outcome, Err(NodeError::Stuck)) {
            // Its destructor waits for whoever is publishing, which a stuck thread may be doing for ever.
            std::mem::forget(self.node);
            return Err(NodeError::Stuck);
        }
        outcome.map(|()| self.ledgers.values().map(|ledger| ledger.counts()).sum())
    }

    /// The way to the end of a managed life, from wherever the node is.
    fn shut_down(&mut self) -> Result<(), NodeError> {
        let taken_down = self.take_down();
        if let Some(transition) = self.machine.begin(0, "shutdown") {
            self.lifecycle.announce(transition);
            let outcome = if taken_down.is_ok() { Outcome::Success } else { Outcome::Failure };
            self.lifecycle.announce(self.machine.end(outcome));
        }
        taken_down
    }
}

#[cfg(test)]
mod tests;
