//! Distillation over a vocabulary of which the teacher's likeliest tokens are known, and the mass
//! of the rest.
//!
//! The rest counts as one more class, whose logit is the logarithm of the sum of its exponentials.
//! The student's logits are merged alike, so that the divergence is zero where the student gives
//! the teacher's probabilities, and never more than over the whole vocabulary at T = 1. At another
//! temperature the rest is merged first and softened then: softened token by token it would need
//! every logit.

use candle_core::{Result, Tensor};
use candle_nn::ops::log_softmax;
use clap::ValueEnum;

/// What the student is drawn to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Divergence {
    /// KL(teacher ‖ student): covers all that the teacher holds possible (Hinton et al. 2015).
    Forward,
    /// KL(student ‖ teacher): keeps to what the teacher holds likely (Gu et al. 2024, MiniLLM,
    /// section 2.1).
    Reverse,
}

/// `T² · KL` of each row, `[rows]`. `student`: logits `[rows, vocabulary]`; `tokens`: the teacher's
/// likeliest `[rows, k]`, u32; `teacher`: their log-probabilities, then the rest's, `[rows, k +
/// 1]`.
///
/// # Errors
/// When the shapes do not fit each other.
pub fn top(
    student: &Tensor,
    tokens: &Tensor,
    teacher: &Tensor,
    temperature: f64,
    divergence: Divergence,
) -> Result<Tensor> {
    let log_p = log_softmax(&(teacher / temperature)?, 1)?.detach();
    let log_q = log_softmax(&(merged(student, tokens)? / temperature)?, 1)?;
    let terms = match divergence {
        Divergence::Forward => (log_p.exp()? * (log_p - log_q)?)?,
        Divergence::Reverse => (log_q.exp()? * (log_q - log_p)?)?,
    };
    terms.sum(1)? * (temperature * temperature)
}

/// The logits of `tokens` and of all others as one, `[rows, k + 1]`.
fn merged(logits: &Tensor, tokens: &Tensor) -> Result<Tensor> {
    let least = Tensor::full(-1e9f32, tokens.dims(), tokens.device())?;
    let without = logits.zeros_like()?.detach().scatter_add(tokens, &least, 1)?;
    let rest = (logits + without)?.log_sum_exp(1)?.unsqueeze(1)?;
    Tensor::cat(&[&logits.gather(tokens, 1)?, &rest], 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{check, soft};
    use candle_core::Device;

    const STUDENT: [f32; 10] = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4, 1.5, 0.2, -2.0, 0.9];
    const TEACHER: [f32; 10] = [1.0, -2.0, 0.5, 3.0, -1.0, 0.2, 0.4, -0.6, 1.7, 2.2];
    const BOTH: [Divergence; 2] = [Divergence::Forward, Divergence::Reverse];

    fn tensor(values: &[f32]) -> Tensor {
        Tensor::from_slice(values, (2, values.len() / 2), &Device::Cpu).unwrap()
    }

    /// The teacher's `k` likeliest tokens, and their log-probabilities with the rest's.
    fn targets(k: usize) -> (Tensor, Tensor) {
        let rows = TEACHER.chunks(5).map(|row| super::super::soft::top(row, k));
        let (mut tokens, mut teacher) = (Vec::new(), Vec::new());
        for (best, rest) in rows {
            tokens.extend(best.iter().map(|&(token, _)| token));
            teacher.extend(best.iter().map(|&(_, p)| p).chain([rest]));
        }
        (Tensor::from_vec(tokens, (2, k), &Device::Cpu).unwrap(), tensor(&teacher))
    }

    /// The definition in f64, with the classes that `groups` makes of each row's tokens.
    fn by_definition(k: usize, temperature: f64, divergence: Divergence) -> Vec<f64> {
        let softened = |row: &[f32], order: &[usize]| {
            let e: Vec<f64> = order.iter().map(|&i| f64::from(row[i]).exp()).collect();
            let mut classes = e[..k].to_vec();
            classes.push(e[k..].iter().sum());
            let powers: Vec<f64> = classes.iter().map(|c: &f64| c.powf(1.0 / temperature)).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|p| p / sum).collect::<Vec<f64>>()
        };
        let rows = STUDENT.chunks(5).zip(TEACHER.chunks(5)).map(|(student, teacher)| {
            let mut order: Vec<usize> = (0..5).collect();
            order.sort_by(|&a, &b| teacher[b].total_cmp(&teacher[a]));
            let (p, q) = (softened(teacher, &order), softened(student, &order));
            let (from, to) = if divergence == Divergence::Forward { (p, q) } else { (q, p) };
            from.iter().zip(to).map(|(a, b)| a * (a / b).ln()).sum::<f64>() * temperature * temperature
        });
        rows.collect()
    }

    #[test]
    fn the_loss_equals_its_definition() {
        for (k, temperature, divergence) in [(1, 1.0, BOTH[0]), (2, 2.0, BOTH[0]), (3, 4.0, BOTH[1]), (2, 1.0, BOTH[1])]
        {
            let (tokens, teacher) = targets(k);
            let loss = top(&tensor(&STUDENT), &tokens, &teacher, temperature, divergence).unwrap();
            for (a, b) in loss.to_vec1::<f32>().unwrap().iter().zip(by_definition(k, temperature, divergence)) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn with_all_tokens_but_one_it_is_the_whole_vocabularys() {
        let (tokens, teacher) = targets(4);
        for temperature in [1.0, 3.0] {
            let ours = top(&tensor(&STUDENT), &tokens, &teacher, temperature, Divergence::Forward).unwrap();
            let whole = soft::categorical(&tensor(&STUDENT).into(), &tensor(&TEACHER).into(), temperature).unwrap();
            for (a, b) in ours.to_vec1::<f32>().unwrap().iter().zip(whole.values().unwrap()) {
                assert!((a - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn the_teachers_own_logits_cost_nothing() {
        for (k, divergence) in [(1, BOTH[0]), (3, BOTH[1])] {
            let (tokens, teacher) = targets(k);
            let loss = top(&tensor(&TEACHER), &tokens, &teacher, 2.0, divergence).unwrap();
            assert!(loss.to_vec1::<f32>().unwrap().iter().all(|v| v.abs() < 1e-5));
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for divergence in BOTH {
            let (tokens, teacher) = targets(2);
            check::gradient(&STUDENT, (2, 5), |s| {
                let loss = top(s.on_host().unwrap(), &tokens, &teacher, 2.0, divergence)?;
                loss.sum_all().map(Into::into)
            });
        }
    }
}
