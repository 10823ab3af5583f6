//! From an image as a camera sends it to a network's input tensor.
//!
//! - [`image`]: a borrowed image of any supported encoding, checked once.
//! - [`letterbox`]: the transform and its inverse for boxes; `axis`: which rows and columns it reads;
//! - `resample`: resampling, colour conversion and normalisation in one go, over the sums of `lanes`.
//! - [`compressed`]: JPEG and PNG bytes to such an image, in a reused buffer.

#![deny(clippy::undocumented_unsafe_blocks)]

mod axis;
pub mod compressed;
pub mod image;
mod lanes;
pub mod letterbox;
mod resample;

pub use compressed::{CompressedError, Decompressor};
pub use image::{Encoding, ImageError, ImageView};
pub use letterbox::{Letterbox, Normalisation};
