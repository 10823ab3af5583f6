//! The vectors that the integer kernels are written over, once for all instruction sets.
//!
//! All hold 16 lanes: the channels of one block. An instruction set that is narrower uses several
//! registers.

use super::layout::{BLOCK, QUAD};
use crate::op::LEAK;
use crate::quantization::nearest_byte;

/// 16 sums of 32 bits.
///
/// # Safety
/// All methods may use instructions of their set: call them only inside a function compiled for it.
/// They are `inline(always)` so that they take on that function's target features. Pointers must be
/// good for the lanes that a method names, and an implementation must touch no others.
pub unsafe trait Lanes: Copy {
    /// For each lane four weights.
    type Weights: Copy;
    /// For each lane four bytes to be multiplied by weights.
    type Quads: Copy;
    type Reals: Reals;

    unsafe fn load(p: *const i32) -> Self;
    /// 16 × 4 weights.
    unsafe fn weights(p: *const i8) -> Self::Weights;
    /// The four bytes at `p` in every lane.
    unsafe fn broadcast(p: *const u8) -> Self::Quads;
    /// In lane c the bytes p\[c\], p\[16 + c\], p\[32 + c\], p\[48 + c\]: a channel of four pixels.
    unsafe fn transpose(p: *const u8) -> Self::Quads;
    /// Adds the four products of each lane.
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self;
    /// f32(self) · factor + offset, for each lane.
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> Self::Reals;
}

/// 16 real values.
///
/// # Safety
/// As for [`Lanes`].
pub unsafe trait Reals: Copy {
    unsafe fn splat(value: f32) -> Self;
    /// min(max(self, low), high)
    unsafe fn clamp(self, low: f32, high: f32) -> Self;
    /// max(self, [`LEAK`] · self) · factor + zero
    unsafe fn leaky_relu(self, factor: f32, zero: f32) -> Self;
    /// self + (f32(p\[c\]) − zero) · factor
    unsafe fn add_bytes(self, p: *const u8, zero: f32, factor: f32) -> Self;
    /// 16 bytes, rounded half to even, saturating; not-a-number is 0.
    unsafe fn store_bytes(self, p: *mut u8);
    unsafe fn store_floats(self, p: *mut f32);
    unsafe fn load_floats(p: *const f32) -> Self;
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct Portable(pub(super) [i32; BLOCK]);

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct PortableReals([f32; BLOCK]);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for Portable {
    type Weights = [[i8; QUAD]; BLOCK];
    type Quads = [[u8; QUAD]; BLOCK];
    type Reals = PortableReals;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(p.cast::<[i32; BLOCK]>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        p.cast::<Self::Weights>().read()
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        [p.cast::<[u8; QUAD]>().read(); BLOCK]
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        let pixels = p.cast::<[[u8; BLOCK]; QUAD]>().read();
        std::array::from_fn(|c| std::array::from_fn(|pixel| pixels[pixel][c]))
    }
    #[inline(always)]
    unsafe fn dot(mut self, x: Self::Quads, w: Self::Weights) -> Self {
        for c in 0..BLOCK {
            for i in 0..QUAD {
                self.0[c] += i32::from(x[c][i]) * i32::from(w[c][i]);
            }
        }
        self
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> PortableReals {
        PortableReals(std::array::from_fn(|c| self.0[c] as f32 * *factor.add(c) + *offset.add(c)))
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Reals for PortableReals {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; BLOCK])
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        Self(self.0.map(|v| v.max(low).min(high)))
    }
    #[inline(always)]
    unsafe fn leaky_relu(self, factor: f32, zero: f32) -> Self {
        Self(self.0.map(|v| v.max(v * LEAK) * factor + zero))
    }
    #[inline(always)]
    unsafe fn add_bytes(self, p: *const u8, zero: f32, factor: f32) -> Self {
        Self(std::array::from_fn(|c| self.0[c] + (f32::from(*p.add(c)) - zero) * factor))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8) {
        for (c, v) in self.0.iter().enumerate() {
            *p.add(c) = nearest_byte(*v);
        }
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32) {
        p.cast::<[f32; BLOCK]>().write_unaligned(self.0);
    }
    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self {
        Self(p.cast::<[f32; BLOCK]>().read_unaligned())
    }
}
