//! AVX2 and AVX-512.

use std::arch::x86_64::*;

use super::{Vector, BLOCK};

/// AVX2 with FMA: one block.
#[derive(Clone, Copy)]
pub struct Avx2(__m256);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Vector for Avx2 {
    const BLOCKS: usize = 1;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(_mm256_set1_ps(x))
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
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm256_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm256_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm256_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm256_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm256_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let n = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
        Self(_mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(1f32.to_bits() as i32))))
    }
}

/// AVX-512F: two blocks.
#[derive(Clone, Copy)]
pub struct Avx512(__m512);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Vector for Avx512 {
    const BLOCKS: usize = 2;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Self(_mm512_set1_ps(x))
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
    unsafe fn sub(self, other: Self) -> Self {
        Self(_mm512_sub_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        Self(_mm512_mul_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        Self(_mm512_div_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        Self(_mm512_min_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(_mm512_max_ps(self.0, other.0))
    }
    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        let n = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
        Self(_mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(1f32.to_bits() as i32))))
    }
}

/// # Safety
/// The processor must have AVX-512F.
#[inline(always)]
unsafe fn join(low: __m512, high: __m256) -> __m512 {
    const { assert!(BLOCK == 8) };
    let high = _mm256_castps_pd(high);
    _mm512_castpd_ps(_mm512_insertf64x4::<1>(_mm512_castps_pd(low), high))
}
