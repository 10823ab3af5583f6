//! The vectors that the kernels are written over, once for all instruction sets.
//!
//! A vector holds one block of 8 channels, or two (AVX-512). A further instruction set is one more
//! instance here and one table in [`super::kernels`]; on NEON a block is a pair of 4-lane
//! registers.

use crate::op::LEAK;
use crate::Activation;

/// Channels in one block of the engine's layout.
pub const BLOCK: usize = 8;

/// A SIMD register, or what behaves like one.
///
/// # Safety
/// All methods may use instructions of their set: call them only inside a function compiled for it.
/// They are `inline(always)` so that they take on that function's target features. Pointers must be
/// good for the lanes that a method names, and an implementation must touch no others.
pub unsafe trait Vector: Copy {
    /// Blocks that one vector spans: 1 or 2.
    const BLOCKS: usize;

    /// All lanes set to `x`.
    unsafe fn splat(x: f32) -> Self;
    /// All lanes set to `*p`.
    unsafe fn broadcast(p: *const f32) -> Self;
    /// Consecutive lanes.
    unsafe fn load(p: *const f32) -> Self;
    /// One block from each of `p`, `p + plane`, …
    unsafe fn load_blocks(p: *const f32, plane: usize) -> Self;
    /// One block to each of `p`, `p + plane`, …
    unsafe fn store_blocks(self, p: *mut f32, plane: usize);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// self + a · b
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    /// Which of two to return when one is not a number is the instruction set's choice.
    unsafe fn min(self, other: Self) -> Self;
    unsafe fn max(self, other: Self) -> Self;
    /// 2ⁿ, where the vector holds n + [`MAGIC`] for whole n from −126 to 127.
    unsafe fn power_of_two(self) -> Self;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self::splat(0.0)
    }

    /// min(max(self, 0), 6)
    #[inline(always)]
    unsafe fn relu6(self) -> Self {
        self.max(Self::zero()).min(Self::splat(6.0))
    }

    /// max(self, 0)
    #[inline(always)]
    unsafe fn relu(self) -> Self {
        self.max(Self::zero())
    }

    /// max(self, [`LEAK`] · self)
    #[inline(always)]
    unsafe fn leaky_relu(self) -> Self {
        self.max(self.mul(Self::splat(LEAK)))
    }

    /// self · min(max(self + 3, 0), 6) / 6
    #[inline(always)]
    unsafe fn hardswish(self) -> Self {
        self.add(Self::splat(3.0)).relu6().mul(self.mul(Self::splat(1.0 / 6.0)))
    }

    /// self / (1 + e^−self), to 4e-7 of the larger of the exact value and 1e-6.
    #[inline(always)]
    unsafe fn silu(self) -> Self {
        self.div(Self::splat(1.0).add(Self::zero().sub(self).exp()))
    }

    /// 1 / (1 + e^−self), to 4e-7 of the exact value where that is at least 1e-30.
    #[inline(always)]
    unsafe fn sigmoid(self) -> Self {
        Self::splat(1.0).div(Self::splat(1.0).add(Self::zero().sub(self).exp()))
    }

    /// min(max(self / 6 + 1 / 2, 0), 1)
    #[inline(always)]
    unsafe fn hardsigmoid(self) -> Self {
        self.add(Self::splat(3.0)).relu6().mul(Self::splat(1.0 / 6.0))
    }

    #[inline(always)]
    unsafe fn activate(self, activation: Activation) -> Self {
        match activation {
            Activation::Identity => self,
            Activation::Relu6 => self.relu6(),
            Activation::Relu => self.relu(),
            Activation::Silu => self.silu(),
            Activation::Hardswish => self.hardswish(),
            Activation::LeakyRelu => self.leaky_relu(),
            Activation::Sigmoid => self.sigmoid(),
            Activation::Hardsigmoid => self.hardsigmoid(),
        }
    }

    /// e^self for |self| ≤ 87, else e^±87; relative error at most 3e-7.
    ///
    /// e^x = 2ⁿ · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2. The Taylor polynomial of degree
    /// 6 leaves out less than (ln 2 / 2)⁷ / 7! · 1.2 = 1.5e-7 of e^r. ln 2 is subtracted in two
    /// parts, the first of so few bits that its product with n is exact (Cody & Waite 1980).
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        let x = self.min(Self::splat(87.0)).max(Self::splat(-87.0));
        let shifted = Self::splat(MAGIC).multiply_add(x, Self::splat(std::f32::consts::LOG2_E));
        let n = shifted.sub(Self::splat(MAGIC));
        let r = x.multiply_add(n, Self::splat(-LN_2_HIGH)).multiply_add(n, Self::splat(-LN_2_LOW));
        let mut sum = Self::splat(1.0 / 720.0);
        for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
            sum = Self::splat(coefficient).multiply_add(sum, r);
        }
        sum.mul(shifted.power_of_two())
    }
}

/// 1.5 · 2²³: added to a small number, it rounds that to a whole one, which then is in the lowest
/// bits.
pub const MAGIC: f32 = 12_582_912.0;

/// The first nine bits of ln 2, and the rest.
const LN_2_HIGH: f32 = 355.0 / 512.0;
const LN_2_LOW: f32 = (std::f64::consts::LN_2 - 355.0 / 512.0) as f32;

/// Plain Rust, which the compiler vectorises for its target.
#[derive(Clone, Copy)]
pub struct Portable([f32; BLOCK]);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Vector for Portable {
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self([x; BLOCK])
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        Self([*p; BLOCK])
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(p.cast::<[f32; BLOCK]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn load_blocks(p: *const f32, _plane: usize) -> Self {
        Self::load(p)
    }
    #[inline(always)]
    unsafe fn store_blocks(self, p: *mut f32, _plane: usize) {
        p.cast::<[f32; BLOCK]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.zip(other, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.zip(other, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.zip(other, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        self.add(a.mul(b))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.zip(other, |a, b| if a < b { a } else { b })
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.zip(other, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        self.zip(self, |v, _| f32::from_bits((v.to_bits() << 23).wrapping_add(1f32.to_bits())))
    }
}

impl Portable {
    #[inline(always)]
    fn zip(mut self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        for i in 0..BLOCK {
            self.0[i] = f(self.0[i], other.0[i]);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub use neon::Neon;

#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(test)]
mod tests {
    use super::*;

    /// Applies a function of vectors to many arguments.
    fn values<V: Vector>(arguments: &[f32], f: unsafe fn(V) -> V) -> Vec<f32> {
        let lanes = V::BLOCKS * BLOCK;
        let mut results = vec![0.0; arguments.len().next_multiple_of(lanes)];
        let mut padded = arguments.to_vec();
        padded.resize(results.len(), 0.0);
        for i in (0..padded.len()).step_by(lanes) {
            // SAFETY: within both; the instruction set is the portable one, or the callers have
            // checked it.
            unsafe { f(V::load(&padded[i])).store_blocks(&mut results[i], BLOCK) };
        }
        results.truncate(arguments.len());
        results
    }

    /// The worst of |found − exact| / max(|exact|, floor) over −100 … 100 in steps of a hundredth
    /// and closer around 0.
    fn worst<V: Vector>(f: unsafe fn(V) -> V, exact: impl Fn(f64) -> f64, floor: f64) -> f64 {
        let arguments: Vec<f32> = (-10_000..=10_000).flat_map(|i| [i as f32 / 100.0, i as f32 / 1e6]).collect();
        let error = |(&x, found): (&f32, f32)| {
            let exact = exact(x as f64);
            (found as f64 - exact).abs() / exact.abs().max(floor)
        };
        arguments.iter().zip(values(&arguments, f)).map(error).fold(0.0, f64::max)
    }

    fn check<V: Vector>() {
        let exp = |x: f64| x.clamp(-87.0, 87.0).exp();
        assert!(worst::<V>(V::exp, exp, 0.0) < 3e-7, "{}", worst::<V>(V::exp, exp, 0.0));
        let silu = |x: f64| x / (1.0 + (-x).exp());
        assert!(worst::<V>(V::silu, silu, 1e-6) < 4e-7, "{}", worst::<V>(V::silu, silu, 1e-6));
        let hardswish = |x: f64| x * (x + 3.0).clamp(0.0, 6.0) / 6.0;
        assert!(worst::<V>(V::hardswish, hardswish, 1e-3) < 3e-7, "{}", worst::<V>(V::hardswish, hardswish, 1e-3));
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        assert!(worst::<V>(V::sigmoid, sigmoid, 1e-30) < 4e-7, "{}", worst::<V>(V::sigmoid, sigmoid, 1e-30));
        let hardsigmoid = |x: f64| (x / 6.0 + 0.5).clamp(0.0, 1.0);
        assert!(worst::<V>(V::hardsigmoid, hardsigmoid, 1e-3) < 1e-4);
        assert!(worst::<V>(V::leaky_relu, |x| x.max(LEAK as f64 * x), 0.0) < 1e-7);
    }

    #[test]
    fn approximated_activations_keep_their_error_bounds() {
        check::<Portable>();
        #[cfg(target_arch = "aarch64")]
        check::<Neon>();
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn approximated_activations_keep_error_bounds_on_x86() {
        #[target_feature(enable = "avx2,fma")]
        unsafe fn avx2() {
            check::<Avx2>();
        }
        #[target_feature(enable = "avx512f,avx512vl")]
        unsafe fn avx512() {
            check::<Avx512>();
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: just checked.
            unsafe { avx2() };
        }
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl") {
            // SAFETY: just checked.
            unsafe { avx512() };
        }
    }
}
