//! The training engine: forward and backward of a [`Graph`](peregrine_engine::Graph) over a batch.
//!
//! On the CPU, candle's autograd allocates every intermediate anew, zero-fills and re-adds every
//! gradient, and splits grouped convolutions into one call a group. Since a student is a fixed
//! graph of a few operations, this module keeps each tensor in a buffer of its own that lives as
//! long as the training, and runs the graph backwards by hand; candle differentiates only the
//! losses, from the graph's outputs on.
//!
//! - [`params`]: trainable values, their gradients, running statistics, and folding into deployable
//!   weights.
//! - [`dense`], [`depthwise`], [`norm`], [`pool`]: the kernels, forward and backward, each checked
//!   by finite differences; `winograd`: dense 3×3 convolutions with fewer products.
//! - [`vectors`]: loops for the processor's vector instructions, sums, scratch memory.
//! - [`convolve`]: the convolutions of a whole batch, on all threads; `conv_block`: with batch-norm
//!   and activation; `activation`: their derivatives; `operation`: the operations without parameters,
//!   `bilinear` one of them.
//! - [`passes`]: the two passes over the graph; [`Tape`]: from the one to the other over a step's losses;
//!   `gradients`: how gradients add up; [`fake`]: rounding as an integer engine does; `cuda` (feature
//!   `cuda`): the passes on CUDA, by kernels of our own; `by_candle` (tests only): by candle, as a reference.

mod activation;
mod bilinear;
#[cfg(test)]
mod by_candle;
mod conv_block;
pub mod convolve;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dense;
pub mod depthwise;
pub mod fake;
mod gradients;
pub mod norm;
mod operation;
pub mod params;
pub mod passes;
pub mod pool;
mod tape;
#[cfg(test)]
mod tests;
pub mod vectors;
mod winograd;

pub use norm::Mode;
pub use params::{ConvParams, NetParams, Norm};
pub use passes::{LayerTimes, TrainNet};
pub use tape::Tape;

use peregrine_engine::{Conv, Shape};

/// A convolution with the shapes on both of its sides.
#[derive(Debug, Clone, Copy)]
pub struct Geometry {
    pub conv: Conv,
    pub input: Shape,
    pub output: Shape,
    pub pad_top: usize,
    pub pad_left: usize,
}

impl Geometry {
    pub fn new(conv: Conv, input: Shape, output: Shape) -> Self {
        Self { conv, input, output, pad_top: conv.pad_before(input.height), pad_left: conv.pad_before(input.width) }
    }
}

/// Central finite differences for the tests of this module's operations.
#[cfg(test)]
pub(crate) mod check {
    /// Asserts that `gradient` agrees with the central differences of `f` at `at`.
    pub fn gradient(at: &[f32], gradient: &[f32], f: impl FnMut(&[f32]) -> f64) {
        gradient_by(1e-2, at, gradient, f);
    }

    /// The same with another step: a small one where `f` has kinks near `at`.
    pub fn gradient_by(step: f32, at: &[f32], gradient: &[f32], mut f: impl FnMut(&[f32]) -> f64) {
        let mut x = at.to_vec();
        for i in 0..x.len() {
            x[i] = at[i] + step;
            let up = f(&x);
            x[i] = at[i] - step;
            let down = f(&x);
            x[i] = at[i];
            let numeric = (up - down) / (2.0 * f64::from(step));
            let analytic = f64::from(gradient[i]);
            let tolerance = 2e-3 * (1.0 + numeric.abs());
            assert!((numeric - analytic).abs() < tolerance, "value {i}: numeric {numeric}, analytic {analytic}");
        }
    }

    /// Deterministic values in −1…1.
    pub fn values(n: usize, seed: u64) -> Vec<f32> {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
    }

    /// Σ a·b in f64: a scalar to differentiate.
    pub fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    }
}
