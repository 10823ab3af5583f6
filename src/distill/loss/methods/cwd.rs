//! Channel-wise knowledge distillation, CWD (Shu et al. 2021, eq. 2 to 4).

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;

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
        // The mean over the channels of this rank's images, and by their share of those of all ranks.
        let channels = |student: &Tensor, teacher: &Tensor, share: f64| {
            let rows = |maps: &Tensor| maps.flatten(0, 1)?.contiguous()?.flatten_from(1);
            soft::categorical(&rows(student)?, &rows(teacher)?, t)?.mean_all()? * share
        };
        if self.layers.is_empty() {
            let maps = valid_maps(inputs)?;
            let images = maps.as_ref().map_or(Ok(0), |(student, _)| student.dim(0))? as f64;
            let all = inputs.ranks.total(images);
            let Some((student, teacher)) = maps else {
                return super::zero();
            };
            return channels(&student, &teacher, images / all);
        }
        let share = inputs.ranks.share();
        super::sum_over_layers(inputs, &self.layers, |student, teacher, _| channels(student, teacher, share))
    }
}

/// Added to the logits of cells that are not valid: far below any logit at any temperature.
const EXCLUDED: f32 = -1e5;

/// The segmentation logits of student and teacher for the images with valid cells, with the other
/// cells excluded from every softmax; `None` if no image has any.
fn valid_maps(inputs: &DistillInputs) -> Result<Option<(Tensor, Tensor)>> {
    let (student, teacher) = (&inputs.student.segmentation, &inputs.teacher.segmentation);
    if inputs.mask_valid.iter().all(|&valid| valid) {
        return Ok(Some((student.clone(), teacher.clone())));
    }
    let cells = student.dim(2)?;
    let images = inputs.mask_valid.chunks(cells).enumerate().filter(|(_, image)| image.contains(&true));
    let (images, valid): (Vec<u32>, Vec<&[bool]>) = images.map(|(i, image)| (i as u32, image)).unzip();
    if images.is_empty() {
        return Ok(None);
    }
    let offsets = valid.concat().into_iter().map(|valid| if valid { 0.0 } else { EXCLUDED });
    let offsets = Tensor::from_iter(offsets, &Device::Cpu)?.reshape((images.len(), 1, cells))?;
    let images = Tensor::new(images, &Device::Cpu)?;
    let part = |maps: &Tensor| maps.index_select(&images, 0)?.broadcast_add(&offsets);
    Ok(Some((part(student)?, part(teacher)?)))
}
