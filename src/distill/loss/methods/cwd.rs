//! Channel-wise knowledge distillation, CWD (Shu et al. 2021, eq. 2 to 4).

use candle_core::{Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;

/// `T²/C · Σ_c KL(φ(teacher_c) ‖ φ(student_c))`, averaged over images: φ is the softmax of a channel over its pixels at
/// temperature T, so that a channel says *where*. On the segmentation logits, there over the cells that the teacher sees and
/// the images that have some, or on the `layers` named, summed.
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

    fn loss(&self, scene: &Scene) -> Result<Tensor> {
        let t = self.temperature.at(scene.progress);
        let channels = |student: &Tensor, teacher: &Tensor| {
            let rows = |maps: &Tensor| maps.flatten(0, 1)?.contiguous()?.flatten_from(1);
            soft::categorical(&rows(student)?, &rows(teacher)?, t)?.mean_all()
        };
        if self.layers.is_empty() {
            let Some((student, teacher)) = seen(scene)? else {
                return super::zero();
            };
            return channels(&student, &teacher);
        }
        super::sum_over_layers(scene, &self.layers, |student, teacher, _| channels(student, teacher))
    }
}

/// Far below any logit at any temperature.
const NOWHERE: f32 = -1e5;

/// Both segmentation maps of the images of which the teacher sees something, with what it does not see moved out of every
/// softmax; `None` where it sees nothing at all.
fn seen(scene: &Scene) -> Result<Option<(Tensor, Tensor)>> {
    let (student, teacher) = (&scene.student.segmentation, &scene.teacher.segmentation);
    if scene.teacher_sees.iter().all(|&sees| sees) {
        return Ok(Some((student.clone(), teacher.clone())));
    }
    let cells = student.dim(2)?;
    let images = scene.teacher_sees.chunks(cells).enumerate().filter(|(_, image)| image.contains(&true));
    let (images, sees): (Vec<u32>, Vec<&[bool]>) = images.map(|(i, image)| (i as u32, image)).unzip();
    if images.is_empty() {
        return Ok(None);
    }
    let offsets = sees.concat().into_iter().map(|sees| if sees { 0.0 } else { NOWHERE });
    let offsets = Tensor::from_iter(offsets, &Device::Cpu)?.reshape((images.len(), 1, cells))?;
    let images = Tensor::new(images, &Device::Cpu)?;
    let part = |maps: &Tensor| maps.index_select(&images, 0)?.broadcast_add(&offsets);
    Ok(Some((part(student)?, part(teacher)?)))
}
