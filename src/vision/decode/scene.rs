//! The scene head's logits to probabilities.

use std::ops::Range;

use peregrine_student::Architecture;

/// Decodes the outputs of an [`Architecture`]'s scene head: the softmax over each group's classes.
#[derive(Debug, Clone)]
pub struct SceneDecoder {
    /// Indices among the graph's outputs, one a group.
    outputs: Range<usize>,
    classes: usize,
}

impl SceneDecoder {
    pub fn new(architecture: &Architecture) -> Self {
        let classes = architecture.scene.as_ref().map_or(0, |head| head.0.values().map(Vec::len).sum());
        Self { outputs: architecture.scene_outputs(), classes }
    }

    /// Number of classes of all groups: capacity that lets [`decode`](Self::decode) fill a vector
    /// without allocation.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Replaces `probabilities` by those of each class, group by group; `output` gives the graph's
    /// outputs by index. A group with a logit that is not finite has no probability: all are 0.
    pub fn decode<'a>(&self, output: impl Fn(usize) -> &'a [f32], probabilities: &mut Vec<f32>) {
        probabilities.clear();
        for index in self.outputs.clone() {
            let first = probabilities.len();
            probabilities.extend_from_slice(output(index));
            softmax(&mut probabilities[first..]);
        }
    }
}

/// Logits to probabilities, in place; zeros if one is not finite.
pub fn softmax(values: &mut [f32]) {
    if values.iter().any(|v| !v.is_finite()) {
        return values.fill(0.0);
    }
    let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter_mut().for_each(|v| *v = (*v - largest).exp());
    let sum: f32 = values.iter().sum();
    values.iter_mut().for_each(|v| *v /= sum);
}

#[cfg(test)]
mod tests {
    use peregrine_student::StudentShape;

    use super::*;

    #[test]
    fn each_group_is_a_distribution_of_its_own() {
        let shape: StudentShape =
            serde_json::from_str(r#"{"scene": {"light": ["day", "night"], "weather": ["dry", "rain", "snow"]}}"#)
                .unwrap();
        let decoder = SceneDecoder::new(&shape.architecture(None).unwrap());
        let decode = |outputs: [&[f32]; 2]| {
            let mut found = Vec::with_capacity(decoder.classes());
            decoder.decode(|index| outputs[index], &mut found);
            found
        };
        // e^0 : e^ln3 is 1 : 3; equal logits, however large, are equally probable.
        let found = decode([&[0.0, 3.0f32.ln()], &[900.0, 900.0, -900.0]]);
        let expected = [0.25, 0.75, 0.5, 0.5, 0.0];
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}");
        assert_eq!(decode([&[f32::NAN, 0.0], &[0.0, 0.0, f32::INFINITY]]), [0.0; 5]);
    }
}
