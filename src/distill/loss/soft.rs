//! Knowledge distillation by softened outputs (Hinton, Vinyals & Dean 2015, section 2).

use crate::tensor::{Result, Tensor};

/// `T² · KL(softmax(teacher/T) ‖ softmax(student/T))` of each row of `[rows, classes]` logits;
/// `[rows]`.
///
/// The factor T² keeps the magnitude of the gradient independent of the temperature.
pub fn categorical(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let log_p = (teacher / temperature)?.log_softmax()?.detach();
    let log_q = (student / temperature)?.log_softmax()?;
    let p = log_p.exp()?;
    (p * (log_p - log_q)?)?.sum(1)? * (temperature * temperature)
}

/// The same for independent classes (sigmoid outputs): the sum of the classes' Bernoulli
/// divergences; `[rows]`.
pub fn bernoulli(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    bernoulli_terms(student, teacher, temperature)?.sum(1)? * (temperature * temperature)
}

/// The divergence of each row and class, without the factor T²; `[rows, classes]`.
pub fn bernoulli_terms(student: &Tensor, teacher: &Tensor, temperature: f64) -> Result<Tensor> {
    let teacher = (teacher / temperature)?.detach();
    let student = (student / temperature)?;
    let p = teacher.sigmoid()?;
    // KL = cross-entropy − entropy, both from logits so that neither overflows.
    let cross_entropy = binary_cross_entropy(&student, &p)?;
    let entropy = binary_cross_entropy(&teacher, &p)?;
    cross_entropy - entropy
}

/// `−t·ln σ(z) − (1−t)·ln(1−σ(z)) = max(z, 0) − z·t + ln(1 + e^−|z|)`, value by value.
pub fn binary_cross_entropy(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    (logits.relu()? - (logits * target)?)? + softplus
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;

    fn tensor(values: &[f32], shape: [usize; 2]) -> Tensor {
        Tensor::from_slice(values, &shape).unwrap()
    }

    const STUDENT: [f32; 6] = [0.3, -1.2, 2.0, 0.7, 0.1, -0.4];
    const TEACHER: [f32; 6] = [1.0, -2.0, 0.5, 3.0, -1.0, 0.2];

    /// The definition, in f64.
    fn categorical_by_definition(temperature: f64) -> Vec<f64> {
        let softmax = |row: &[f32]| {
            let e: Vec<f64> = row.iter().map(|&v| (f64::from(v) / temperature).exp()).collect();
            let sum: f64 = e.iter().sum();
            e.into_iter().map(|v| v / sum).collect::<Vec<_>>()
        };
        let rows = STUDENT.chunks(3).zip(TEACHER.chunks(3));
        rows.map(|(s, t)| {
            let kl: f64 = softmax(t).iter().zip(softmax(s)).map(|(p, q)| p * (p / q).ln()).sum();
            kl * temperature * temperature
        })
        .collect()
    }

    #[test]
    fn categorical_equals_its_definition() {
        for temperature in [1.0, 4.0] {
            let loss = categorical(&tensor(&STUDENT, [2, 3]), &tensor(&TEACHER, [2, 3]), temperature).unwrap();
            for (a, b) in loss.values().unwrap().iter().zip(categorical_by_definition(temperature)) {
                assert!((f64::from(*a) - b).abs() < 1e-5, "{a} {b}");
            }
        }
    }

    #[test]
    fn bernoulli_equals_its_definition() {
        let temperature = 2.0;
        let sigmoid = |v: f32| 1.0 / (1.0 + (-f64::from(v) / temperature).exp());
        let loss = bernoulli(&tensor(&STUDENT, [2, 3]), &tensor(&TEACHER, [2, 3]), temperature).unwrap();
        for (row, loss) in loss.values().unwrap().into_iter().enumerate() {
            let expected: f64 = (0..3)
                .map(|c| (sigmoid(TEACHER[3 * row + c]), sigmoid(STUDENT[3 * row + c])))
                .map(|(p, q)| p * (p / q).ln() + (1.0 - p) * ((1.0 - p) / (1.0 - q)).ln())
                .sum();
            assert!((f64::from(loss) - expected * temperature * temperature).abs() < 1e-5);
        }
    }

    #[test]
    fn the_loss_of_a_student_equal_to_its_teacher_is_zero() {
        let logits = tensor(&TEACHER, [2, 3]);
        for loss in [categorical(&logits, &logits, 3.0), bernoulli(&logits, &logits, 3.0)] {
            assert!(loss.unwrap().values().unwrap().iter().all(|v| v.abs() < 1e-6));
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let teacher = tensor(&TEACHER, [2, 3]);
        check::gradient(&STUDENT, (2, 3), |s| categorical(s, &teacher, 2.0)?.sum_all());
        check::gradient(&STUDENT, (2, 3), |s| bernoulli(s, &teacher, 2.0)?.sum_all());
    }
}
