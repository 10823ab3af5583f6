//! Images to tensors.

mod encodings_opencv;
mod jpeg;
mod preprocess;
