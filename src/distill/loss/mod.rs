//! The losses: `α·T²·KL(teacher/T ‖ student/T) + (1−α)·task loss`, and the distillation methods.
//!
//! Written with candle, whose autograd differentiates from the network's outputs to the scalar;
//! each term is tested against closed forms and finite differences.
//!
//! - [`assign`]: the assignment of anchors to objects; [`targets`]: what the detection head is to
//!   learn.
//! - [`soft`]: the divergence from a teacher's softened outputs.
//! - [`detection`]: the loss of the detection head; [`boxes`]: its box terms.
//! - [`segmentation`]: weighted cross-entropy of each pixel; [`scene`]: cross-entropy of the image.
//! - [`methods`]: the distillation methods, one file each; [`inputs`]: what they compare;
//!   [`schedule`]: weights and temperatures that change during a run.

pub mod assign;
pub mod boxes;
pub mod detection;
pub mod inputs;
pub mod methods;
pub mod scene;
pub mod schedule;
pub mod segmentation;
pub mod soft;
pub mod targets;

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
