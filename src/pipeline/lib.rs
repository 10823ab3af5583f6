//! One frame's way from camera bytes to boxes and mask, and what keeps a stream of frames on time.
//!
//! - [`frame`]: the hot path, in the order in which a frame flows: letterbox → network → boxes and mask.
//! - [`options`]: options and their validation; [`graph`]: the network that they ask for.
//! - [`device`]: where it runs, and how it falls back. `cuda` (feature `cuda`): the same frame as one CUDA graph.
//! - [`monitor`]: when missed deadlines become a warning, an error, or less work a frame.
//! - [`camera`]: what a camera's stamps tell of frames that never arrived.
//! - [`explain`]: what a device would do for a frame, as a table.
//! - [`stage`]: in which stage a frame is, for a watchdog; [`timing`]: when it passed each.

pub mod camera;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod device;
pub mod explain;
pub mod frame;
pub mod graph;
pub mod monitor;
pub mod options;
pub mod stage;
pub mod timing;

pub use device::{DeviceChoice, DeviceInUse, GpuOptions, GpuWait};
pub use explain::{cpu_plan, explain_plan};
pub use frame::{Begun, FrameError, FrameResult, Pipeline};
pub use graph::graph_for;
pub use options::{PipelineError, PipelineOptions};
pub use stage::{Stage, StageObserver};
pub use timing::StageTimes;
