//! The connection to ROS.

use std::panic;

use super::error::NodeError;
use super::logging::directory;

/// Connects the process. r2r panics if ROS refuses its arguments; here that is an error like any
/// other.
///
/// # Errors
/// When ROS cannot start, with the reason as far as it is known.
pub fn create() -> Result<r2r::Context, NodeError> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let created = panic::catch_unwind(r2r::Context::create);
    panic::set_hook(hook);
    match created {
        Ok(Ok(context)) => Ok(context),
        // ROS says no more than that there is an error.
        Ok(Err(error)) => Err(directory::problem().map_or_else(|| refused(error.to_string()), NodeError::LogDirectory)),
        Err(payload) => {
            let text = payload.downcast_ref::<String>().cloned();
            Err(refused(text.unwrap_or_else(|| "no reason was given".into())))
        }
    }
}

/// That ROS or its middleware refuses, which on security says as little as on all else.
pub fn refused(why: String) -> NodeError {
    if std::env::var_os("ROS_SECURITY_ENABLE").is_some_and(|value| value == "true") {
        NodeError::Security(why)
    } else {
        NodeError::Ros(why)
    }
}
