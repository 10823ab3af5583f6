//! The integer kernels' vectors on x86-64.

use std::arch::x86_64::*;

use super::simd::{Lanes, Reals};
use crate::op::LEAK;

/// AVX2, for weights whose adjacent pairs sum to at most 128 in magnitude.
///
/// `vpmaddubsw` multiplies bytes by weights and adds pairs in 16 bits, saturating. 255 · 128 =
/// 32640 fits, so under that condition, which [`pairs_fit`](super::convolution::pairs_fit) tests,
/// nothing saturates and the sums are exact.
#[derive(Clone, Copy)]
pub struct Avx2(pub(super) [__m256i; 2]);

/// AVX2, for any weights: even and odd bytes apart, in 16 bits.
#[derive(Clone, Copy)]
pub struct Avx2Wide([__m256i; 2]);

/// AVX2 with AVX-VNNI.
#[derive(Clone, Copy)]
pub struct AvxVnni([__m256i; 2]);

/// AVX-512 with BW and VNNI.
#[derive(Clone, Copy)]
pub struct Avx512Vnni(__m512i);

/// Two registers of 8.
#[derive(Clone, Copy)]
pub struct Reals256([__m256; 2]);

/// One register of 16.
#[derive(Clone, Copy)]
pub struct Reals512(__m512);

/// # Safety
/// The processor must have AVX2, and `p` point to 64 bytes.
#[inline(always)]
unsafe fn load256<T>(p: *const T) -> [__m256i; 2] {
    let p = p.cast::<__m256i>();
    [_mm256_loadu_si256(p), _mm256_loadu_si256(p.add(1))]
}

/// # Safety
/// The processor must have AVX2, and `p` point to four bytes.
#[inline(always)]
unsafe fn broadcast256(p: *const u8) -> __m256i {
    _mm256_set1_epi32(p.cast::<i32>().read_unaligned())
}

/// See [`Lanes::transpose`]: four pixels' dwords gathered into lanes, then 4×4 bytes transposed
/// within each.
///
/// # Safety
/// The processor must have AVX2, and `p` point to 64 bytes.
#[inline(always)]
unsafe fn transpose256(p: *const u8) -> [__m256i; 2] {
    let order = _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7);
    let [a, b] = load256(p);
    let (a, b) = (_mm256_permutevar8x32_epi32(a, order), _mm256_permutevar8x32_epi32(b, order));
    let bytes = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    [_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)].map(|v| _mm256_shuffle_epi8(v, bytes))
}

/// # Safety
/// The processor must have AVX2, and both pointers point to 16 floats.
#[inline(always)]
unsafe fn scale256(sums: [__m256i; 2], factor: *const f32, offset: *const f32) -> Reals256 {
    let half = |i: usize| {
        let v = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i]), _mm256_loadu_ps(factor.add(8 * i)));
        _mm256_add_ps(v, _mm256_loadu_ps(offset.add(8 * i)))
    };
    Reals256([half(0), half(1)])
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for Avx2 {
    type Weights = [__m256i; 2];
    type Quads = [__m256i; 2];
    type Reals = Reals256;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(load256(p))
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        load256(p)
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        [broadcast256(p); 2]
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        transpose256(p)
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self {
        let half = |i: usize| {
            let pairs = _mm256_maddubs_epi16(x[i], w[i]);
            _mm256_add_epi32(self.0[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        };
        Self([half(0), half(1)])
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> Reals256 {
        scale256(self.0, factor, offset)
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for Avx2Wide {
    /// Even and odd weights of both halves, in 16 bits.
    type Weights = [[__m256i; 2]; 2];
    /// Even and odd bytes of both halves, in 16 bits.
    type Quads = [[__m256i; 2]; 2];
    type Reals = Reals256;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(load256(p))
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        load256(p).map(|w| [_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(w)), _mm256_srai_epi16::<8>(w)])
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        [even_and_odd(broadcast256(p)); 2]
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        let [a, b] = transpose256(p);
        [even_and_odd(a), even_and_odd(b)]
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self {
        let half = |i: usize| {
            let even = _mm256_add_epi32(self.0[i], _mm256_madd_epi16(x[i][0], w[i][0]));
            _mm256_add_epi32(even, _mm256_madd_epi16(x[i][1], w[i][1]))
        };
        Self([half(0), half(1)])
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> Reals256 {
        scale256(self.0, factor, offset)
    }
}

/// # Safety
/// The processor must have AVX2.
#[inline(always)]
unsafe fn even_and_odd(x: __m256i) -> [__m256i; 2] {
    [_mm256_and_si256(x, _mm256_set1_epi16(0xff)), _mm256_srli_epi16::<8>(x)]
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for AvxVnni {
    type Weights = [__m256i; 2];
    type Quads = [__m256i; 2];
    type Reals = Reals256;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(load256(p))
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        load256(p)
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        [broadcast256(p); 2]
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        transpose256(p)
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self {
        Self([_mm256_dpbusd_avx_epi32(self.0[0], x[0], w[0]), _mm256_dpbusd_avx_epi32(self.0[1], x[1], w[1])])
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> Reals256 {
        scale256(self.0, factor, offset)
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Lanes for Avx512Vnni {
    type Weights = __m512i;
    type Quads = __m512i;
    type Reals = Reals512;

    #[inline(always)]
    unsafe fn load(p: *const i32) -> Self {
        Self(_mm512_loadu_si512(p.cast()))
    }
    #[inline(always)]
    unsafe fn weights(p: *const i8) -> Self::Weights {
        _mm512_loadu_si512(p.cast())
    }
    #[inline(always)]
    unsafe fn broadcast(p: *const u8) -> Self::Quads {
        _mm512_set1_epi32(p.cast::<i32>().read_unaligned())
    }
    #[inline(always)]
    unsafe fn transpose(p: *const u8) -> Self::Quads {
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        let bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
        _mm512_shuffle_epi8(_mm512_permutexvar_epi32(order, _mm512_loadu_si512(p.cast())), bytes)
    }
    #[inline(always)]
    unsafe fn dot(self, x: Self::Quads, w: Self::Weights) -> Self {
        Self(_mm512_dpbusd_epi32(self.0, x, w))
    }
    #[inline(always)]
    unsafe fn scale(self, factor: *const f32, offset: *const f32) -> Reals512 {
        let v = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_loadu_ps(factor));
        Reals512(_mm512_add_ps(v, _mm512_loadu_ps(offset)))
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Reals for Reals256 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([_mm256_set1_ps(value); 2])
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        let (low, high) = (_mm256_set1_ps(low), _mm256_set1_ps(high));
        Self(self.0.map(|v| _mm256_min_ps(_mm256_max_ps(v, low), high)))
    }
    #[inline(always)]
    unsafe fn leaky_relu(self, factor: f32, zero: f32) -> Self {
        let (leak, factor, zero) = (_mm256_set1_ps(LEAK), _mm256_set1_ps(factor), _mm256_set1_ps(zero));
        let half = |i: usize| {
            let v = _mm256_max_ps(self.0[i], _mm256_mul_ps(self.0[i], leak));
            _mm256_add_ps(_mm256_mul_ps(v, factor), zero)
        };
        Self([half(0), half(1)])
    }
    #[inline(always)]
    unsafe fn add_bytes(self, p: *const u8, zero: f32, factor: f32) -> Self {
        let half = |i: usize| {
            let bytes = _mm_loadl_epi64(p.add(8 * i).cast());
            let v = _mm256_sub_ps(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)), _mm256_set1_ps(zero));
            _mm256_add_ps(self.0[i], _mm256_mul_ps(v, _mm256_set1_ps(factor)))
        };
        Self([half(0), half(1)])
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8) {
        // Conversion rounds half to even in the default mode, and packing saturates at both ends.
        // What no 32 bits hold becomes their least value, and so 0: right for what is negative or,
        // the minimum's second operand, not a number.
        let integers = |v| _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(255.0), v));
        let words = _mm256_packs_epi32(integers(self.0[0]), integers(self.0[1]));
        let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(words);
        let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
        _mm_storeu_si128(p.cast(), bytes);
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32) {
        _mm256_storeu_ps(p, self.0[0]);
        _mm256_storeu_ps(p.add(8), self.0[1]);
    }
    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self {
        Self([_mm256_loadu_ps(p), _mm256_loadu_ps(p.add(8))])
    }
}

// SAFETY: each method reads and writes the lanes that the trait names, and nothing else.
unsafe impl Reals for Reals512 {
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(_mm512_set1_ps(value))
    }
    #[inline(always)]
    unsafe fn clamp(self, low: f32, high: f32) -> Self {
        Self(_mm512_min_ps(_mm512_max_ps(self.0, _mm512_set1_ps(low)), _mm512_set1_ps(high)))
    }
    #[inline(always)]
    unsafe fn leaky_relu(self, factor: f32, zero: f32) -> Self {
        let v = _mm512_max_ps(self.0, _mm512_mul_ps(self.0, _mm512_set1_ps(LEAK)));
        Self(_mm512_add_ps(_mm512_mul_ps(v, _mm512_set1_ps(factor)), _mm512_set1_ps(zero)))
    }
    #[inline(always)]
    unsafe fn add_bytes(self, p: *const u8, zero: f32, factor: f32) -> Self {
        let v = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())));
        let v = _mm512_mul_ps(_mm512_sub_ps(v, _mm512_set1_ps(zero)), _mm512_set1_ps(factor));
        Self(_mm512_add_ps(self.0, v))
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8) {
        // The maximum makes 0 of what is not a number, its first operand. What 32 bits do not hold
        // becomes 2³¹, unsigned.
        let integers = _mm512_cvtps_epi32(_mm512_max_ps(self.0, _mm512_setzero_ps()));
        _mm_storeu_si128(p.cast(), _mm512_cvtusepi32_epi8(integers));
    }
    #[inline(always)]
    unsafe fn store_floats(self, p: *mut f32) {
        _mm512_storeu_ps(p, self.0);
    }
    #[inline(always)]
    unsafe fn load_floats(p: *const f32) -> Self {
        Self(_mm512_loadu_ps(p))
    }
}
