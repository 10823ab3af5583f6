//! Objects followed from frame to frame: detections in, identities with position, velocity and covariance out.
//!
//! - [`tracker`]: one frame after another: predict, associate (high scores first, then low ones), correct, begin and end.
//! - [`options`]: tracker options. `candidate`: state of an object.
//! - [`association`]: which detection belongs to which track, the best over all pairs.
//! - [`box_filter`]: a box that moves: four [`kalman`] filters, and the noise they assume.
//! - [`kalman`]: a position and a velocity along one axis.
//!
//! Works in image space and in buffers that are allocated once; a frame costs bounded time.

pub mod association;
pub mod box_filter;
mod candidate;
pub mod kalman;
pub mod options;
pub mod tracker;

pub use box_filter::Noise;
pub use options::{TrackError, TrackerOptions};
pub use tracker::{Track, Tracker};
