//! Teachers: heavy networks given as ONNX, run through ONNX Runtime, and brought to the student's classes.
//!
//! - [`description`]: the TOML that says what a teacher's tensors mean.
//! - [`onnx`]: loading ONNX Runtime and running one image.
//! - [`placement`]: where an image lies in a teacher's input.
//! - [`detect`], [`queries`]: from each detector's outputs to candidate objects; [`logits`]: classifiers and segmenters.
//! - [`feature`]: inner tensors for the student to learn from.
//! - [`package`]: a Peregrine student as a teacher.
//! - [`ensemble`]: several teachers' candidates brought together.

pub mod description;
pub mod detect;
pub mod ensemble;
pub mod feature;
pub mod logits;
pub mod onnx;
pub mod package;
pub mod placement;
pub mod queries;

pub use description::Description;
pub use feature::Feature;
pub use logits::SoftMask;
pub use onnx::{Opinion, Runtime, Teacher};
pub use package::PackageTeacher;

use peregrine_core::BoundingBox;
use peregrine_vision::decode::head::sigmoid;

/// An object as a teacher sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftBox {
    /// Pixels of the source image.
    pub bbox: BoundingBox,
    /// One for each of the student's classes, at a temperature of 1; [`UNKNOWN`] for those that the teacher does not know.
    pub logits: Vec<f32>,
}

/// In place of the logit of a class of which the teacher cannot say whether the object is one.
pub const UNKNOWN: f32 = f32::NEG_INFINITY;

impl SoftBox {
    /// The best class and its logit.
    pub fn best(&self) -> (usize, f32) {
        let pick =
            |best: (usize, f32), (class, &logit): (usize, &f32)| if logit > best.1 { (class, logit) } else { best };
        self.logits.iter().enumerate().fold((0, f32::NEG_INFINITY), pick)
    }

    /// The best class's probability.
    pub fn score(&self) -> f32 {
        sigmoid(self.best().1)
    }
}
