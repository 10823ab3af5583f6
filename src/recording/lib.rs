//! Images of recordings: rosbag2 bags (MCAP and sqlite3, whole, compressed, cut short), single
//! MCAP files, and videos.
//!
//! [`Recording::open`] lists the topics; [`Recording::images`] yields the images of one of them,
//! each borrowed from a buffer that is reused. Memory is bounded by the largest image, whatever a
//! damaged file claims.
//!
//! - [`recording`](Recording): what a path holds. [`images`](Images): reading it.
//!   [`selection`](Selection): which images.
//! - `image`: messages as images, by `cdr`; [`LevelOptions`]: what they do not say of their values.
//!   `metadata`: a bag's `metadata.yaml`.
//! - `storage`: `.mcap` and `.db3` files. `zstd`: what is compressed. `place`: where a message is.
//! - `decoding`: messages that carry H.264 or H.265, by libavcodec (feature `video`). `gaps`: which of
//!   their frames have no picture, and why. `video`: a video's file, by the program ffmpeg.

#![warn(missing_docs)]

mod cdr;
mod decoding;
mod error;
mod gaps;
mod image;
mod images;
mod levels;
mod metadata;
mod place;
mod recording;
mod selection;
mod storage;
mod topic;
mod video;
mod zstd;

pub use cdr::CdrError;
pub use error::RecordingError;
pub use image::{Content, ImageType, PixelError, RecordedImage};
pub use images::{Images, Unreadable};
pub use levels::LevelOptions;
pub use recording::Recording;
pub use selection::{Every, Selection};
pub use topic::Topic;
