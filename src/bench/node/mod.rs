//! The whole node over the middleware: this process is its camera and its subscriber, and matches by stamp.
//!
//! - [`matching`]: from what was sent, received and told by `FrameTiming` to a record of each frame.
//! - [`side_by_side`]: two nodes' stages in one table.
//! - With the feature `ros`: `process` (the nodes that are started), `exchange` (images out, results in), `measure` (all
//!   of it in order).

pub mod matching;
pub mod side_by_side;

#[cfg(feature = "ros")]
pub mod exchange;
#[cfg(feature = "ros")]
pub mod measure;
#[cfg(feature = "ros")]
pub mod process;
