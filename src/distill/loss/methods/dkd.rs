//! Decoupled knowledge distillation (Zhao et al. 2022, eq. 7).

use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::super::soft;
use super::outputs::{Head, Rows};
use super::{sum_over_rows, Method};
use crate::tensor::{Result, Tensor};

/// `α·TCKD + β·NCKD`, times T², averaged over rows: TCKD is the divergence between the binary
/// distributions (target class, everything else), NCKD that between the distributions over the
/// other classes. The target is the labelled class, or the teacher's best if there is no label.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dkd {
    pub on: Head,
    #[serde(default = "alpha")]
    pub alpha: f64,
    #[serde(default = "beta")]
    pub beta: f64,
    #[serde(default = "temperature")]
    pub temperature: Schedule,
}

fn alpha() -> f64 {
    1.0
}

fn beta() -> f64 {
    8.0
}

fn temperature() -> Schedule {
    Schedule::Constant(4.0)
}

/// Subtracted from the target's logit to exclude it from a softmax.
const EXCLUDED: f64 = 1000.0;

impl Method for Dkd {
    fn loss(&self, inputs: &DistillInputs) -> Result<Tensor> {
        let t = self.temperature.at(inputs.progress);
        sum_over_rows(inputs, &self.on, |rows| self.of_rows(rows, t))
    }
}

impl Dkd {
    /// At the temperature `t`.
    fn of_rows(&self, rows: Rows, t: f64) -> Result<Tensor> {
        let (teacher, one_hot) = (rows.teacher.detach(), &rows.target);

        let share = |z: &Tensor| ((z / t)?.softmax()? * one_hot)?.sum(1)?.at_least(1e-7)?.at_most(1.0 - 1e-7);
        let (p, q) = (share(&teacher)?, share(&rows.student)?);
        let rest = |p: &Tensor| 1.0 - p;
        let target = ((&p * (p.log()? - q.log()?)?)? + (rest(&p)? * (rest(&p)?.log()? - rest(&q)?.log()?)?)?)?;
        let target = (rows.mean(&target)? * (t * t))?;

        let excluded = (one_hot * (EXCLUDED * t))?;
        let others = rows.mean(&soft::categorical(&(&rows.student - &excluded)?, &(teacher - excluded)?, t)?)?;
        (target * self.alpha)? + (others * self.beta)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// KL = TCKD + (1 − p)·NCKD (eq. 5 there), which ties the two parts to the plain divergence.
    #[test]
    fn its_two_parts_add_up_to_the_plain_divergence() {
        let (student, teacher) = ([0.3f32, -1.2, 2.0, 0.5], [1.0f32, -2.0, 0.5, 0.1]);
        let tensor = |v: &[f32]| Tensor::from_slice(v, &[1, 4]).unwrap();
        let whole = soft::categorical(&tensor(&student), &tensor(&teacher), 1.0).unwrap().values().unwrap()[0];
        let share = |v: &[f32]| v[0].exp() / v.iter().map(|x| x.exp()).sum::<f32>();
        let (p, q) = (share(&teacher), share(&student));
        let target = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        let rest = |v: &[f32]| Tensor::from_slice(&v[1..], &[1, 3]).unwrap().log_softmax().unwrap();
        let (a, b) = (rest(&teacher).values().unwrap(), rest(&student).values().unwrap());
        let others: f32 = a.iter().zip(&b).map(|(a, b)| a.exp() * (a - b)).sum();
        assert!((whole - target - (1.0 - p) * others).abs() < 1e-5);
    }
}
