//! Models, loaded on a thread of their own: frames and services go on meanwhile.

use std::thread::{self, JoinHandle};

use super::Perception;
use crate::diagnostics::lock;
use crate::error::NodeError;
use crate::lifecycle::services::ChangeRequest;
use crate::model::{LoadedModel, ModelConfig, ModelDescription};
use crate::realtime::{ProfileReport, RealtimeProfile};

type Loaded = (Box<LoadedModel>, ModelDescription);

/// A model that is being loaded.
pub(super) struct Loading {
    pub(super) thread: JoinHandle<Result<Loaded, NodeError>>,
    pub(super) purpose: Purpose,
}

/// What the model is for.
pub(super) enum Purpose {
    /// To configure the node, and then to answer the request for it.
    Configure(Option<ChangeRequest>, RealtimeProfile, Vec<ProfileReport>),
    /// To replace the model of a configured node.
    Replace,
}

impl Loading {
    pub(super) fn start(config: ModelConfig, purpose: Purpose) -> std::io::Result<Self> {
        let thread = thread::Builder::new().name("loading".into()).spawn(move || config.load())?;
        Ok(Self { thread, purpose })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

impl Perception {
    /// Starts to load the model in `folder`, to replace the one in use.
    pub(super) fn start_replacing(&mut self, folder: &str) -> Result<(), NodeError> {
        let profile = RealtimeProfile::new(&self.parameters)?;
        let config = ModelConfig::new(&self.parameters, profile).with_model(folder);
        self.loading = Some(Loading::start(config, Purpose::Replace)?);
        Ok(())
    }

    /// Uses the model that has been loaded for its purpose.
    pub(super) fn finish_loading(&mut self) -> Result<(), NodeError> {
        let Some(Loading { thread, purpose }) = self.loading.take() else { return Ok(()) };
        let loaded = thread.join().unwrap_or(Err(NodeError::Loading));
        match purpose {
            Purpose::Configure(request, profile, reports) => {
                let outcome =
                    loaded.and_then(|(model, description)| self.configure(model, description, profile, reports));
                self.end(outcome, request)
            }
            Purpose::Replace => {
                let outcome = self.replace_model(loaded);
                self.parameter_services.finish(&mut self.parameters, outcome);
                // Parameters that were set together with the model apply from now on as well.
                if let Some(configured) = &self.configured {
                    configured.shared.settings.store(&self.parameters);
                }
                Ok(())
            }
        }
    }

    /// Replaces the model from the next frame on; the reason if it cannot be.
    fn replace_model(&mut self, loaded: Result<Loaded, NodeError>) -> Result<(), String> {
        let (model, description) = loaded.map_err(|error| {
            tracing::error!("the model is not replaced: {error}");
            error.to_string()
        })?;
        let Some(configured) = &self.configured else { return Err("the node is no longer configured".into()) };
        configured.replace_model(model);
        tell_road(&description);
        tracing::info!("student {} from the next frame on", description.student);
        let mut board = lock(&self.board);
        board.description = description;
        board.problem = None;
        Ok(())
    }
}

/// Says once that no road is published, where a mask could hold one.
pub(super) fn tell_road(model: &ModelDescription) {
    let Some(classes) = model.classes.as_ref().filter(|c| !c.segmentation.is_empty() && !c.has_road()) else { return };
    tracing::warn!(
        "road_mask and drivable_ground are not published: no segmentation class of {} is in the parameter \
         road_classes; it has {}",
        model.student,
        classes.segmentation.join(", ")
    );
}
