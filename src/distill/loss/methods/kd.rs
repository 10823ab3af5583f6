//! Knowledge distillation (Hinton, Vinyals & Dean 2015, section 2): `T² · KL(teacher/T ‖
//! student/T)`.

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::super::soft;
use super::outputs::{cells, Head};
use super::{sum_over_rows, Method};
use crate::data::VOID;
use crate::defaults::is_default;
use crate::ranks::Ranks;
use crate::tensor::{Result, Tensor};

/// On the segmentation head (per-pixel KD: Liu et al. 2019, "Structured Knowledge Distillation",
/// eq. 2): the mean over all valid cells, labelled or not. With `labelled`, only over those that
/// have a label, so that the teacher is not used on images of another kind than those with masks.
/// With `balanced`, each cell is weighted by the teacher's probabilities: `Σ_c p_c · w_c`, `w_c = 1
/// / ln(1.02 + share of c)` (the weights of the task loss: Paszke et al. 2016, section 5.1; shares
/// are those of the teacher's probabilities over the same cells), because the mean otherwise
/// favours the large classes, whereas mIoU counts each class equally.
///
/// On the scene head, or one group of it (`on = "scene.light"`): the mean over the images whose scene
/// the teacher knows, summed over the groups (Hinton et al. 2015, section 2).
///
/// On the detection head, whose classes are independent: the sum of the Bernoulli divergences of
/// each cell and class, divided by the teacher's foreground Σ max_c σ(teacher). With `focus` β
/// above 0 each is weighted by `|σ(teacher) − σ(student)|^β`, as in quality focal loss (Li et al.
/// 2020, eq. 3), so that the thousands of empty cells on which both agree do not dominate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kd {
    pub on: Head,
    #[serde(default = "temperature")]
    pub temperature: Schedule,
    /// β, 0 to 4, for the detection head.
    #[serde(default)]
    pub focus: f64,
    /// For the segmentation head: only cells that have a label.
    #[serde(default, skip_serializing_if = "is_default")]
    pub labelled: bool,
    /// For the segmentation head: larger weights for rare classes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balanced: bool,
}

fn temperature() -> Schedule {
    Schedule::Constant(1.0)
}

impl Kd {
    /// On the detection head.
    pub(super) fn of_classes(temperature: Schedule, focus: f64) -> Self {
        Self { on: Head::Class, temperature, focus, labelled: false, balanced: false }
    }

    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(0.0..=4.0).contains(&self.focus) {
            return Err("focus must lie between 0 and 4".into());
        }
        if self.on != Head::Segmentation && (self.labelled || self.balanced) {
            return Err("labelled and balanced are for on = \"segmentation\"".into());
        }
        self.temperature.check("temperature", 0.05, 100.0)
    }
}

impl Method for Kd {
    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let temperature = self.temperature.at(inputs.progress);
        match &self.on {
            Head::Segmentation => {
                let (student, teacher) = (cells(&inputs.student.segmentation)?, cells(&inputs.teacher.segmentation)?);
                let loss = soft::categorical(&student, &teacher, temperature)?;
                let counts = |(&valid, &label): (&bool, &u8)| f32::from(valid && (!self.labelled || label != VOID));
                let counted = inputs.mask_valid.iter().zip(&inputs.mask).map(counts);
                let counted = Tensor::vector(counted)?;
                let weight =
                    if self.balanced { (rarity(&teacher, &counted, &inputs.ranks)? * counted)? } else { counted };
                // Without a cell that counts: zero, with a zero gradient.
                let total = inputs.ranks.sum_tensor(&weight.sum_all()?)?.at_least(1e-6)?;
                (loss * weight)?.sum_all()? / total
            }
            Head::Scene(_) => sum_over_rows(inputs, &self.on, |rows| {
                rows.mean(&soft::categorical(&rows.student, &rows.teacher, temperature)?)
            }),
            Head::Class => {
                focused(&inputs.student.class, &inputs.teacher.class, temperature, self.focus, &inputs.ranks)
            }
        }
    }
}

/// The weight of each cell by the rarity of the teacher's classes there; shares are taken over the
/// cells `counted` of all `ranks`. See [`Kd`].
fn rarity(teacher: &Tensor, counted: &Tensor, ranks: &Ranks) -> Result<Tensor> {
    let probability = teacher.softmax()?.detach();
    let total = ranks.sum_tensor(&counted.sum_all()?)?.at_least(1.0)?;
    let share = probability.broadcast_mul(&counted.unsqueeze(1)?)?.sum(0)?;
    let share = ranks.sum_tensor(&share)?.broadcast_div(&total)?;
    let weight = (share + 1.02)?.log()?.recip()?;
    probability.broadcast_mul(&weight)?.sum(1)
}

/// Σ |σ(teacher) − σ(student)|^focus · T² · KL over cells and classes, divided by the teacher's
/// foreground on all `ranks`; see [`Kd`].
pub(super) fn focused(
    student: &Tensor,
    teacher: &Tensor,
    temperature: f64,
    focus: f64,
    ranks: &Ranks,
) -> Result<Tensor> {
    let mut terms = soft::bernoulli_terms(student, teacher, temperature)?;
    let probability = teacher.sigmoid()?;
    if focus > 0.0 {
        // The offset keeps the power's derivative finite where the two agree.
        let gap = ((&probability - student.sigmoid()?)?.abs()? + 1e-6)?;
        terms = (terms * gap.powf(focus)?)?;
    }
    let foreground = ranks.sum_tensor(&probability.max(1)?.sum_all()?)?.at_least(1.0)?;
    (terms.sum_all()? * (temperature * temperature))? / foreground
}
