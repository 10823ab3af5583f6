//! One frame's way from camera bytes to boxes and mask, and what keeps a stream of frames on time.
//!
//! - [`frame`]: the hot path, in the order in which a frame flows: letterbox → network → boxes and mask.
//! - [`options`]: what is to be done with each frame.
//! - [`slot`]: the one place between the thread that receives frames and the thread that processes them; [`waiting`]:
//!   such places for several cameras, the most urgent first.
//! - [`monitor`]: when missed deadlines become a warning, an error, or less work a frame.
//! - [`camera`]: what a camera's stamps tell of frames that never arrived.
//! - [`ledger`]: what became of every frame that arrived.
//! - [`device`]: where it runs, and how it falls back.
//! - [`explain`]: what a device would do for a frame, as a table.
//! - [`timing`]: the one monotonic clock of all time stamps.

pub mod camera;
pub mod device;
pub mod explain;
pub mod frame;
pub mod ledger;
pub mod monitor;
pub mod options;
pub mod slot;
pub mod timing;
pub mod waiting;

pub use crate::decode::ClassMask;
pub use device::{DeviceChoice, DeviceInUse, GpuOptions, GpuWait};
pub use explain::{cpu_plan, explain_plan};
pub use frame::{FrameError, FrameResult, Pipeline};
pub use ledger::{Counts, Ledger, Outcome};
pub use options::{PipelineError, PipelineOptions};
pub use slot::LatestSlot;
pub use timing::{now_ns, StageTimes};
pub use waiting::Waiting;
