//! Layer node: this process is the node's camera and its subscriber, and matches messages by
//! timestamp.
//!
//! - [`matching`]: from images sent, detections received and `FrameTiming` to a record of each
//!   frame.
//! - [`side_by_side`]: the stages of two nodes in one table.
//! - [`plan`]: which image is sent when, and to which node or camera.
//! - With the feature `ros`: `process` and `start` (starting and ending nodes), `links` (their topics, and the wait
//!   until they answer), `exchange` (images out, results in), `measure` (the whole measurement).

pub mod matching;
pub mod plan;
pub mod side_by_side;

#[cfg(feature = "ros")]
pub mod exchange;
#[cfg(feature = "ros")]
pub mod links;
#[cfg(feature = "ros")]
pub mod measure;
#[cfg(feature = "ros")]
pub mod process;
#[cfg(feature = "ros")]
pub mod start;
