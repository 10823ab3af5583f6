//! The losses: `α·T²·KL(teacher/T ‖ student/T) + (1−α)·task loss`, and the distillation methods.
//!
//! Written with [`tensor`](crate::tensor): candle and its autograd on the CPU, a part of the step's graph
//! on a GPU. Each term is tested against closed forms and finite differences.
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
    use candle_core::{Device, Var};

    use crate::tensor::{Result, Tensor};

    /// Asserts that candle's gradient of `f` at `at` agrees with central differences.
    pub fn gradient(at: &[f32], shape: (usize, usize), f: impl Fn(&Tensor) -> Result<Tensor>) {
        gradient_by(1e-2, at, shape, f);
    }

    /// The same with another step: a small one where `f` has kinks near `at`.
    pub fn gradient_by(step: f32, at: &[f32], shape: (usize, usize), f: impl Fn(&Tensor) -> Result<Tensor>) {
        let scalar = |x: &[f32]| {
            let x = Tensor::from_slice(x, &[shape.0, shape.1]).unwrap();
            f64::from(f(&x).unwrap().value().unwrap())
        };
        let x = Var::from_slice(at, shape, &Device::Cpu).unwrap();
        let gradients = f(&Tensor::from(&x)).unwrap().on_host().unwrap().backward().unwrap();
        let gradient = gradients.get(&x).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
        crate::net::check::gradient_by(step, at, &gradient, scalar);
    }
}
