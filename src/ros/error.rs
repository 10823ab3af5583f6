//! Why the node cannot start, or cannot go on.

use peregrine_pipeline::PipelineError;
use peregrine_student::PackageError;

use super::parameters::ParameterError;

/// Why the node cannot start, or cannot go on; one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("ROS 2 could not start: {0}; check the arguments after --ros-args, RMW_IMPLEMENTATION and ROS_DOMAIN_ID")]
    Ros(String),
    #[error(
        "ROS 2 could not start with security on (ROS_SECURITY_ENABLE): {0}; ROS_SECURITY_KEYSTORE must hold an enclave for \
         this node (ros2 security create_enclave), and the middleware must be built with security"
    )]
    Security(String),
    #[error("ROS 2 could not start: it cannot write its log files: {0}")]
    LogDirectory(String),
    #[error("parameter {0}")]
    Parameter(#[from] ParameterError),
    #[error("parameter 'model': {0}")]
    Model(#[from] PackageError),
    #[error("{0}")]
    Pipeline(#[from] PipelineError),
    #[error("the model does not run: {0}")]
    WarmUp(String),
    #[error("parameter 'road_classes': the model has no segmentation class '{0}'; it has {1}")]
    RoadClass(String, String),
    #[error("parameter 'device': {0}")]
    Device(String),
    #[error("invalid topic '{name}': {why}; a topic name consists of letters, digits, _ and /")]
    Topic { name: String, why: String },
    #[error("ROS 2: {0}")]
    Middleware(#[from] r2r::Error),
    #[error("I/O error: {0}")]
    Io(#[from] std::io::Error),
    #[error("the thread that loads models has panicked; its panic message says why")]
    Loading,
    #[error("the frame thread has panicked; its panic message says why")]
    FrameThread,
    #[error("a thread of the node did not end in time")]
    Stuck,
}

impl NodeError {
    /// Whether the cause is an invalid configuration, which the user can correct: a parameter, the
    /// model, a topic. A lifecycle transition then ends with FAILURE, for any other cause with
    /// ERROR.
    pub fn is_invalid_configuration(&self) -> bool {
        match self {
            Self::Parameter(_)
            | Self::Model(_)
            | Self::Pipeline(_)
            | Self::WarmUp(_)
            | Self::RoadClass(..)
            | Self::Device(_)
            | Self::Topic { .. } => true,
            Self::Ros(_)
            | Self::Security(_)
            | Self::LogDirectory(_)
            | Self::Middleware(_)
            | Self::Io(_)
            | Self::Loading
            | Self::FrameThread
            | Self::Stuck => false,
        }
    }
}
