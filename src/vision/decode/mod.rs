//! From logits to boxes and masks: score threshold, box distributions, non-maximum suppression, argmax.
//!
//! - [`head`]: the detection head's logits to scored boxes in input pixels.
//! - [`nms`]: non-maximum suppression, within each class and across classes.
//! - [`mask`]: the segmentation head's logits to a class for each cell of the image.
//! - [`scene`]: the scene head's logits to probabilities.
//!
//! All of it works in buffers that are allocated once.

pub mod head;
pub mod mask;
pub mod nms;
pub mod scene;

pub use head::HeadDecoder;
pub use mask::MaskDecoder;
pub use nms::{non_max_suppression, NmsIou};
pub use scene::SceneDecoder;
