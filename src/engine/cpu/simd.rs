//! The vectors that the kernels are written over, once for all instruction sets.
//!
//! A vector holds one block of 8 channels, or two (AVX-512). A further instruction set is one more instance here and
//! one line in [`super::isa`]; on NEON a block is a pair of 4-lane registers.

/// Channels in one block of the engine's layout.
pub const BLOCK: usize = 8;

/// A SIMD register, or what behaves like one.
///
/// # Safety
/// All methods may use instructions of their set: call them only inside a function compiled for it. They are
/// `inline(always)` so that they take on that function's target features.
pub unsafe trait Vector: Copy {
    /// Blocks that one vector spans: 1 or 2.
    const BLOCKS: usize;

    unsafe fn zero() -> Self;
    /// All lanes set to `*p`.
    unsafe fn broadcast(p: *const f32) -> Self;
    /// Consecutive lanes.
    unsafe fn load(p: *const f32) -> Self;
    /// One block from each of `p`, `p + plane`, …
    unsafe fn load_blocks(p: *const f32, plane: usize) -> Self;
    /// One block to each of `p`, `p + plane`, …
    unsafe fn store_blocks(self, p: *mut f32, plane: usize);
    unsafe fn add(self, other: Self) -> Self;
    /// self + a · b
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;
    /// min(max(self, 0), 6)
    unsafe fn relu6(self) -> Self;
}

/// Plain Rust, which the compiler turns into whatever vectors the target has.
#[derive(Clone, Copy)]
pub struct Portable([f32; BLOCK]);

unsafe impl Vector for Portable {
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0.0; BLOCK])
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
    unsafe fn add(mut self, other: Self) -> Self {
        for i in 0..BLOCK {
            self.0[i] += other.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn multiply_add(mut self, a: Self, b: Self) -> Self {
        for i in 0..BLOCK {
            self.0[i] += a.0[i] * b.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn relu6(mut self) -> Self {
        for v in &mut self.0 {
            *v = v.clamp(0.0, 6.0);
        }
        self
    }
}

#[cfg(target_arch = "x86_64")]
pub use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Vector, BLOCK};

    /// AVX2 with FMA: one block.
    #[derive(Clone, Copy)]
    pub struct Avx2(__m256);

    unsafe impl Vector for Avx2 {
        const BLOCKS: usize = 1;

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(_mm256_setzero_ps())
        }
        #[inline(always)]
        unsafe fn broadcast(p: *const f32) -> Self {
            Self(_mm256_set1_ps(*p))
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Self(_mm256_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn load_blocks(p: *const f32, _plane: usize) -> Self {
            Self::load(p)
        }
        #[inline(always)]
        unsafe fn store_blocks(self, p: *mut f32, _plane: usize) {
            _mm256_storeu_ps(p, self.0);
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(_mm256_add_ps(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            Self(_mm256_fmadd_ps(a.0, b.0, self.0))
        }
        #[inline(always)]
        unsafe fn relu6(self) -> Self {
            Self(_mm256_min_ps(_mm256_max_ps(self.0, _mm256_setzero_ps()), _mm256_set1_ps(6.0)))
        }
    }

    /// AVX-512F: two blocks.
    #[derive(Clone, Copy)]
    pub struct Avx512(__m512);

    unsafe impl Vector for Avx512 {
        const BLOCKS: usize = 2;

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self(_mm512_setzero_ps())
        }
        #[inline(always)]
        unsafe fn broadcast(p: *const f32) -> Self {
            Self(_mm512_set1_ps(*p))
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            Self(_mm512_loadu_ps(p))
        }
        #[inline(always)]
        unsafe fn load_blocks(p: *const f32, plane: usize) -> Self {
            let low = _mm512_castps256_ps512(_mm256_loadu_ps(p));
            Self(join(low, _mm256_loadu_ps(p.add(plane))))
        }
        #[inline(always)]
        unsafe fn store_blocks(self, p: *mut f32, plane: usize) {
            _mm256_storeu_ps(p, _mm512_castps512_ps256(self.0));
            let high = _mm512_extractf64x4_pd::<1>(_mm512_castps_pd(self.0));
            _mm256_storeu_ps(p.add(plane), _mm256_castpd_ps(high));
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(_mm512_add_ps(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
            Self(_mm512_fmadd_ps(a.0, b.0, self.0))
        }
        #[inline(always)]
        unsafe fn relu6(self) -> Self {
            Self(_mm512_min_ps(_mm512_max_ps(self.0, _mm512_setzero_ps()), _mm512_set1_ps(6.0)))
        }
    }

    #[inline(always)]
    unsafe fn join(low: __m512, high: __m256) -> __m512 {
        const { assert!(BLOCK == 8) };
        let high = _mm256_castps_pd(high);
        _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(low), high))
    }
}
