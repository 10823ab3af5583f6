//! Weighted sums of four samples at a time: the inner loop of resampling, in the vectors that every x86-64 has.

use super::axis::COLUMN_ONE;

/// Two weights of columns, at most [`COLUMN_ONE`] together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weights(u32);

impl Weights {
    /// Both negated, since 2¹⁵ fits 16 bits as a negative number only.
    pub fn new(first: u32, second: u32) -> Self {
        debug_assert!(first + second <= COLUMN_ONE);
        let half = |w: u32| u32::from((w as u16).wrapping_neg());
        Self(half(first) | half(second) << 16)
    }

    #[cfg_attr(
        target_arch = "x86_64",
        allow(dead_code, reason = "for processors without these vectors, and the tests")
    )]
    fn both(self) -> [u32; 2] {
        [self.0, self.0 >> 16].map(|half| u32::from((half as u16).wrapping_neg()))
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub use portable::Sums;
#[cfg(target_arch = "x86_64")]
pub use sse2::Sums;

/// What is unsafe here is so only because it needs SSE2, which every x86-64 has: no function takes a pointer.
#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::*;

    use super::{Weights, COLUMN_ONE};

    /// Sums of samples times weights that add up to [`COLUMN_ONE`].
    #[derive(Clone, Copy)]
    pub struct Sums(__m128i);

    impl Sums {
        /// `pmaddwd` multiplies signed numbers, so 2¹⁵ is taken off each sample, which takes 2¹⁵ times the sum of all
        /// weights off the result: what sums start from.
        #[inline(always)]
        pub fn new() -> Self {
            // SAFETY: as the module says.
            Self(unsafe { _mm_set1_epi32((COLUMN_ONE << 15) as i32) })
        }

        #[inline(always)]
        pub fn add(self, first: [u16; 4], second: [u16; 4], weights: Weights) -> Self {
            let bits = |v: [u16; 4]| v.iter().rev().fold(0, |bits, &sample| bits << 16 | i64::from(sample));
            // SAFETY: as the module says.
            unsafe {
                let pairs = _mm_unpacklo_epi16(_mm_cvtsi64_si128(bits(first)), _mm_cvtsi64_si128(bits(second)));
                let signed = _mm_xor_si128(pairs, _mm_set1_epi16(i16::MIN));
                Self(_mm_sub_epi32(self.0, _mm_madd_epi16(signed, _mm_set1_epi32(weights.0 as i32))))
            }
        }

        #[inline(always)]
        pub fn values(self) -> [f32; 4] {
            // SAFETY: as the module says; both are 16 bytes of any content.
            unsafe { std::mem::transmute(_mm_cvtepi32_ps(self.0)) }
        }
    }
}

#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use super::Weights;

    /// Sums of samples times weights that add up to [`COLUMN_ONE`](super::COLUMN_ONE).
    #[derive(Clone, Copy)]
    pub struct Sums([u32; 4]);

    impl Sums {
        #[inline(always)]
        pub fn new() -> Self {
            Self([0; 4])
        }

        #[inline(always)]
        pub fn add(self, first: [u16; 4], second: [u16; 4], weights: Weights) -> Self {
            let [a, b] = weights.both();
            Self(std::array::from_fn(|c| self.0[c] + u32::from(first[c]) * a + u32::from(second[c]) * b))
        }

        #[inline(always)]
        pub fn values(self) -> [f32; 4] {
            self.0.map(|v| v as i32 as f32)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_processors_vectors_agree_with_plain_rust(
            samples in prop::array::uniform4(prop::array::uniform4(0u16..=255 * 256)),
            cuts in prop::array::uniform3(0u32..=COLUMN_ONE),
        ) {
            let mut cuts = [0, cuts[0], cuts[1], cuts[2], COLUMN_ONE];
            cuts.sort_unstable();
            let weight = |i: usize| cuts[i + 1] - cuts[i];
            let pairs = [Weights::new(weight(0), weight(1)), Weights::new(weight(2), weight(3))];
            let (mut plain, mut vectors) = (portable::Sums::new(), Sums::new());
            for (pair, weights) in samples.chunks_exact(2).zip(pairs) {
                plain = plain.add(pair[0], pair[1], weights);
                vectors = vectors.add(pair[0], pair[1], weights);
            }
            prop_assert_eq!(plain.values(), vectors.values());
        }
    }
}
