//! From an image as a camera sends it to a network's input, and from the network's outputs to boxes and masks.
//!
//! - [`preprocess`]: decompression, letterbox, colour conversion and normalisation.
//! - [`decode`]: scores, boxes, non-maximum suppression, the class of each cell.

pub mod decode;
pub mod preprocess;
