//! The arguments after `--ros-args`.
//!
//! - `parsed`: what ROS itself reads in them. [`unknown`]: what it does not understand, and what was
//!   probably meant.
//! - [`given`]: the parameters that they give, each with where it stands.

pub mod given;
mod parsed;
pub mod unknown;

pub use parsed::RosArguments;
