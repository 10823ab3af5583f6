//! Relational knowledge distillation (Park et al. 2019, eq. 4 to 9).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::{pyramid, sum_over_layers, zero, Method};
use crate::tensor::{Result, Tensor};

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
            let Some(images) = Images::new(student.dim(0)?, valid.as_deref())? else { return zero() };
            let (student, teacher) = (images.relations(&student)?, images.relations(&teacher)?);
            let distance = images.mean_of_pairs(&huber(&student.0, &teacher.0)?)?;
            let angle = images.mean_of_triples(&huber(&student.1, &teacher.1)?)?;
            (distance * self.distance)? + (angle * self.angle)?
        })?;
        ranks.once(loss)
    }
}

/// The images that are compared: those with valid pixels.
struct Images {
    /// 1 for each of them, else 0; `[images]`.
    counted: Tensor,
    count: f64,
    /// For each of them the number of all pixels over that of the valid ones, else 0; `[images, 1]`.
    share: Tensor,
}

impl Images {
    /// `None` if fewer than two of the `images` have valid pixels, which have no relations.
    fn new(images: usize, valid: Option<&[bool]>) -> Result<Option<Self>> {
        let of_image = |image: &[bool]| match image.iter().filter(|&&valid| valid).count() {
            0 => 0.0,
            valid => image.len() as f32 / valid as f32,
        };
        let share = valid.map(|valid| valid.chunks(valid.len() / images).map(of_image).collect());
        let share: Vec<f32> = share.unwrap_or_else(|| vec![1.0; images]);
        let counted: Vec<f32> = share.iter().map(|&share| f32::from(u8::from(share > 0.0))).collect();
        let count: f64 = counted.iter().map(|&counted| f64::from(counted)).sum();
        if valid.is_some() && count < 2.0 {
            return Ok(None);
        }
        let share = Tensor::from_vec(share, &[images, 1])?;
        Ok(Some(Self { counted: Tensor::vector(counted)?, count, share }))
    }

    /// Zeros for pairs `[images, images]` of which an image does not count.
    fn pairs(&self, of_pairs: &Tensor) -> Result<Tensor> {
        of_pairs.broadcast_mul(&self.counted.unsqueeze(0)?)?.broadcast_mul(&self.counted.unsqueeze(1)?)
    }

    fn mean_of_pairs(&self, of_pairs: &Tensor) -> Result<Tensor> {
        self.pairs(of_pairs)?.sum_all()? / (self.count * self.count)
    }

    /// Over `[images, images, images]`.
    fn mean_of_triples(&self, of_triples: &Tensor) -> Result<Tensor> {
        let of_pairs = of_triples.broadcast_mul(&self.counted.unsqueeze(0)?.unsqueeze(0)?)?.sum(2)?;
        self.mean_of_pairs(&of_pairs)? / self.count
    }

    /// Of a layer's `means` over all pixels, `[images, channels]`: relative distances `[images, images]`,
    /// and cosines `[images, images, images]` of the angle at the first.
    fn relations(&self, means: &Tensor) -> Result<(Tensor, Tensor)> {
        let embedding = means.broadcast_mul(&self.share)?;
        let towards = embedding.unsqueeze(0)?.broadcast_sub(&embedding.unsqueeze(1)?)?;
        let distance = (towards.sqr()?.sum(2)? + EPSILON)?.sqrt()?;
        let mean = (self.pairs(&distance)?.sum_all()? / (self.count * (self.count - 1.0)).max(1.0))?;
        let unit = towards.broadcast_div(&distance.unsqueeze(2)?)?;
        let cosine = unit.matmul(&unit.transpose(1, 2)?)?;
        Ok((distance.broadcast_div(&mean)?, cosine))
    }
}

/// ½d² up to |d| = 1, then |d| − ½.
fn huber(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let gap = (a - b)?.abs()?;
    let small = gap.at_most(1.0)?;
    (small.sqr()? * 0.5)? + (gap - small)?
}
