//! Layer node: this process is the node's camera and its subscriber, and matches messages by
//! timestamp.
//!
//! - [`matching`]: from images sent, detections received and `FrameTiming` to a record of each
//!   frame.
//! - [`side_by_side`]: the stages of two nodes in one table.
//! - With the feature `ros`: `process` (starting and ending nodes), `exchange` (images out, results
//!   in), `measure` (the whole measurement).

pub mod matching;
pub mod side_by_side;

#[cfg(feature = "ros")]
pub mod exchange;
#[cfg(feature = "ros")]
pub mod measure;
#[cfg(feature = "ros")]
pub mod process;
