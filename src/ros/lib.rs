//! The ROS 2 node. Everything that uses ROS is in this crate, below `src/bin/perception_node.rs`.
//!
//! Three threads, none of which waits for another:
//!
//! ```text
//!   middleware ──▶ spinning thread ──▶ mailbox ──▶ frame thread ──▶ middleware    detections, timing, masks
//!                  [node] [intake]   (newest of    [frame_path]
//!                  [parameter_       each camera)      │ records
//!                       services]                      ▼
//!                                              diagnostics thread ──▶ middleware  /diagnostics, /rosout
//!                                              [diagnostics]
//! ```
//!
//! - [`run`]: the program's start and end; [`context`]: its connection to ROS. `node`: its spins, and the transitions of its
//!   [`lifecycle`]. [`configured`]: what exists between configure and cleanup. [`error`]: why it
//!   cannot go on. [`command_line`]: its own arguments; [`arguments`]: those of ROS; [`spelling`]:
//!   what was meant by a misspelt word. [`logging`]: its log.
//! - [`parameters`]: the one table of parameters. [`parameter_services`]: the ROS services for
//!   them. [`live`]: those that may change at any time, for the frame thread.
//! - [`names`], [`qos`], [`topics`]: topic names after remapping, the QoS with its overrides, the
//!   topics of a camera. [`requests`]: requests of services.
//! - [`image_topic`]: the topic of a camera's images; [`graph`]: what the ROS graph shows of it.
//! - [`intake`]: images to the mailbox, by [`delivery`]; those of a video by way of [`video`]. [`liveness`]: the stream liveness watchdog. [`incoming`]:
//!   an image message and the view of its pixels. [`age`]: how old a frame's scene is.
//! - [`frame_path`]: the per-frame path, top to bottom. [`shared`]: what its thread shares with the
//!   others. [`model`]: the model that it runs, with its degraded mode. [`messages`]: what it
//!   publishes, in reused messages. [`clock`]: ROS time and the monotonic clock; [`clock_watch`]: whether simulated time goes on. [`realtime`]:
//!   priority, cores, locked memory. [`memory`]: what stays with the process that was freed.
//! - [`scene`]: the further outputs of a frame: tracks, objects on the ground, the annotated image.
//! - [`capture`]: frames for threads that look on, with their [`annotations`]: the [`black_box`], and
//!   the page in [`web`]. [`picture`]: images as JPEG.
//! - [`record`]: what the frame thread reports to [`diagnostics`]. [`panics`]: a panic that costs one
//!   frame.
//! - [`watch`]: where the frame thread is; [`watchdog`]: the thread that notices when it hangs;
//!   [`service_manager`]: what systemd is told.
//! - [`client`]: the other side of the node, for benchmarks.

pub mod age;
pub mod annotations;
pub mod arguments;
pub mod black_box;
pub mod capture;
pub mod client;
pub mod clock;
pub mod clock_watch;
pub mod command_line;
pub mod configured;
pub mod context;
pub mod delivery;
pub mod diagnostics;
pub mod error;
pub mod frame_path;
pub mod graph;
pub mod image_topic;
pub mod incoming;
pub mod intake;
pub mod lifecycle;
pub mod live;
pub mod liveness;
pub mod logging;
pub mod memory;
pub mod messages;
pub mod model;
pub mod names;
pub mod node;
pub mod panics;
pub mod parameter_services;
pub mod parameters;
pub mod picture;
pub mod qos;
pub mod realtime;
pub mod record;
pub mod requests;
pub mod run;
pub mod scene;
pub mod scene_class;
pub mod service_manager;
pub mod shared;
pub mod spelling;
pub mod topics;
pub mod video;
pub mod watch;
pub mod watchdog;
pub mod web;
