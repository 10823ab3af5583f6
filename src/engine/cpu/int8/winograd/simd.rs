//! What Winograd's transforms and products are written over, besides [`Lanes`].

use super::super::layout::BLOCK;
use super::super::simd::{Lanes, Portable};

/// 16 words of 16 bits, with arithmetic modulo 2¹⁶.
///
/// # Safety
/// As for [`Lanes`].
pub unsafe trait Words: Copy {
    unsafe fn splat(value: i16) -> Self;
    /// 16 bytes, widened.
    unsafe fn widen(p: *const u8) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// self · 2ᴺ
    unsafe fn shift_left<const N: i32>(self) -> Self;
    unsafe fn store(self, p: *mut i16);
}

/// 16 sums of 32 bits, with arithmetic modulo 2³².
///
/// # Safety
/// As for [`Lanes`].
pub unsafe trait WinogradLanes: Lanes {
    type Words: Words;
    /// For each lane two words.
    type Pairs: Copy;
    /// The same two words for every lane.
    type Pair: Copy;

    unsafe fn zero() -> Self;
    /// 16 × 2 words.
    unsafe fn pairs(p: *const i16) -> Self::Pairs;
    unsafe fn broadcast_pair(p: *const i16) -> Self::Pair;
    /// Adds the two products of each lane.
    unsafe fn dot_pairs(self, x: Self::Pair, w: Self::Pairs) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// self · 2ᴺ
    unsafe fn shift_left<const N: i32>(self) -> Self;
    /// self · `factor` / 2ᴺ, rounded down.
    unsafe fn scaled<const N: i32>(self, factor: i32) -> Self;
    unsafe fn store(self, p: *mut i32);
}

/// Plain Rust.
#[derive(Clone, Copy)]
pub struct PortableWords([i16; BLOCK]);

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Words for PortableWords {
    #[inline(always)]
    unsafe fn splat(value: i16) -> Self {
        Self([value; BLOCK])
    }
    #[inline(always)]
    unsafe fn widen(p: *const u8) -> Self {
        Self(p.cast::<[u8; BLOCK]>().read().map(i16::from))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|c| self.0[c].wrapping_add(other.0[c])))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|c| self.0[c].wrapping_sub(other.0[c])))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(self) -> Self {
        Self(self.0.map(|v| v << N))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut i16) {
        p.cast::<[i16; BLOCK]>().write_unaligned(self.0);
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl WinogradLanes for Portable {
    type Words = PortableWords;
    type Pairs = [[i16; 2]; BLOCK];
    type Pair = [i16; 2];

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self([0; BLOCK])
    }
    #[inline(always)]
    unsafe fn pairs(p: *const i16) -> Self::Pairs {
        p.cast::<Self::Pairs>().read()
    }
    #[inline(always)]
    unsafe fn broadcast_pair(p: *const i16) -> Self::Pair {
        p.cast::<Self::Pair>().read()
    }
    #[inline(always)]
    unsafe fn dot_pairs(self, x: Self::Pair, w: Self::Pairs) -> Self {
        let product = |c: usize, i: usize| i32::from(x[i]) * i32::from(w[c][i]);
        Self(std::array::from_fn(|c| self.0[c].wrapping_add(product(c, 0)).wrapping_add(product(c, 1))))
    }
    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|c| self.0[c].wrapping_add(other.0[c])))
    }
    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|c| self.0[c].wrapping_sub(other.0[c])))
    }
    #[inline(always)]
    unsafe fn shift_left<const N: i32>(self) -> Self {
        Self(self.0.map(|v| v << N))
    }
    #[inline(always)]
    unsafe fn scaled<const N: i32>(self, factor: i32) -> Self {
        Self(self.0.map(|v| v.wrapping_mul(factor) >> N))
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut i32) {
        p.cast::<[i32; BLOCK]>().write_unaligned(self.0);
    }
}

// No closures here: called in as many places as in a transform, some would not be inlined, and so not compiled for AVX2.
#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::super::x86::Avx2;
    use super::{WinogradLanes, Words};

    /// AVX2: one register.
    #[derive(Clone, Copy)]
    pub struct Avx2Words(__m256i);

    // SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
    unsafe impl Words for Avx2Words {
        #[inline(always)]
        unsafe fn splat(value: i16) -> Self {
            Self(_mm256_set1_epi16(value))
        }
        #[inline(always)]
        unsafe fn widen(p: *const u8) -> Self {
            Self(_mm256_cvtepu8_epi16(_mm_loadu_si128(p.cast())))
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self(_mm256_add_epi16(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self(_mm256_sub_epi16(self.0, other.0))
        }
        #[inline(always)]
        unsafe fn shift_left<const N: i32>(self) -> Self {
            Self(_mm256_slli_epi16::<N>(self.0))
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut i16) {
            _mm256_storeu_si256(p.cast(), self.0);
        }
    }

    // SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
    unsafe impl WinogradLanes for Avx2 {
        type Words = Avx2Words;
        type Pairs = [__m256i; 2];
        type Pair = __m256i;

        #[inline(always)]
        unsafe fn zero() -> Self {
            Self([_mm256_setzero_si256(); 2])
        }
        #[inline(always)]
        unsafe fn pairs(p: *const i16) -> Self::Pairs {
            let p = p.cast::<__m256i>();
            [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))]
        }
        #[inline(always)]
        unsafe fn broadcast_pair(p: *const i16) -> Self::Pair {
            _mm256_set1_epi32(p.cast::<i32>().read_unaligned())
        }
        #[inline(always)]
        unsafe fn dot_pairs(self, x: Self::Pair, w: Self::Pairs) -> Self {
            let (low, high) = (_mm256_madd_epi16(x, w[0]), _mm256_madd_epi16(x, w[1]));
            Self([_mm256_add_epi32(self.0[0], low), _mm256_add_epi32(self.0[1], high)])
        }
        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            Self([_mm256_add_epi32(self.0[0], other.0[0]), _mm256_add_epi32(self.0[1], other.0[1])])
        }
        #[inline(always)]
        unsafe fn sub(self, other: Self) -> Self {
            Self([_mm256_sub_epi32(self.0[0], other.0[0]), _mm256_sub_epi32(self.0[1], other.0[1])])
        }
        #[inline(always)]
        unsafe fn shift_left<const N: i32>(self) -> Self {
            Self([_mm256_slli_epi32::<N>(self.0[0]), _mm256_slli_epi32::<N>(self.0[1])])
        }
        #[inline(always)]
        unsafe fn scaled<const N: i32>(self, factor: i32) -> Self {
            let factor = _mm256_set1_epi32(factor);
            let (low, high) = (_mm256_mullo_epi32(self.0[0], factor), _mm256_mullo_epi32(self.0[1], factor));
            Self([_mm256_srai_epi32::<N>(low), _mm256_srai_epi32::<N>(high)])
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut i32) {
            let p = p.cast::<__m256i>();
            _mm256_storeu_si256(p, self.0[0]);
            _mm256_storeu_si256(p.add(1), self.0[1]);
        }
    }
}
