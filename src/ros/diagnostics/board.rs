//! What the diagnostics learn of the node from the spinning thread.

use std::sync::{Arc, Mutex, MutexGuard};

use crate::black_box::Inbox;
use crate::lifecycle::LifecycleState;
use crate::model::ModelDescription;
use crate::realtime::ProfileReport;
use crate::shared::NodeShared;
use crate::web::hub::Hub;

/// What the spinning thread reports to the diagnostics. The frame thread does not use it.
#[derive(Clone)]
pub struct StatusBoard {
    pub state: LifecycleState,
    /// Why the last transition, or the last change of model, failed.
    pub problem: Option<String>,
    pub description: ModelDescription,
    pub reports: Vec<ProfileReport>,
    /// While the node is configured.
    pub shared: Option<Arc<NodeShared>>,
    pub streams: Vec<StreamInfo>,
    /// While the node is configured, if it records.
    pub black_box: Option<Arc<Inbox>>,
    /// While the node is configured, if it serves a page.
    pub web: Option<Arc<Hub>>,
    /// That simulated time does not come, while it does not.
    pub clock: Option<String>,
    /// How often simulated time has jumped back; `None` without it.
    pub clock_jumps_back: Option<u64>,
}

/// A camera's stream, as ROS knows it.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// Name of the camera; empty for the one without a name.
    pub name: String,
    /// Topic of the images, remapped.
    pub topic: String,
    /// Why no images come, as far as the ROS graph shows.
    pub publishers: String,
    /// That several nodes publish the topic, if they do.
    pub rivals: Option<String>,
    /// Whether objects are placed on the ground; an error if they are to be and cannot be.
    pub ground: Result<String, String>,
}

impl Default for StatusBoard {
    fn default() -> Self {
        Self {
            state: LifecycleState::Unconfigured,
            problem: None,
            description: ModelDescription::default(),
            reports: Vec::new(),
            shared: None,
            streams: Vec::new(),
            black_box: None,
            web: None,
            clock: None,
            clock_jumps_back: None,
        }
    }
}

/// Locks the board. It holds plain values, so it is consistent even after a panic.
pub fn lock(board: &Mutex<StatusBoard>) -> MutexGuard<'_, StatusBoard> {
    board.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
