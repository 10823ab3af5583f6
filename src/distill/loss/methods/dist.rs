//! Distillation from a stronger teacher, DIST (Huang et al. 2022, eq. 7 to 9).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::outputs::{Head, Rows};
use super::{sum_over_rows, Method};
use crate::tensor::{Result, Tensor};

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
        let student = (&rows.student / t)?.softmax()?;
        let teacher = (rows.teacher.detach() / t)?.softmax()?;
        let (classes, counted) = (student.dim(1)?, rows.counted.unsqueeze(0)?);
        let each = Weights { of: None, total: classes as f64 };
        let inter = (1.0 - rows.mean(&each.pearson(&student, &teacher)?)?)?;
        let rows = Weights { of: Some(&counted), total: rows.count };
        let intra = (1.0 - rows.pearson(&student.transpose(0, 1)?, &teacher.transpose(0, 1)?)?.mean_all()?)?;
        ((inter * self.beta)? + (intra * self.gamma)?)? * (t * t)
    }
}

/// What counts along a row.
struct Weights<'a> {
    /// `[1, values]`: 1 for what counts, else 0; `None` if all do.
    of: Option<&'a Tensor>,
    /// Their sum.
    total: f64,
}

impl Weights<'_> {
    /// The correlation of each row of `a` with that of `b`; `[rows]`.
    fn pearson(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let weighed = |x: &Tensor| self.of.map_or_else(|| Ok(x.clone()), |of| x.broadcast_mul(of));
        let centre = |x: &Tensor| weighed(&x.broadcast_sub(&(weighed(x)?.sum_keepdim(1)? / self.total)?)?);
        let (a, b) = (centre(a)?, centre(b)?);
        // The offset keeps the derivative finite for a row without variance.
        let norm = |x: &Tensor| (x.sqr()?.sum(1)? + 1e-12)?.sqrt();
        (&a * &b)?.sum(1)? / (norm(&a)? * norm(&b)?)?
    }
}
