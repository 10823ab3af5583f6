//! From an image as a camera sends it to a network's input tensor.
//!
//! - [`image`]: a borrowed image of any supported encoding, checked once.
//! - [`letterbox`]: the transform and its inverse for boxes; colour conversion, resampling and normalisation in one go.
//! - [`compressed`]: JPEG and PNG bytes to such an image, in a reused buffer.

pub mod compressed;
pub mod image;
pub mod letterbox;

pub use compressed::{CompressedError, Decompressor};
pub use image::{Encoding, ImageError, ImageView};
pub use letterbox::{Letterbox, Normalisation};
