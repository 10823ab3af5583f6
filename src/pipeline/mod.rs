//! One frame's way from camera bytes to boxes and mask, and what keeps a stream of frames on time.
//!
//! - [`frame`]: the hot path, in the order in which a frame flows: letterbox → network → boxes and mask.
//! - [`slot`]: the one place between the thread that receives frames and the thread that processes them.
//! - [`ledger`]: what became of every frame that arrived.
//! - [`timing`]: the one monotonic clock of all time stamps.

pub mod frame;
pub mod ledger;
pub mod slot;
pub mod timing;

pub use crate::decode::ClassMask;
pub use frame::{FrameError, FrameResult, Pipeline, PipelineError, PipelineOptions};
pub use ledger::{Counts, Ledger, Outcome};
pub use slot::LatestSlot;
pub use timing::{now_ns, StageTimes};
