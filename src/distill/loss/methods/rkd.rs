//! Relational knowledge distillation (Park et al. 2019, eq. 4 to 9).

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, zero, Method};

/// `distance · L_D + angle · L_A` over the batch's images, each image's embedding being a layer's
/// mean over pixels. L_D compares pairs' distances relative to their mean, L_A the cosines of
/// triplets' angles, both by Huber's loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rkd {
    #[serde(default = "pyramid")]
    pub layers: Vec<String>,
    #[serde(default = "unit")]
    pub distance: f64,
    #[serde(default = "two")]
    pub angle: f64,
}

fn unit() -> f64 {
    1.0
}

fn two() -> f64 {
    2.0
}

/// Below the roots, so that an image's distance to itself has a finite derivative.
const EPSILON: f64 = 1e-12;

impl Method for Rkd {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn needs_equal_width(&self) -> bool {
        false
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let ranks = &inputs.ranks;
        let loss = sum_over_layers(inputs, &self.layers, |student, teacher, valid| {
            let means = |layer: &Tensor| ranks.gather_images(&layer.flatten(2, 3)?.mean(2)?);
            let (student, teacher) = (means(student)?, means(teacher)?);
            let valid = valid.map(|valid| ranks.gather_flags(valid));
            let Some(embed) = Embed::new(student.dim(0)?, valid.as_deref())? else { return zero() };
            let (student, teacher) = (relations(&embed.of(&student)?)?, relations(&embed.of(&teacher)?)?);
            let distance = huber(&student.0, &teacher.0)?.mean_all()?;
            let angle = huber(&student.1, &teacher.1)?.mean_all()?;
            (distance * self.distance)? + (angle * self.angle)?
        })?;
        ranks.once(loss)
    }
}

/// The embedding of a layer: of the images with valid pixels, each the mean over those.
struct Embed {
    images: Tensor,
    /// For each of them the number of all pixels over that of the valid ones, `[images, 1]`.
    share: Tensor,
}

impl Embed {
    /// `None` if fewer than two of the `images` have valid pixels, which have no relations.
    fn new(images: usize, valid: Option<&[bool]>) -> Result<Option<Self>> {
        let Some(valid) = valid else {
            let (all, share) = (Tensor::arange(0, images as u32, &Device::Cpu)?, (images, 1));
            return Ok(Some(Self { images: all, share: Tensor::ones(share, DType::F32, &Device::Cpu)? }));
        };
        let count = |image: &[bool]| image.iter().filter(|&&valid| valid).count();
        let counts = valid.chunks(valid.len() / images).map(|image| (count(image), image.len())).enumerate();
        let counts = counts.filter(|(_, (valid, _))| *valid > 0);
        let (images, share): (Vec<u32>, Vec<f32>) =
            counts.map(|(i, (valid, all))| (i as u32, all as f32 / valid as f32)).unzip();
        let count = images.len();
        if count < 2 {
            return Ok(None);
        }
        let share = Tensor::from_vec(share, (count, 1), &Device::Cpu)?;
        Ok(Some(Self { images: Tensor::new(images, &Device::Cpu)?, share }))
    }

    /// From a layer's `means` over all pixels, `[images, channels]`.
    fn of(&self, means: &Tensor) -> Result<Tensor> {
        means.index_select(&self.images, 0)?.broadcast_mul(&self.share)
    }
}

/// Relative distances `[images, images]`, and cosines `[images, images, images]` of the angle at
/// the first.
fn relations(embedding: &Tensor) -> Result<(Tensor, Tensor)> {
    let images = embedding.dim(0)?;
    let towards = embedding.unsqueeze(0)?.broadcast_sub(&embedding.unsqueeze(1)?)?;
    let distance = (towards.sqr()?.sum(2)? + EPSILON)?.sqrt()?;
    let pairs = (images * (images - 1)).max(1) as f64;
    let mean = (distance.sum_all()? / pairs)?;
    let unit = towards.broadcast_div(&distance.unsqueeze(2)?)?;
    let cosine = unit.matmul(&unit.transpose(1, 2)?.contiguous()?)?;
    Ok((distance.broadcast_div(&mean)?, cosine))
}

/// ½d² up to |d| = 1, then |d| − ½.
fn huber(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let gap = (a - b)?.abs()?;
    let small = gap.minimum(1.0)?;
    (small.sqr()? * 0.5)? + (gap - small)?
}
