//! What a teacher's tensors mean: a small TOML file beside, or instead of, knowledge in code.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{ensure, Context};
use serde::Deserialize;

/// The layout of a teacher's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Outputs: heat map `[1, h, w, classes]` of probabilities, then distances `[1, h, w, 4]` to left, top, right, bottom
    /// in input pixels (Zhou et al. 2019, "Objects as Points").
    Centernet,
    /// Outputs for each stride, finest first: probabilities `[1, cells, classes]`, then side logits `[1, cells, 4·bins]`
    /// (generalized focal loss, Li et al. 2020).
    Gfl,
}

/// Where a channel lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    Nchw,
    Nhwc,
}

/// Order of colours in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    Rgb,
    Bgr,
}

/// A teacher's description.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub name: String,
    pub family: Family,
    /// Name of the input tensor.
    pub input: String,
    /// Side of the square input in pixels; the image is stretched to it.
    pub size: u32,
    pub layout: Layout,
    pub colours: Colours,
    /// In the input's colour order, of values 0…255.
    pub mean: [f32; 3],
    pub std: [f32; 3],
    /// Names of the output tensors, in the family's order.
    pub outputs: Vec<String>,
    /// Input pixels for one cell, for each level.
    pub strides: Vec<usize>,
    /// Where in its cell a box is centred: 0 at the corner, 0.5 in the middle.
    pub center: f32,
    /// For each of the student's classes the teacher's classes that mean it.
    pub classes: BTreeMap<String, Vec<usize>>,
}

impl Description {
    /// Reads and checks a description.
    ///
    /// # Errors
    /// Names the file, and the field at fault.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let description: Self = toml::from_str(text)?;
        ensure!((32..=4096).contains(&description.size), "size must be 32 to 4096");
        ensure!(description.std.iter().all(|&s| s > 0.0), "std must be above 0");
        ensure!(
            !description.strides.is_empty() && description.outputs.len() == 2 * description.strides.len(),
            "outputs must name two tensors for each of strides"
        );
        ensure!(description.strides.iter().all(|&s| s > 0), "strides must be above 0");
        ensure!(!description.classes.is_empty(), "classes must map at least one of the student's classes");
        Ok(description)
    }

    /// The teacher's classes for each of the student's, in the student's order; empty where the teacher knows none.
    pub fn groups(&self, student: &[String]) -> Vec<Vec<usize>> {
        student.iter().map(|class| self.classes.get(class).cloned().unwrap_or_default()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shipped_descriptions_are_sound_and_know_every_class_of_the_default_student() {
        let classes = crate::student::Architecture::default_student().detection.classes;
        for text in [
            include_str!("../../../models/teachers/centernet_mb3_512.toml"),
            include_str!("../../../models/teachers/nanodet_416.toml"),
        ] {
            let description = Description::parse(text).unwrap();
            assert!(description.groups(&classes).iter().all(|group| !group.is_empty()));
        }
    }
}
