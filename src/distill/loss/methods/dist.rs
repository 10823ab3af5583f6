//! Distillation from a stronger teacher, DIST (Huang et al. 2022, eq. 7 to 9).

use candle_core::{Result, Tensor};
use candle_nn::ops::softmax;
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::outputs::{Head, Rows};
use super::{sum_over_rows, Method};

/// `β·inter + γ·intra`: one minus the Pearson correlation of each row's class probabilities
/// (inter), and of each class's probabilities over the rows (intra), times T². Only relations have
/// to match, not values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dist {
    pub on: Head,
    #[serde(default = "unit")]
    pub beta: f64,
    #[serde(default = "unit")]
    pub gamma: f64,
    #[serde(default = "temperature")]
    pub temperature: Schedule,
}

fn unit() -> f64 {
    1.0
}

fn temperature() -> Schedule {
    Schedule::Constant(1.0)
}

impl Method for Dist {
    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let t = self.temperature.at(inputs.progress);
        sum_over_rows(inputs, &self.on, |rows| self.of_rows(rows, t))
    }
}

impl Dist {
    /// At the temperature `t`.
    fn of_rows(&self, rows: Rows, t: f64) -> Result<Tensor> {
        let student = softmax(&(rows.student / t)?, 1)?;
        let teacher = softmax(&(rows.teacher.detach() / t)?, 1)?;
        let inter = (1.0 - pearson(&student, &teacher)?.mean_all()?)?;
        let intra = (1.0 - pearson(&student.t()?.contiguous()?, &teacher.t()?.contiguous()?)?.mean_all()?)?;
        ((inter * self.beta)? + (intra * self.gamma)?)? * (t * t)
    }
}

/// The correlation of each pair of rows, `[rows]`.
fn pearson(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let centre = |x: &Tensor| x.broadcast_sub(&x.mean_keepdim(1)?);
    let (a, b) = (centre(a)?, centre(b)?);
    // The offset keeps the derivative finite for a row without variance.
    let norm = |x: &Tensor| (x.sqr()?.sum(1)? + 1e-12)?.sqrt();
    ((&a * &b)?.sum(1)? / (norm(&a)? * norm(&b)?)?)?.contiguous()
}
