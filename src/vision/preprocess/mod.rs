//! From an image as a camera sends it to a network's input tensor.
//!
//! - [`normalisation`]: mean and standard deviation. [`letterbox`]: the transform and its inverse for boxes; `axis`: which
//!   rows and columns it reads.
//! - `resample`: resampling, colour conversion and normalisation in one go, over the sums of `lanes`; [`rows`]: rows
//!   blended, of 8 or 16 bits; `mosaic`: the same of a Bayer mosaic; [`pixel`]: what differs between encodings.
//! - [`levels`]: whether values are as the user says.
//! - [`jpeg`]: what is to be known of a JPEG before it is decoded.
//! - [`compressed`]: JPEG and PNG bytes to an image, in a reused buffer; [`compressed_format`]: what its values stand for.
//!   [`rgb`]: an image as rgb8, at its own size.

mod axis;
pub mod compressed;
pub mod compressed_format;
pub mod jpeg;
mod lanes;
pub mod letterbox;
pub mod levels;
mod mosaic;
pub mod normalisation;
pub mod pixel;
mod resample;
pub mod rgb;
pub mod rows;

pub use compressed::{CompressedError, Decompressor};
pub use letterbox::Letterbox;
pub use normalisation::Normalisation;
