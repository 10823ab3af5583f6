//! Localization distillation (Zheng et al. 2022, eq. 5, with its valuable region).

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops::sigmoid;
use serde::{Deserialize, Serialize};

use super::super::inputs::{DistillInputs, Tensors};
use super::super::schedule::Schedule;
use super::super::soft;
use super::Method;
use crate::ranks::Ranks;

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

/// The loss of the `student`'s box distribution logits `[rows, 4·bins]`, by the rows that count on all
/// `ranks`; see [`Ld`].
pub(super) fn localisation(
    student: &Tensor,
    teacher: &Tensors,
    temperature: f64,
    min_score: f32,
    ranks: &Ranks,
) -> Result<Tensor> {
    let scores = sigmoid(&teacher.class)?.max(1)?.to_vec1::<f32>()?;
    let rows: Vec<(u32, f32)> = (0u32..).zip(scores).filter(|r| r.1 > min_score).collect();
    let total = ranks.total(rows.iter().map(|r| f64::from(r.1)).sum());
    if rows.is_empty() {
        return Tensor::zeros((), DType::F32, &Device::Cpu);
    }
    let index = Tensor::from_iter(rows.iter().map(|r| r.0), &Device::Cpu)?;
    // The weight of each row, once for each of its sides.
    let weight = Tensor::from_iter(rows.iter().flat_map(|r| [r.1; 4]), &Device::Cpu)?;
    let bins = student.dim(1)? / 4;
    let pick = |logits: &Tensor| logits.index_select(&index, 0)?.reshape(((), bins));
    let divergence = soft::categorical(&pick(student)?, &pick(&teacher.box_distribution)?, temperature)?;
    (divergence * weight)?.sum_all()? * (0.25 / total)
}
