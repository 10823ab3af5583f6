#![doc = include_str!("README.md")]
//!
//! ## Modules
//!
//! - [`boxes`] and [`mask`]: what leaves the pipeline. [`encoding`]: how bytes stand for colours, and
//!   [`image`]: a borrowed image, checked once. [`pixels`]: how a network's input is filled.
//! - [`clock`]: the one monotonic clock. [`accounting`]: each received frame gets exactly one
//!   outcome.
//! - [`mailbox`]: from the threads that receive frames to the one that processes them, the newest
//!   of each camera; [`latest`]: the same for a single value.
//! - `scheduling` (Linux): priorities, cores and locked memory of threads.
//! - [`files`]: files that are written whole or not at all. [`allocations`]: a counting allocator.

#![warn(missing_docs)]

pub mod accounting;
pub mod allocations;
pub mod boxes;
pub mod clock;
pub mod encoding;
pub mod files;
pub mod image;
pub mod latest;
pub mod mailbox;
pub mod mask;
pub mod pixels;
#[cfg(target_os = "linux")]
pub mod scheduling;

pub use accounting::{FrameAccounting, FrameCounts, FrameOutcome};
pub use boxes::{BoundingBox, Detection};
pub use clock::now_ns;
pub use encoding::Encoding;
pub use image::{ImageError, ImageView};
pub use latest::LatestSlot;
pub use mailbox::FrameMailbox;
pub use mask::ClassMask;
pub use pixels::PixelInput;

/// The example of README.md, tested.
#[cfg(doctest)]
#[doc = include_str!("README.md")]
pub struct Readme;
