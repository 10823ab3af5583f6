//! Channel-wise knowledge distillation, CWD (Shu et al. 2021, eq. 2 to 4).

use candle_core::{Result, Tensor};
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;

/// `T²/C · Σ_c KL(φ(teacher_c) ‖ φ(student_c))`, averaged over images: φ is the softmax of a channel over its pixels at
/// temperature T, so that a channel says *where*. On the segmentation logits, or on the `layers` named, summed.
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
            return channels(&scene.student.segmentation, &scene.teacher.segmentation);
        }
        super::sum_over_layers(scene, &self.layers, channels)
    }
}
