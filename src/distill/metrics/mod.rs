//! Metrics of a student's accuracy.
//!
//! - [`mod@average_precision`]: COCO's AP of boxes, of all and by size.
//! - [`confusion`]: mIoU of masks.
//! - [`calibration`]: the calibration error of confidences.

pub mod average_precision;
pub mod calibration;
pub mod confusion;

pub use average_precision::{average_precision, ClassPrecision, Evaluated};
pub use calibration::Calibration;
pub use confusion::Confusion;
