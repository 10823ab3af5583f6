//! Knowledge distillation (Hinton, Vinyals & Dean 2015, section 2): `T² · KL(teacher/T ‖ student/T)`.

use candle_core::{Result, Tensor};
use candle_nn::ops::sigmoid;
use serde::{Deserialize, Serialize};

use super::super::scene::Scene;
use super::super::schedule::Schedule;
use super::super::soft;
use super::outputs::{cells, Head};
use super::Method;

/// On the segmentation head (per-pixel KD: Liu et al. 2019, "Structured Knowledge Distillation", eq. 2): the mean over
/// all cells, labelled or not.
///
/// On the detection head, whose classes are independent: the sum of one Bernoulli divergence for each cell and class,
/// over the teacher's foreground Σ max_c σ(teacher). With `focus` β above 0 each is weighed by
/// `|σ(teacher) − σ(student)|^β`, as quality focal loss weighs its terms (Li et al. 2020, eq. 3), so that the thousands
/// of empty cells on which both agree do not drown the rest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kd {
    pub on: Head,
    #[serde(default = "temperature")]
    pub temperature: Schedule,
    /// β, 0 to 4; for the detection head.
    #[serde(default)]
    pub focus: f64,
}

fn temperature() -> Schedule {
    Schedule::Constant(1.0)
}

impl Kd {
    pub(super) fn check(&self) -> std::result::Result<(), String> {
        if !(0.0..=4.0).contains(&self.focus) {
            return Err("focus must lie between 0 and 4".into());
        }
        self.temperature.check("temperature", 0.05, 100.0)
    }
}

impl Method for Kd {
    fn loss(&self, scene: &Scene) -> Result<Tensor> {
        let temperature = self.temperature.at(scene.progress);
        match self.on {
            Head::Segmentation => {
                let (student, teacher) = (cells(&scene.student.segmentation)?, cells(&scene.teacher.segmentation)?);
                soft::categorical(&student, &teacher, temperature)?.mean_all()
            }
            Head::Class => focused(&scene.student.class, &scene.teacher.class, temperature, self.focus),
        }
    }
}

/// Σ |σ(teacher) − σ(student)|^focus · T² · KL over cells and classes, by the teacher's foreground; see [`Kd`].
pub(super) fn focused(student: &Tensor, teacher: &Tensor, temperature: f64, focus: f64) -> Result<Tensor> {
    let mut terms = soft::bernoulli_terms(student, teacher, temperature)?;
    let probability = sigmoid(teacher)?;
    if focus > 0.0 {
        // The offset keeps the power's derivative finite where the two agree.
        let gap = ((&probability - sigmoid(student)?)?.abs()? + 1e-6)?;
        terms = (terms * gap.powf(focus)?)?;
    }
    let foreground = f64::from(probability.max(1)?.sum_all()?.to_scalar::<f32>()?).max(1.0);
    terms.sum_all()? * (temperature * temperature / foreground)
}
