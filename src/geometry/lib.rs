//! From pixels to the ground: the camera's lens, where it is mounted, and where on the road a box stands.
//!
//! - [`camera`]: what a `CameraInfo` says, checked; points to pixels and pixels to bearings.
//! - [`distortion`]: the three lens models of ROS and OpenCV, with their derivatives, and how they are inverted.
//! - [`mounting`]: the camera's place and attitude over the ground.
//! - [`ground`]: a pixel's place on the ground, with the covariance that box and mounting leave it.
//! - [`occupancy`]: a map of the ground ahead from the segmentation.
//!
//! Frames of reference: the *optical* frame of the camera has x to the right, y down and z ahead; the *ground* frame
//! lies under the vehicle with x ahead, y to the left and z up (ROS REP 103). A pixel is a point in an image as ROS and
//! OpenCV count it: (0, 0) is the *centre* of the top-left pixel. Boxes count from its corner; see
//! [`camera::Camera::pixel_of`].

pub mod camera;
pub mod distortion;
pub mod ground;
pub mod mounting;
pub mod occupancy;

pub use camera::{Camera, CameraError, CameraInfo};
pub use ground::{Ground, GroundPoint, Uncertainty};
pub use mounting::Mounting;
pub use occupancy::{Occupancy, OccupancyGrid};
