//! The program: connects to ROS, and spins the node until it is to stop.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use peregrine_core::FrameCounts;
use r2r::Node;

use super::context;
use super::error::NodeError;
use super::logging::{self, directory};
use super::memory;
use super::node::Perception;
use super::panics;

/// The node's name unless it is remapped.
const NAME: &str = "perception";

/// Runs the node until SIGINT or SIGTERM and returns the final counts, of all cameras together.
///
/// # Errors
/// When the node cannot start; with `autostart` also when it cannot be configured, or when its
/// frame thread panics: then whatever started the process has to know. Otherwise the node lives on,
/// unconfigured.
pub fn run() -> Result<FrameCounts, NodeError> {
    memory::bound();
    directory::do_without()?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // More signals change nothing: launchers and terminals may both send one for a single
        // Ctrl-C.
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    let context = context::create()?;
    panics::install_hook();
    let node = Node::create(context, NAME, "").map_err(|error| context::refused(error.to_string()))?;
    let (log, _console) = logging::start(node.logger(), logging::level(std::env::args(), node.logger()));
    directory::tell();
    let mut perception = Perception::start(node, Some(log))?;
    let mut outcome = Ok(());
    while !stop.load(Relaxed) && outcome.is_ok() {
        outcome = perception.spin_once();
    }
    perception.stop(outcome)
}
