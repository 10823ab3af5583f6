//! Decoupled knowledge distillation (Zhao et al. 2022, eq. 7).

use candle_core::{Device, Result, Tensor};
use candle_nn::ops::softmax;
use serde::{Deserialize, Serialize};

use super::super::inputs::DistillInputs;
use super::super::schedule::Schedule;
use super::super::soft;
use super::outputs::{Head, Rows};
use super::{sum_over_rows, Method};

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
        let (count, classes) = rows.student.dims2()?;
        let mut one_hot = vec![0.0f32; count * classes];
        for (row, &target) in one_hot.chunks_mut(classes).zip(&rows.target) {
            row[target] = 1.0;
        }
        let one_hot = Tensor::from_vec(one_hot, (count, classes), &Device::Cpu)?;
        let teacher = rows.teacher.detach();

        let share = |z: &Tensor| (softmax(&(z / t)?, 1)? * &one_hot)?.sum(1)?.clamp(1e-7f32, 1.0 - 1e-7f32);
        let (p, q) = (share(&teacher)?, share(&rows.student)?);
        let rest = |p: &Tensor| 1.0 - p;
        let target = ((&p * (p.log()? - q.log()?)?)? + (rest(&p)? * (rest(&p)?.log()? - rest(&q)?.log()?)?)?)?;
        let target = (target.mean_all()? * (t * t))?;

        let excluded = (&one_hot * (EXCLUDED * t))?;
        let others = soft::categorical(&(rows.student - &excluded)?, &(teacher - excluded)?, t)?.mean_all()?;
        (target * self.alpha)? + (others * self.beta)?
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::ops::log_softmax;

    use super::*;

    /// KL = TCKD + (1 − p)·NCKD (eq. 5 there), which ties the two parts to the plain divergence.
    #[test]
    fn its_two_parts_add_up_to_the_plain_divergence() {
        let (student, teacher) = ([0.3f32, -1.2, 2.0, 0.5], [1.0f32, -2.0, 0.5, 0.1]);
        let tensor = |v: &[f32]| Tensor::from_slice(v, (1, 4), &Device::Cpu).unwrap();
        let whole = soft::categorical(&tensor(&student), &tensor(&teacher), 1.0).unwrap().to_vec1::<f32>().unwrap()[0];
        let share = |v: &[f32]| v[0].exp() / v.iter().map(|x| x.exp()).sum::<f32>();
        let (p, q) = (share(&teacher), share(&student));
        let target = p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln();
        let rest = |v: &[f32]| log_softmax(&Tensor::from_slice(&v[1..], (1, 3), &Device::Cpu).unwrap(), 1).unwrap();
        let (a, b) = (rest(&teacher).to_vec2::<f32>().unwrap(), rest(&student).to_vec2::<f32>().unwrap());
        let others: f32 = a[0].iter().zip(&b[0]).map(|(a, b)| a.exp() * (a - b)).sum();
        assert!((whole - target - (1.0 - p) * others).abs() < 1e-5);
    }
}
