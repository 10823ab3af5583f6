//! Teachers: large networks in ONNX, run by ONNX Runtime, and Peregrine packages; their outputs are
//! mapped to the student's classes.
//!
//! - [`description`]: the TOML that describes a teacher's tensors; [`input_size`]: a part of it;
//!   [`plausible`]: whether it fits the tensors' values.
//! - [`onnx`]: loading ONNX Runtime and running one image; `network_input`: its tensors;
//!   `external`: the files that a network loads.
//! - [`placement`]: the place of an image in a teacher's input.
//! - [`detect`], [`queries`]: from a detector's outputs to candidates; [`candidates`]: what becomes
//!   of them; [`logits`]: classifiers and segmenters.
//! - [`feature`]: inner tensors for the student to learn from.
//! - [`package`]: a Peregrine student as a teacher; [`device`]: the CPU or CUDA.
//! - [`ensemble`]: the fusion of several teachers' objects.

pub mod candidates;
pub mod description;
pub mod detect;
pub mod device;
pub mod ensemble;
pub(crate) mod external;
pub mod feature;
pub mod input_size;
pub mod logits;
mod network_input;
pub mod onnx;
pub mod package;
pub mod placement;
pub mod plausible;
pub mod queries;

pub use description::TeacherDescription;
pub use device::{Compute, TeacherDevice};
pub use feature::Feature;
pub use logits::SoftMask;
pub use onnx::{Judged, OnnxTeacher, Prediction, Runtime};
pub use package::{PackageTeacher, Wanted};

use peregrine_core::BoundingBox;
use peregrine_vision::decode::head::sigmoid;

/// A soft target: an object that a teacher detected, with its class logits.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftTarget {
    /// Pixels of the source image.
    pub bbox: BoundingBox,
    /// One for each of the student's classes, at a temperature of 1; [`UNKNOWN`] for the classes
    /// that the teacher does not know.
    pub logits: Vec<f32>,
}

/// The logit of a class that the teacher does not know.
pub const UNKNOWN: f32 = f32::NEG_INFINITY;

impl SoftTarget {
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
