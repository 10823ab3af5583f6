//! What the student is taught by: `α·T²·KL(teacher/T ‖ student/T) + (1−α)·task loss`, and the terms beside it.
//!
//! Written with candle, whose autograd differentiates from the network's outputs to the scalar; each term is checked
//! against closed forms and finite differences.
//!
//! - [`assign`]: which cell of the detection head answers for which object.
//! - [`soft`]: the divergence from a teacher's softened outputs.
//! - [`detection`]: class, box and side terms of the detection head.
//! - [`segmentation`]: weighted cross-entropy a pixel.
//! - [`methods`]: distillation from a teacher that sees the same views; [`scene`]: what they compare; [`schedule`].

pub mod assign;
pub mod detection;
pub mod methods;
pub mod scene;
pub mod schedule;
pub mod segmentation;
pub mod soft;

#[cfg(test)]
pub(crate) mod check {
    use candle_core::{Device, Tensor, Var};

    /// Asserts that candle's gradient of `f` at `at` agrees with central differences.
    pub fn gradient(at: &[f32], shape: (usize, usize), f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) {
        gradient_by(1e-2, at, shape, f);
    }

    /// The same with another step: a small one where `f` has kinks near `at`.
    pub fn gradient_by(
        step: f32,
        at: &[f32],
        shape: (usize, usize),
        f: impl Fn(&Tensor) -> candle_core::Result<Tensor>,
    ) {
        let scalar = |x: &[f32]| {
            let x = Tensor::from_slice(x, shape, &Device::Cpu).unwrap();
            f64::from(f(&x).unwrap().to_scalar::<f32>().unwrap())
        };
        let x = Var::from_slice(at, shape, &Device::Cpu).unwrap();
        let gradients = f(&x).unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        crate::net::check::gradient_by(step, at, &gradient, scalar);
    }
}
