//! Localization distillation (Zheng et al. 2022, eq. 5, with its valuable region).

use serde::{Deserialize, Serialize};

use super::super::inputs::{DistillInputs, Tensors};
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

/// `T² · KL` between the box distributions, averaged over sides, and over cells weighted by the
/// teacher's best class probability. Cells below `min_score` do not count: without an object, the
/// teacher's boxes mean nothing. (The paper selects the region by an IoU with the labels instead,
/// which needs labels.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ld {
    #[serde(default = "temperature")]
    pub temperature: Schedule,
    #[serde(default = "min_score")]
    pub min_score: f32,
}

fn temperature() -> Schedule {
    Schedule::Constant(2.0)
}

fn min_score() -> f32 {
    0.05
}

impl Ld {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(0.0..1.0).contains(&self.min_score) {
            return Err("min_score must be 0 or above, and below 1".into());
        }
        self.temperature.check("temperature", 0.05, 100.0)
    }
}

impl Method for Ld {
    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let temperature = self.temperature.at(inputs.progress);
        localisation(&inputs.student.box_distribution, &inputs.teacher, temperature, self.min_score, &inputs.ranks)
    }
}

/// Below the score of any row that counts: without one the loss is zero.
const TINY: f64 = 1e-12;

/// The loss of the `student`'s box distribution logits `[rows, 4·bins]`, by the rows that count on all
/// `ranks`; see [`Ld`].
pub(super) fn localisation(
    student: &Tensor,
    teacher: &Tensors,
    temperature: f64,
    min_score: f32,
    ranks: &Ranks,
) -> Result<Tensor> {
    let scores = teacher.class.sigmoid()?.max(1)?.detach();
    let weight = (&scores * scores.above(f64::from(min_score))?)?;
    let total = ranks.sum_tensor(&weight.sum_all()?)?.at_least(TINY)?;
    let bins = student.dim(1)? / 4;
    let sides = |logits: &Tensor| logits.rows_of(bins);
    let divergence =
        soft::categorical(&sides(student)?, &sides(&teacher.box_distribution)?, temperature)?.rows_of(4)?;
    (divergence.mean(1)? * weight)?.sum_all()? / total
}
