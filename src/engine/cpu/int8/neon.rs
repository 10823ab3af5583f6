//! The integer kernels' vectors on aarch64 with dot products (Armv8.2 DotProd: Jetson Xavier and
//! Orin, not Nano or TX2).

use std::arch::aarch64::*;
use std::arch::asm;

use super::layout::BLOCK;
use super::simd::{Lanes, Reals};
use crate::op::LEAK;

/// NEON with SDOT, which multiplies signed bytes: 128 is taken off each byte, and what that takes
/// off the sums is in what they start from
/// ([`IntegerKernels::bias`](super::kernels::Kernels::bias)).
#[derive(Clone, Copy)]
pub struct NeonDot([int32x4_t; 4]);

/// Four registers of 4.
#[derive(Clone, Copy)]
pub struct RealsNeon([float32x4_t; 4]);

/// Bytes less 128, as signed ones.
///
/// # Safety
/// The processor must have NEON.
#[inline(always)]
unsafe fn signed(bytes: uint8x16_t) -> int8x16_t {
    vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(128)))
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for NeonDot {
    type Weights = [int8x16_t; 4];
    type Quads = [int8x16_t; 4];
    type Reals = RealsNeon;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(std::array::from_fn(|i| vld1q_s32(p.add(4 * i))))
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        std::array::from_fn(|i| vld1q_s8(p.add(BLOCK * i)))
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        [signed(vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned()))); 4]
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        let pixels: [_; 4] = std::array::from_fn(|i| signed(vld1q_u8(p.add(BLOCK * i))));
        let (even, odd) = (vzip1q_s8(pixels[0], pixels[2]), vzip1q_s8(pixels[1], pixels[3]));
        let (even_high, odd_high) = (vzip2q_s8(pixels[0], pixels[2]), vzip2q_s8(pixels[1], pixels[3]));
        [vzip1q_s8(even, odd), vzip2q_s8(even, odd), vzip1q_s8(even_high, odd_high), vzip2q_s8(even_high, odd_high)]
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self {
        Self(std::array::from_fn(|i| {
            let mut sum = self.0[i];
            // The intrinsic for it is not stable yet.
            asm!(
                ".arch_extension dotprod",
                "sdot {sum:v}.4s, {x:v}.16b, {w:v}.16b",
                sum = inout(vreg) sum, x = in(vreg) x[i], w = in(vreg) w[i],
                options(pure, nomem, nostack, preserves_flags)
            );
            sum
        }))
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> RealsNeon {
        RealsNeon(std::array::from_fn(|i| {
            let scaled = vmulq_f32(vcvtq_f32_s32(self.0[i]), vld1q_f32(factor.add(4 * i)));
            vaddq_f32(scaled, vld1q_f32(offset.add(4 * i)))
        }))
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Reals for RealsNeon {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([vdupq_n_f32(value); 4])
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        // Of not-a-number and a number, the number.
        Self(self.0.map(|v| vminnmq_f32(vmaxnmq_f32(v, vdupq_n_f32(low)), vdupq_n_f32(high))))
    }
    #[inline(always)]
    unsafe fn leaky_relu(self, factor: f32, zero: f32) -> Self {
        Self(self.0.map(|v| {
            let v = vmaxnmq_f32(v, vmulq_f32(v, vdupq_n_f32(LEAK)));
            vaddq_f32(vmulq_f32(v, vdupq_n_f32(factor)), vdupq_n_f32(zero))
        }))
    }
    #[inline(always)]
    unsafe fn add_bytes(self, p: *const u8, zero: f32, factor: f32) -> Self {
        let bytes = vld1q_u8(p);
        let halves = [vmovl_u8(vget_low_u8(bytes)), vmovl_high_u8(bytes)];
        let words = [
            vmovl_u16(vget_low_u16(halves[0])),
            vmovl_high_u16(halves[0]),
            vmovl_u16(vget_low_u16(halves[1])),
            vmovl_high_u16(halves[1]),
        ];
        Self(std::array::from_fn(|i| {
            let relative = vsubq_f32(vcvtq_f32_u32(words[i]), vdupq_n_f32(zero));
            vaddq_f32(self.0[i], vmulq_f32(relative, vdupq_n_f32(factor)))
        }))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8) {
        // To the nearest, ties to even; not-a-number becomes 0.
        let words = self.0.map(|v| vcvtnq_s32_f32(v));
        let half = |a, b| vqmovun_high_s32(vqmovun_s32(a), b);
        let bytes = vqmovn_high_u16(vqmovn_u16(half(words[0], words[1])), half(words[2], words[3]));
        vst1q_u8(p, bytes);
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32) {
        for (i, v) in self.0.into_iter().enumerate() {
            vst1q_f32(p.add(4 * i), v);
        }
    }
    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self {
        Self([0, 4, 8, 12].map(|i| vld1q_f32(p.add(i))))
    }
}
