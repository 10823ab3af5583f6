//! The transitions of the node's lifecycle.

use std::sync::Arc;

use super::loading::{tell_road, Loading, Purpose};
use super::Perception;
use crate::black_box;
use crate::configured::{camera_names, Configured};
use crate::diagnostics::lock;
use crate::error::NodeError;
use crate::lifecycle::services::{answer, ChangeRequest};
use crate::lifecycle::{LifecycleState, TransitionResult};
use crate::model::{LoadedModel, ModelConfig, ModelDescription};
use crate::realtime::{ProfileReport, RealtimeProfile};
use crate::web;

/// Threads of the node that no frame waits for.
const BACKGROUND_THREADS: [&str; 7] = [
    "diagnostics",
    "pictures",
    black_box::THREADS[0],
    black_box::THREADS[1],
    web::THREADS[0],
    web::THREADS[1],
    web::THREADS[2],
];

impl Perception {
    /// Begins a transition, and ends it unless it has to load a model.
    pub(super) fn begin(&mut self, id: u8, label: &str, request: Option<ChangeRequest>) -> Result<(), NodeError> {
        // A model that is being loaded belongs to the present configuration.
        let busy = self.loading.is_some();
        let Some(transition) = (!busy).then(|| self.machine.begin(id, label)).flatten() else {
            let (state, wanted) =
                (self.machine.state().label(), if label.is_empty() { id.to_string() } else { label.into() });
            let why = if busy { " while a model is being loaded" } else { "" };
            tracing::warn!("transition {wanted} is not available in state {state}{why}");
            request.into_iter().for_each(|request| answer(request, false));
            return Ok(());
        };
        self.lifecycle.announce(transition);
        self.post();
        let outcome = match transition.goal {
            LifecycleState::Configuring => return self.begin_configuring(request),
            LifecycleState::Activating => {
                if let Some(configured) = &mut self.configured {
                    configured.set_active(true);
                }
                Ok(())
            }
            LifecycleState::Deactivating => {
                let drained = self.configured.as_mut().is_none_or(|configured| {
                    configured.set_active(false);
                    configured.drain()
                });
                drained.then_some(()).ok_or(NodeError::Stuck)
            }
            // Cleanup and shutdown.
            _ => self.take_down(),
        };
        self.end(outcome, request)
    }

    /// Ends the current transition, with the reason if it failed.
    pub(super) fn end(
        &mut self,
        outcome: Result<(), NodeError>,
        request: Option<ChangeRequest>,
    ) -> Result<(), NodeError> {
        let (success, requested) = (outcome.is_ok(), request.is_some());
        let transition = self.machine.end(match &outcome {
            Ok(()) => TransitionResult::Success,
            Err(error) if error.is_invalid_configuration() => TransitionResult::Failure,
            Err(_) => TransitionResult::Error,
        });
        self.lifecycle.announce(transition);
        if self.machine.state() == LifecycleState::ErrorProcessing {
            let result = if self.take_down().is_ok() { TransitionResult::Success } else { TransitionResult::Failure };
            self.lifecycle.announce(self.machine.end(result));
        }
        self.parameters.set_open(self.machine.state() == LifecycleState::Unconfigured);
        lock(&self.board).problem = outcome.as_ref().err().map(NodeError::to_string);
        self.post();
        request.into_iter().for_each(|request| answer(request, success));
        match outcome {
            Ok(()) => tracing::info!("{}", self.machine.state().label()),
            Err(error) => {
                tracing::error!("{error}");
                if self.autostart && !requested {
                    return Err(error);
                }
            }
        }
        let configured = transition.start == LifecycleState::Configuring && transition.goal == LifecycleState::Inactive;
        if self.autostart && !requested && configured {
            return self.begin(3, "", None);
        }
        Ok(())
    }

    /// Checks the parameters and starts to load the model.
    fn begin_configuring(&mut self, request: Option<ChangeRequest>) -> Result<(), NodeError> {
        match self.prepare() {
            Ok((config, profile, reports)) => {
                self.loading = Some(Loading::start(config, Purpose::Configure(request, profile, reports))?);
                Ok(())
            }
            Err(error) => self.end(Err(error), request),
        }
    }

    /// Which model to load, and the real-time profile with what has been applied of it so far.
    fn prepare(&mut self) -> Result<(ModelConfig, RealtimeProfile, Vec<ProfileReport>), NodeError> {
        if let Some(fault) = self.parameters.fault() {
            return Err(fault.clone().into());
        }
        camera_names(&self.parameters)?;
        web::Settings::new(&self.parameters)?;
        let profile = RealtimeProfile::new(&self.parameters)?;
        self.parameters.set_open(false);
        let time = self.node.get_time_source();
        if self.parameters.flag("use_sim_time") {
            time.enable_sim_time(&mut self.node)?;
            self.clock.get_or_insert_default();
        } else {
            time.disable_sim_time();
            self.clock = None;
        }
        // To this thread as well, which takes the images.
        let reports = self.profile.apply(&profile, &BACKGROUND_THREADS);
        Ok((ModelConfig::new(&self.parameters, profile.clone()), profile, reports))
    }

    /// Makes the configured node around a loaded model.
    pub(super) fn configure(
        &mut self,
        model: Box<LoadedModel>,
        description: ModelDescription,
        profile: RealtimeProfile,
        mut reports: Vec<ProfileReport>,
    ) -> Result<(), NodeError> {
        let names = camera_names(&self.parameters)?;
        let accountings =
            names.iter().map(|name| Arc::clone(self.accountings.entry(name.clone()).or_default())).collect();
        let (configured, of_thread) =
            Configured::new(&mut self.node, &self.parameters, model, names, accountings, profile)?;
        reports.extend(of_thread);
        for report in &reports {
            if let Err(why) = &report.outcome {
                tracing::warn!("{} is not applied: {why}", report.what);
            }
        }
        let topics: Vec<_> = configured.streams().into_iter().map(|stream| stream.topic).collect();
        let ModelDescription { student, device, precision, .. } = &description;
        tracing::info!("student {student} ({precision}) on {device}; images from {}", topics.join(", "));
        tell_road(&description);
        let mut board = lock(&self.board);
        (board.description, board.reports) = (description, reports);
        board.black_box = configured.black_box().cloned();
        board.web = configured.web().cloned();
        if let Some(black_box) = &board.black_box {
            // They hold from the beginning.
            black_box.put_parameters(&self.parameters, 0);
        }
        self.configured = Some(configured);
        Ok(())
    }

    /// Handles the panic of the frame thread: takes everything down, after which the node can be
    /// configured again.
    pub(super) fn process_error(&mut self) -> Result<(), NodeError> {
        self.machine.fail();
        if let Some(black_box) = self.configured.as_ref().and_then(Configured::black_box) {
            black_box.put_failure();
        }
        let error = self.take_down().err().unwrap_or(NodeError::FrameThread);
        tracing::error!("{error}");
        self.end(Ok(()), None)?;
        lock(&self.board).problem = Some(error.to_string());
        if self.autostart {
            return Err(error);
        }
        Ok(())
    }

    /// Takes down what was configured, if anything was.
    pub(super) fn take_down(&mut self) -> Result<(), NodeError> {
        let ended = self.configured.take().map_or(Ok(()), |configured| configured.end(&mut self.node));
        // Only now, so that the diagnostics still learn the outcomes of the last frames.
        let mut board = lock(&self.board);
        (board.shared, board.streams, board.reports) = (None, Vec::new(), Vec::new());
        (board.black_box, board.web) = (None, None);
        ended
    }

    /// The transition to `finalized`, from any state.
    pub(super) fn shut_down(&mut self) -> Result<(), NodeError> {
        let taken_down = self.take_down();
        if let Some(transition) = self.machine.begin(0, "shutdown") {
            self.lifecycle.announce(transition);
            let result = if taken_down.is_ok() { TransitionResult::Success } else { TransitionResult::Failure };
            self.lifecycle.announce(self.machine.end(result));
        }
        taken_down
    }
}
