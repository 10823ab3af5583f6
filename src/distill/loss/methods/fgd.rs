//! Focal distillation, the local part of FGD (Yang et al. 2022, eq. 1 to 9): with separate weights
//! for objects and background.

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, Method};
use crate::tensor::{Result, Tensor};

/// `foreground · Σ_fg S·A^S·A^C·(T − S)² + background · Σ_bg … + attention · (|A^S_T − A^S_S| +
/// |A^C_T − A^C_S|)`, by images, summed over layers. S is one over an object's area (the smallest
/// that covers a pixel), or over the number of background pixels; A^S = HW·softmax(mean_c |F| / T)
/// and A^C = C·softmax(mean_hw |F| / T) are the teacher's attention. At pixels that are not valid
/// both tensors are zero; they still count in a softmax and in the background. The paper's global
/// part (GcBlock) is not implemented.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fgd {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
    /// α in the paper.
    #[serde(default = "thousandth")]
    pub foreground: f64,
    /// β in the paper.
    #[serde(default = "half_thousandth")]
    pub background: f64,
    /// γ in the paper.
    #[serde(default = "half_thousandth")]
    pub attention: f64,
    #[serde(default = "half")]
    pub temperature: f64,
}

fn thousandth() -> f64 {
    1e-3
}

fn half_thousandth() -> f64 {
    5e-4
}

fn half() -> f64 {
    0.5
}

impl Fgd {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        let positive = self.temperature > 0.0 && self.temperature.is_finite();
        positive.then_some(()).ok_or_else(|| "temperature must be above 0".into())
    }

    /// The foreground's and the background's weight of each image and pixel, `[images, 1, height,
    /// width]`.
    fn masks(inputs: &DistillInputs, (height, width): (usize, usize)) -> Result<(Tensor, Tensor)> {
        let images = inputs.boxes.len();
        let (mut foreground, mut background) = (Vec::new(), Vec::new());
        let cell = (inputs.input.0 as f32 / width as f32, inputs.input.1 as f32 / height as f32);
        for boxes in &inputs.boxes {
            let mut scale = vec![0.0f32; height * width];
            for bbox in boxes {
                let columns =
                    (bbox.x_min / cell.0).floor() as usize..((bbox.x_max / cell.0).ceil() as usize).min(width);
                let rows = (bbox.y_min / cell.1).floor() as usize..((bbox.y_max / cell.1).ceil() as usize).min(height);
                let weight = 1.0 / (columns.len() * rows.len()).max(1) as f32;
                for y in rows {
                    for x in columns.clone() {
                        let at = &mut scale[y * width + x];
                        *at = at.max(weight);
                    }
                }
            }
            let empty = scale.iter().filter(|&&s| s == 0.0).count().max(1) as f32;
            background.extend(scale.iter().map(|&s| if s == 0.0 { 1.0 / empty } else { 0.0 }));
            foreground.extend(scale);
        }
        let tensor = |v| Tensor::from_vec(v, &[images, 1, height, width]);
        Ok((tensor(foreground)?, tensor(background)?))
    }

    /// A^S `[images, 1, height, width]` and A^C `[images, channels, 1, 1]`.
    fn attention(&self, layer: &Tensor) -> Result<(Tensor, Tensor)> {
        let (images, channels, height, width) = layer.dims4()?;
        let size = layer.abs()?.flatten(2, 3)?;
        let space = ((size.mean(1)? / self.temperature)?.softmax()? * (height * width) as f64)?;
        let channel = ((size.mean(2)? / self.temperature)?.softmax()? * channels as f64)?;
        Ok((space.reshape(&[images, 1, height, width])?, channel.reshape(&[images, channels, 1, 1])?))
    }
}

impl Method for Fgd {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        sum_over_layers(inputs, &self.layers, |student, teacher, _| {
            let (images, _, height, width) = student.dims4()?;
            let (foreground, background) = Self::masks(inputs, (height, width))?;
            let (space, channel) = self.attention(teacher)?;
            let (student_space, student_channel) = self.attention(student)?;
            let weight = ((foreground * self.foreground)? + (background * self.background)?)?;
            let weight = (weight * &space)?.broadcast_mul(&channel)?;
            let features = ((student - teacher)?.sqr()? * weight)?.sum_all()?;
            let gap = |a: Tensor, b: Tensor| (a - b)?.abs()?.sum_all();
            let attention = (gap(student_space, space)? + gap(student_channel, channel)?)?;
            (features + (attention * self.attention)?)? * (inputs.ranks.share() / images as f64)
        })
    }
}
