//! The ROS 2 node. Everything that knows ROS is in here, and the only thing above it is `bin/perception_node`.
//!
//! Three threads, of which none waits for another:
//!
//! ```text
//!   middleware ──▶ spinning thread ──▶ slot ──▶ frame thread ──▶ middleware      detections, timing, masks
//!                  [node] [intake]   (newest    [frame_path]
//!                  [parameter_         wins)        │ records
//!                       services]                   ▼
//!                                            diagnostics thread ──▶ middleware   /diagnostics, 1 Hz
//!                                            [diagnostics] [window]
//! ```
//!
//! - [`node`]: start, spin, stop. [`command_line`]: what the program understands besides ROS's arguments.
//! - [`parameters`]: the one table of parameters. [`parameter_services`]: how ROS sees it. [`live`]: how the frame
//!   thread reads it.
//! - [`intake`]: images into the slot. [`incoming`]: an image message and the view of its pixels. [`topics`]: names
//!   after remapping.
//! - [`frame_path`]: the hot path, top to bottom. [`messages`]: what it publishes, in memory used again and again.
//!   [`clock`]: ROS time and the monotonic clock.
//! - [`scene`]: what else is published of a frame: tracks, places on the ground, the annotated image.
//! - [`record`]: what the frame thread leaves for [`diagnostics`], and [`window`]: distributions over it.

pub mod clock;
pub mod command_line;
pub mod diagnostics;
pub mod frame_path;
pub mod incoming;
pub mod intake;
pub mod live;
pub mod messages;
pub mod node;
pub mod parameter_services;
pub mod parameters;
pub mod record;
pub mod scene;
pub mod topics;
pub mod window;
