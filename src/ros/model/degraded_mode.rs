//! The degraded mode: what a frame is spared so that deadlines are kept.

use peregrine_pipeline::PipelineOptions;
use peregrine_student::architecture::{Architecture, MAX_STRIDE};

/// What the degraded mode leaves out, by the parameter `degraded_mode`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DegradedMode {
    /// The segmentation.
    pub segmentation: bool,
    /// Half of the input's pixels.
    pub resolution: bool,
}

impl DegradedMode {
    /// Of a value of the parameter.
    pub fn of(value: &str) -> Self {
        Self {
            segmentation: matches!(value, "no_segmentation" | "both"),
            resolution: matches!(value, "smaller_input" | "both"),
        }
    }

    /// The options of the degraded mode of a pipeline of `architecture` with an input of `size`
    /// pixels (width, height), and what they leave out; `None` if that is nothing.
    pub fn reduce(
        &self,
        options: &PipelineOptions,
        size: (usize, usize),
        architecture: &Architecture,
    ) -> Option<(PipelineOptions, String)> {
        let mut reduced = options.clone();
        let mut left_out = Vec::new();
        let others = architecture.detects() || architecture.scene.is_some();
        if self.segmentation && options.segmentation && others && architecture.segmentation.is_some() {
            reduced.segmentation = false;
            left_out.push("without segmentation".to_owned());
        }
        // About half the operations: each side times the square root of a half, in whole strides.
        let shrink =
            |side: usize| ((side as f64 * 0.5f64.sqrt() / MAX_STRIDE as f64).round() as usize).max(1) * MAX_STRIDE;
        let smaller = (shrink(size.0), shrink(size.1));
        if self.resolution && smaller != size && architecture.try_graph(smaller.0, smaller.1).is_ok() {
            reduced.input_size = Some(smaller);
            left_out.push(format!("input {}x{} instead of {}x{}", smaller.0, smaller.1, size.0, size.1));
        }
        (!left_out.is_empty()).then(|| (reduced, left_out.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn student() -> Architecture {
        Architecture::default_student()
    }

    #[test]
    fn the_degraded_mode_says_what_it_leaves_out() {
        let (reduced, left_out) =
            DegradedMode::of("both").reduce(&PipelineOptions::default(), (320, 256), &student()).unwrap();
        assert_eq!((reduced.segmentation, reduced.input_size), (false, Some((224, 192))));
        assert_eq!(left_out, "without segmentation, input 224x192 instead of 320x256");
    }

    #[test]
    fn there_is_no_degraded_mode_that_leaves_out_nothing() {
        let options = PipelineOptions { segmentation: false, ..PipelineOptions::default() };
        assert_eq!(DegradedMode::of("no_segmentation").reduce(&options, (320, 256), &student()), None);
        assert_eq!(DegradedMode::of("smaller_input").reduce(&options, (32, 32), &student()), None);
        assert_eq!(DegradedMode::of("none").reduce(&PipelineOptions::default(), (320, 256), &student()), None);
    }

    #[test]
    fn a_student_with_one_head_keeps_it() {
        for one in [Architecture { segmentation: None, ..student() }, Architecture { detection: None, ..student() }] {
            let reduce = |mode: &str| DegradedMode::of(mode).reduce(&PipelineOptions::default(), (320, 256), &one);
            assert_eq!(reduce("no_segmentation"), None);
            assert!(reduce("both").unwrap().0.segmentation);
        }
    }
}
