//! Why the node cannot do what it should.

use peregrine_pipeline::PipelineError;
use peregrine_student::PackageError;

use super::parameters::Refusal;

/// Why the node cannot start, or not go on. One sentence each.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("ROS 2 could not start: {0}; look at the arguments after --ros-args, at RMW_IMPLEMENTATION and at ROS_DOMAIN_ID")]
    Ros(String),
    #[error("parameter {0}")]
    Parameter(#[from] Refusal),
    #[error("parameter 'model': {0}")]
    Model(#[from] PackageError),
    #[error("{0}")]
    Pipeline(#[from] PipelineError),
    #[error("the model does not run: {0}")]
    WarmUp(String),
    #[error(
        "parameter 'model': {0} has other classes than the model in use: deactivate, clean up and configure for it"
    )]
    Classes(String),
    #[error("parameter 'device': {0}")]
    Device(String),
    #[error("ROS refuses '{name}': {why}; a topic's name has letters, digits, _ and /")]
    Topic { name: String, why: String },
    #[error("ROS 2: {0}")]
    Middleware(#[from] r2r::Error),
    #[error("the system: {0}")]
    System(#[from] std::io::Error),
    #[error("the thread that loads models has panicked; its message says why")]
    Loading,
    #[error("the frame thread has ended by itself; its panic message says why")]
    FrameThread,
    #[error("the node was asked to stop, but a thread of it is stuck")]
    Stuck,
}
