//! Images to tensors.

mod preprocess;
