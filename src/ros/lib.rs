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
//!                                            [diagnostics]
//! ```
//!
//! - [`run`]: the program's start and end. [`node`]: its turns, and the transitions of its [`lifecycle`]. [`configured`]: all that exists between
//!   configure and cleanup. [`error`]: why something cannot be. [`command_line`]: what the program understands besides ROS's arguments.
//! - [`parameters`]: the one table of parameters. [`parameter_services`]: how ROS sees it. [`qos`]: the overrides of
//!   each topic's QoS. [`live`]: how the frame thread reads what may change.
//! - [`intake`]: images to the frame thread. [`presence`]: whether any come. [`incoming`]: an image message and the view of its pixels. [`topics`]:
//!   names after remapping. [`requests`]: requests of services.
//! - [`frame_path`]: the hot path, top to bottom. [`shared`]: what its thread shares with the others. [`engines`]: the model that it runs, for full work and for less.
//!   [`messages`]: what it publishes, in memory used again and again. [`clock`]: ROS time and the monotonic clock.
//!   [`realtime`]: priority, cores, locked memory.
//! - [`scene`]: what else is published of a frame: tracks, places on the ground, the annotated image.
//! - [`record`]: what the frame thread leaves for [`diagnostics`].

pub mod client;
pub mod clock;
pub mod command_line;
pub mod configured;
pub mod diagnostics;
pub mod engines;
pub mod error;
pub mod frame_path;
pub mod incoming;
pub mod intake;
pub mod lifecycle;
pub mod live;
pub mod messages;
pub mod node;
pub mod parameter_services;
pub mod parameters;
pub mod presence;
pub mod qos;
pub mod realtime;
pub mod record;
pub mod requests;
pub mod run;
pub mod scene;
pub mod shared;
pub mod topics;
