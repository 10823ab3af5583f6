//! The node as a managed one, after the design of ROS 2
//! (design.ros2.org/articles/node_lifecycle.html).
//!
//! - [`machine`]: the states and the transitions between them, those of `rcl_lifecycle`, without
//!   ROS.
//! - [`services`]: how `ros2 lifecycle` and launch_ros see and drive it.

pub mod machine;
pub mod services;

pub use machine::{LifecycleMachine, LifecycleState, Transition, TransitionResult};
pub use services::LifecycleServices;
