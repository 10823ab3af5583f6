//! NEON: a pair of registers for a block.

use std::arch::aarch64::*;

use super::Vector;

/// A pair of NEON registers: one block.
#[derive(Clone, Copy)]
pub struct Neon(float32x4_t, float32x4_t);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Vector for Neon {
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(vdupq_n_f32(x), vdupq_n_f32(x))
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const f32) -> Self {
        let x = vld1q_dup_f32(p);
        Self(x, x)
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self {
        Self(vld1q_f32(p), vld1q_f32(p.add(4)))
    }
    #[inline(always)]
    unsafe fn load_blocks(p: *const f32, _plane: usize) -> Self {
        Self::load(p)
    }
    #[inline(always)]
    unsafe fn store_blocks(self, p: *mut f32, _plane: usize) {
        vst1q_f32(p, self.0);
        vst1q_f32(p.add(4), self.1);
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(vaddq_f32(self.0, other.0), vaddq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(vsubq_f32(self.0, other.0), vsubq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(vmulq_f32(self.0, other.0), vmulq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(vdivq_f32(self.0, other.0), vdivq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(vminq_f32(self.0, other.0), vminq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(vmaxq_f32(self.0, other.0), vmaxq_f32(self.1, other.1))
    }
    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        Self(vfmaq_f32(self.0, a.0, b.0), vfmaq_f32(self.1, a.1, b.1))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let of = |x| {
            let n = vshlq_n_u32::<23>(vreinterpretq_u32_f32(x));
            vreinterpretq_f32_u32(vaddq_u32(n, vdupq_n_u32(1f32.to_bits())))
        };
        Self(of(self.0), of(self.1))
    }
}
