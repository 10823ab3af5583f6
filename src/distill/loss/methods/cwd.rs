//! Channel-wise knowledge distillation, CWD (Shu et al. 2021, eq. 2 to 4).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;
use crate::tensor::{Result, Tensor};

/// `T²/C · Σ_c KL(φ(teacher_c) ‖ φ(student_c))`, averaged over images: φ is the softmax of a
/// channel over its pixels at temperature T, so that a channel is a distribution over places. On
/// the segmentation logits, over the valid cells of the images that have some; or on `layers`,
/// summed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cwd {
    #[serde(default)]
    pub layers: Vec<String>,
    #[serde(default = "temperature")]
    pub temperature: Schedule,
}

fn temperature() -> Schedule {
    Schedule::Constant(4.0)
}

impl Method for Cwd {
    fn layers(&self) -> Vec<String> {
        self.layers.clone()
    }

    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let t = self.temperature.at(inputs.progress);
        // Of each image and channel.
        let channels = |student: &Tensor, teacher: &Tensor| {
            let rows = |maps: &Tensor| maps.flatten(0, 1)?.flatten_from(1);
            soft::categorical(&rows(student)?, &rows(teacher)?, t)
        };
        if self.layers.is_empty() {
            let maps = ValidMaps::new(inputs)?;
            let all = inputs.ranks.total(maps.images);
            if maps.images == 0.0 {
                return super::zero();
            }
            let of_channels = channels(&maps.student, &maps.teacher)?.rows_of(maps.student.dim(1)?)?;
            return of_channels.mean_keepdim(1)?.broadcast_mul(&maps.counted)?.sum_all()? / all;
        }
        // By the share of this rank's images of those of all.
        let share = inputs.ranks.share();
        super::sum_over_layers(inputs, &self.layers, |student, teacher, _| {
            channels(student, teacher)?.mean_all()? * share
        })
    }
}

/// Added to the logits of cells that are not valid: far below any logit at any temperature.
const EXCLUDED: f32 = -1e5;

/// The segmentation logits, with the cells that are not valid excluded from every softmax.
struct ValidMaps {
    student: Tensor,
    teacher: Tensor,
    /// `[images, 1]`: 1 for those that have a valid cell, else 0.
    counted: Tensor,
    /// The number of those.
    images: f64,
}

impl ValidMaps {
    fn new(inputs: &DistillInputs) -> Result<Self> {
        let (student, teacher) = (&inputs.student.segmentation, &inputs.teacher.segmentation);
        let (images, _, cells) = student.dims3()?;
        let counts = inputs.mask_valid.chunks(cells).map(|image| image.contains(&true));
        let counted: Vec<f32> = counts.map(|counts| f32::from(u8::from(counts))).collect();
        let of_images = counted.iter().map(|&counts| f64::from(counts)).sum();
        // An image that does not count keeps its logits: all of them excluded would be no softmax.
        let offset =
            |(cell, &valid): (usize, &bool)| if valid || counted[cell / cells] == 0.0 { 0.0 } else { EXCLUDED };
        let offsets = Tensor::vector(inputs.mask_valid.iter().enumerate().map(offset))?;
        let offsets = offsets.reshape(&[images, 1, cells])?;
        Ok(Self {
            student: student.broadcast_add(&offsets)?,
            teacher: teacher.broadcast_add(&offsets)?,
            counted: Tensor::from_vec(counted, &[images, 1])?,
            images: of_images,
        })
    }
}
