//! Objects followed from frame to frame: detections in, identities with position, velocity and covariance out.
//!
//! - [`tracker`]: one frame after another: predict, associate (high scores first, then low ones), correct, begin and end.
//! - [`association`]: which detection belongs to which track, the best over all pairs.
//! - [`box_filter`]: a box that moves: four [`kalman`] filters, and the noise they assume.
//! - [`kalman`]: a position and a velocity along one axis.
//!
//! Works in image space and in buffers that are allocated once; a frame costs bounded time.

pub mod association;
pub mod box_filter;
pub mod kalman;
pub mod tracker;

pub use box_filter::Noise;
pub use tracker::{Track, TrackError, Tracker, TrackerOptions};
