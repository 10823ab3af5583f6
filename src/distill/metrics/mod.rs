//! How good a student is.
//!
//! - [`mod@average_precision`]: COCO's AP of boxes.
//! - [`confusion`]: mIoU of masks.

pub mod average_precision;
pub mod confusion;

pub use average_precision::{average_precision, ClassPrecision, Evaluated};
pub use confusion::Confusion;
