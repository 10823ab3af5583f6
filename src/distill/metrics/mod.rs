//! How good a student is.
//!
//! - [`mod@average_precision`]: COCO's AP of boxes, of all and by size.
//! - [`confusion`]: mIoU of masks.
//! - [`calibration`]: whether confidences mean what they say.

pub mod average_precision;
pub mod calibration;
pub mod confusion;

pub use average_precision::{average_precision, ClassPrecision, Evaluated};
pub use calibration::Calibration;
pub use confusion::Confusion;
