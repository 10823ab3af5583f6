//! Weighted sums of source rows: 8 bits before the point and 8 behind it, whatever the source has. Plain loops over 16-bit
//! numbers, which compilers turn into the processor's vectors.

use peregrine_core::encoding::Channel16;

use super::axis::Tap;

/// Most rows of a sum: up to four, and of a mosaic those above and below each.
const MAX_ROWS: usize = 8;

/// One, as the share of a row.
const SHARE_ONE: u32 = 1 << 16;

/// How a plane's bytes become numbers, 255 · 2⁸ at most.
pub trait Depth: Copy {
    /// Bytes of a number.
    const BYTES: usize;
    /// Whether [`weighted`](Self::weighted) gives half of what it should: twice of it is left to the sum.
    const HALF: bool = false;
    /// What a number is multiplied by in [`weighted`](Self::weighted), of a row's share in units of 1 / `SHARE_ONE`.
    fn factor(self, share: u32) -> u16;
    fn weighted(self, bytes: &[u8], factor: u16) -> u16;
}

/// A byte each, in rows whose weights are 256ths: exact.
#[derive(Clone, Copy)]
pub struct Bits8;

/// A byte each, in rows of any share.
#[derive(Clone, Copy)]
pub struct Bits8Shared;

/// 16 bits each, to 255 steps: `white` becomes 255, to within 6/256 of a step for each row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale16 {
    /// Whether the byte of the higher bits comes first.
    pub big_endian: bool,
    /// What is above it is white, too.
    pub white: u16,
    /// Left shift that brings `white` to 2¹⁵ at least.
    pub shift: u32,
    /// In units of 2⁻¹⁵, of the shifted value.
    pub factor: u16,
}

/// Numbers of a [`Scale16`], of a byte order that is known when compiled.
#[derive(Clone, Copy)]
pub struct Bits16<const BIG_ENDIAN: bool>(pub Scale16);

impl Scale16 {
    pub fn new(channel: Channel16) -> Self {
        let white = channel.white.get();
        let shift = white.leading_zeros();
        let shifted = u32::from(white) << shift;
        Self { big_endian: channel.big_endian, white, shift, factor: ((255 << 8 << 15) / shifted) as u16 }
    }
}

impl Depth for Bits8 {
    const BYTES: usize = 1;

    #[inline(always)]
    fn factor(self, share: u32) -> u16 {
        (share >> 8) as u16
    }

    #[inline(always)]
    fn weighted(self, bytes: &[u8], factor: u16) -> u16 {
        u16::from(bytes[0]) * factor
    }
}

impl Depth for Bits8Shared {
    const BYTES: usize = 1;

    #[inline(always)]
    fn factor(self, share: u32) -> u16 {
        share.min(u32::from(u16::MAX)) as u16
    }

    #[inline(always)]
    fn weighted(self, bytes: &[u8], factor: u16) -> u16 {
        // The upper half of 256 times the byte times the factor, in numbers of 16 bits.
        let byte = u16::from(bytes[0]);
        byte * (factor >> 8) + ((byte * (factor & 255)) >> 8)
    }
}

impl<const BIG_ENDIAN: bool> Depth for Bits16<BIG_ENDIAN> {
    const BYTES: usize = 2;
    // A shift behind each product would keep compilers from the vectors' own instruction for its upper half.
    const HALF: bool = true;

    #[inline(always)]
    fn factor(self, share: u32) -> u16 {
        ((u32::from(self.0.factor) * share.min(u32::from(u16::MAX))) >> 16) as u16
    }

    #[inline(always)]
    fn weighted(self, bytes: &[u8], factor: u16) -> u16 {
        let bytes = [bytes[0], bytes[1]];
        let value = if BIG_ENDIAN { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
        high(value.min(self.0.white) << self.0.shift, factor)
    }
}

/// The upper half of a product.
#[inline(always)]
fn high(a: u16, b: u16) -> u16 {
    ((u32::from(a) * u32::from(b)) >> 16) as u16
}

/// Half the sum, rounded up.
#[inline(always)]
pub fn mean(a: u16, b: u16) -> u16 {
    ((u32::from(a) + u32::from(b) + 1) >> 1) as u16
}

/// Source rows, each with its share of a sum; shares are one together at most.
pub struct Rows<'a> {
    rows: [(&'a [u8], u32); MAX_ROWS],
    count: usize,
    last: usize,
}

impl<'a> Rows<'a> {
    /// No row.
    #[inline(always)]
    pub fn none() -> Self {
        Self { rows: [(&[], 0); MAX_ROWS], count: 0, last: usize::MAX }
    }

    /// Those of `taps` that have weight, each as `row` gives it.
    #[inline(always)]
    pub fn of(taps: &[Tap], row: impl Fn(usize) -> &'a [u8]) -> Self {
        let mut rows = Self::none();
        for tap in taps.iter().filter(|tap| tap.weight > 0) {
            rows.push(tap.index as usize, tap.weight << 8, &row);
        }
        rows
    }

    /// Adds a share of row `y`, none above one that was added before.
    #[inline(always)]
    pub fn push(&mut self, y: usize, share: u32, row: impl Fn(usize) -> &'a [u8]) {
        debug_assert!(share <= SHARE_ONE);
        if self.last == y {
            self.rows[self.count - 1].1 += share;
            return;
        }
        self.rows[self.count] = (row(y), share);
        (self.count, self.last) = (self.count + 1, y);
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Writes the weighted sum: as many numbers as `out` has, which the rows hold at least.
    #[inline(always)]
    pub fn blend<D: Depth>(&self, depth: D, out: &mut [u16]) {
        let bytes = out.len() * D::BYTES;
        let row = |(row, share): &(&'a [u8], u32)| (row[..bytes].chunks_exact(D::BYTES), depth.factor(*share));
        for (i, pair) in self.rows[..self.count].chunks(2).enumerate() {
            let (a, wa) = row(&pair[0]);
            match (i, pair.get(1).map(row)) {
                (0, None) => out.iter_mut().zip(a).for_each(|(out, a)| *out = depth.weighted(a, wa)),
                (_, None) => out.iter_mut().zip(a).for_each(|(out, a)| *out += depth.weighted(a, wa)),
                (0, Some((b, wb))) => {
                    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                        *out = depth.weighted(a, wa) + depth.weighted(b, wb);
                    }
                }
                (_, Some((b, wb))) => {
                    for ((out, a), b) in out.iter_mut().zip(a).zip(b) {
                        *out += depth.weighted(a, wa) + depth.weighted(b, wb);
                    }
                }
            }
        }
        if D::HALF && self.count > 0 {
            out.iter_mut().for_each(|out| *out <<= 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sixteen_bits_become_255_steps_in_either_byte_order(white in 1u16.., value in any::<u16>()) {
            let white_level = NonZeroU16::new(white).unwrap();
            let scale = |big_endian| Scale16::new(Channel16 { big_endian, white: white_level });
            let expected = 255.0 * f64::from(value.min(white)) / f64::from(white);
            let (little, big) = (Bits16::<false>(scale(false)), Bits16::<true>(scale(true)));
            let factor = little.factor(SHARE_ONE);
            let found = little.weighted(&value.to_le_bytes(), factor);
            prop_assert_eq!(big.weighted(&value.to_be_bytes(), factor), found);
            prop_assert!((f64::from(found) / 128.0 - expected).abs() < 6.0 / 256.0, "{} {}", found, expected);
        }
    }
}
