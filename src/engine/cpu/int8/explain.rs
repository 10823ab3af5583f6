//! A human-readable report of a stage of the integer engine.

use super::super::explain::StepReport;
use super::convolution::ConvolutionOutput;
use super::stage::{IntegerAction, IntegerStage};
use crate::Shape;

impl IntegerStage {
    /// Its one step.
    pub fn report(&self) -> StepReport {
        // What it makes, the bytes of that and of what it reads, and how.
        let (shape, bytes, kernel): (Shape, usize, String) = match &self.action {
            IntegerAction::QuantizeInput(_, view, _) => (view.shape, 5 * view.shape.len(), "f32 to int8".into()),
            IntegerAction::Convolution(c) => {
                let (input, weights) = (c.input().shape.len(), c.weight_bytes());
                let output = match c.output() {
                    ConvolutionOutput::Bytes(view) => view.shape.len(),
                    ConvolutionOutput::Floats { shape, .. } => 4 * shape.len(),
                };
                (c.output().shape(), input + weights + output, c.describe())
            }
            IntegerAction::Sum(_, view) => (view.shape, 3 * view.shape.len(), "sum of 2, int8".into()),
            IntegerAction::Upsample(from, view) => {
                (view.shape, from.shape.len() + view.shape.len(), "upsampling, int8".into())
            }
            IntegerAction::Plain(action, from, view) => {
                (view.shape, from.shape.len() + view.shape.len(), action.describe())
            }
            IntegerAction::Copy(parts, view) => {
                (view.shape, 2 * view.shape.len(), format!("{} parts copied, int8", parts.len()))
            }
            IntegerAction::ToFloats(_, _, view) => (view.shape, 5 * view.shape.len(), "int8 to f32".into()),
            IntegerAction::ToBytes(_, _, view) => (view.shape, 5 * view.shape.len(), "f32 to int8".into()),
            IntegerAction::Unpack(view, ..) => (view.shape, 5 * view.shape.len(), "int8 to planar f32".into()),
            IntegerAction::Float(stage) => {
                let report = StepReport::new(&stage.steps[0]);
                return StepReport { kernel: format!("{}, f32", report.kernel), ..report };
            }
        };
        StepReport {
            name: self.name.clone(),
            shape: [shape.channels, shape.height, shape.width],
            flops: self.flops,
            bytes,
            kernel,
            rows_at_a_time: None,
        }
    }
}
