//! Images to tensors.

mod jpeg;
mod preprocess;
