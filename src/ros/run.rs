//! The program: connects to ROS, and spins the node until it is to stop.

use std::panic;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use peregrine_core::FrameCounts;
use r2r::Node;

use super::error::NodeError;
use super::logging;
use super::node::Perception;

/// The node's name unless it is remapped.
const NAME: &str = "perception";

/// Runs the node until SIGINT or SIGTERM and returns the final counts, of all cameras together.
///
/// # Errors
/// When the node cannot start; with `autostart` also when it cannot be configured, or when its
/// frame thread panics: then whatever started the process has to know. Otherwise the node lives on,
/// unconfigured.
pub fn run() -> Result<FrameCounts, NodeError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // More signals change nothing: launchers and terminals may both send one for a single
        // Ctrl-C.
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let node = Node::create(context()?, NAME, "").map_err(|e| NodeError::Ros(e.to_string()))?;
    let log = logging::start(node.logger(), logging::level(std::env::args(), node.logger()));
    let mut perception = Perception::start(node, Some(log))?;
    let mut outcome = Ok(());
    while !stop.load(Relaxed) && outcome.is_ok() {
        outcome = perception.spin_once();
    }
    perception.stop(outcome)
}

/// The connection to ROS. r2r panics if ROS refuses its arguments; here that is an error like any
/// other.
fn context() -> Result<r2r::Context, NodeError> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let created = panic::catch_unwind(r2r::Context::create);
    panic::set_hook(hook);
    match created {
        Ok(Ok(context)) => Ok(context),
        Ok(Err(error)) => Err(NodeError::Ros(error.to_string())),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            Err(NodeError::Ros(text.unwrap_or_else(|| "no reason was given".into())))
        }
    }
}
