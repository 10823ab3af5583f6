//! The transforms of F(4×4, 3×3) in whole numbers: of filters once, of inputs and products tile by tile.

#![allow(clippy::needless_range_loop, reason = "rows and columns, as in the formulas")]

use super::super::layout::BLOCK;
use super::super::tiles::{finish, Epilogue};
use super::simd::{WinogradLanes, Words};

/// Side of a tile of outputs, and of the inputs under it.
pub const TILE: usize = 4;
pub const PATCH: usize = 6;
pub const PRODUCTS: usize = PATCH * PATCH;

/// Filters, 6 × 3: G's rows times 4, 6, 6, 24, 24 and 1.
const G: [[i16; 3]; PATCH] = [[1, 0, 0], [-1, -1, -1], [-1, 1, -1], [1, 2, 4], [1, -2, 4], [0, 0, 1]];

/// 9 · this is 1 modulo 2³².
const ONE_NINTH: i32 = 0x38e3_8e39;

/// The inputs under one tile of one block.
pub struct InputPatch {
    /// The first pixel of each row; null above and below the map.
    pub rows: [*const u8; PATCH],
    /// Pixels of each row that may be read: the others are beyond the border.
    pub columns: usize,
    /// What stands for zero, and so outside of the map.
    pub zero: u8,
    /// Of the first product; the others follow `step` words apart.
    pub out: *mut i16,
    pub step: usize,
}

/// The products of one tile of one block, and where its results go.
pub struct OutputPatch<'a> {
    pub from: *const i32,
    /// From one product to the next.
    pub step: usize,
    /// What the block's sums start from.
    pub start: *const i32,
    /// Of each row within the map, at the tile's first pixel.
    pub rows: &'a [Epilogue],
    /// Columns that are within the map.
    pub width: usize,
}

/// G g Gᵀ of one 3×3 filter: at most 49 · 127, so within 16 bits.
pub fn transformed_filter(filter: &[i8]) -> [i16; PRODUCTS] {
    std::array::from_fn(|product| {
        let (row, column) = (&G[product / PATCH], &G[product % PATCH]);
        (0..9).map(|k| row[k / 3] * i16::from(filter[k]) * column[k % 3]).sum()
    })
}

/// Bᵀ v. Twice and of bytes, at most 68 · 255 in magnitude, so within 16 bits.
///
/// # Safety
/// The function must be compiled for `W`.
#[inline(always)]
unsafe fn forward<W: Words>(v: [W; PATCH]) -> [W; PATCH] {
    let (a, b) = (v[4].sub(v[2].shift_left::<2>()), v[3].sub(v[1].shift_left::<2>()));
    let (c, d) = (v[4].sub(v[2]), v[3].sub(v[1]));
    let twice = d.shift_left::<1>();
    [
        v[0].sub(v[2]).shift_left::<2>().add(c),
        a.add(b),
        a.sub(b),
        c.add(twice),
        c.sub(twice),
        v[5].sub(v[3]).sub(d.shift_left::<2>()),
    ]
}

/// 24 Aᵀ v with each row's power of two taken out: 2⁰, 2¹, 2² and 2². The filters' rows have some factors
/// already; what is missing to 24 is 6, 4, 4, 1, 1 and 24.
///
/// # Safety
/// The function must be compiled for `L`.
#[inline(always)]
unsafe fn backward<L: WinogradLanes>(v: [L; PATCH]) -> [L; TILE] {
    let (a, b) = (v[1].add(v[2]), v[1].sub(v[2]));
    let (c, d) = (v[3].add(v[4]), v[3].sub(v[4]));
    let thrice = v[5].add(v[5].shift_left::<1>());
    [
        v[0].add(a).shift_left::<2>().add(v[0].shift_left::<1>()).add(c),
        b.shift_left::<1>().add(d),
        a.add(c),
        d.add(thrice).shift_left::<1>().add(b),
    ]
}

/// The sums of a row of outputs, of which `backward` has made 9 · 2ᴺ times as much: N is 6 less what was taken out,
/// of the first, second and last two.
///
/// # Safety
/// As for [`backward`].
#[inline(always)]
unsafe fn sums<L: WinogradLanes, const A: i32, const B: i32, const C: i32>(row: [L; TILE], start: L) -> [[L; 1]; TILE] {
    let [a, b, c, d] = row;
    [
        [a.scaled::<A>(ONE_NINTH).add(start)],
        [b.scaled::<B>(ONE_NINTH).add(start)],
        [c.scaled::<C>(ONE_NINTH).add(start)],
        [d.scaled::<C>(ONE_NINTH).add(start)],
    ]
}

/// Transforms the inputs under a tile.
///
/// # Safety
/// The patch's pointers must be valid for its lengths, and the function compiled for `W`.
#[inline(always)]
pub unsafe fn input<W: Words>(patch: &InputPatch) {
    // Columns first: `half[j]` is Bᵀ of column j.
    let zero = W::splat(i16::from(patch.zero));
    let mut half = [[zero; PATCH]; PATCH];
    for j in 0..PATCH {
        let mut column = [zero; PATCH];
        if j < patch.columns {
            for i in 0..PATCH {
                if !patch.rows[i].is_null() {
                    column[i] = W::widen(patch.rows[i].add(j * BLOCK));
                }
            }
        }
        half[j] = forward(column);
    }
    for i in 0..PATCH {
        let row = forward([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
        for j in 0..PATCH {
            row[j].store(patch.out.add((i * PATCH + j) * patch.step));
        }
    }
}

/// Transforms the products of a tile, and finishes its results.
///
/// # Safety
/// As for [`input`].
#[inline(always)]
pub unsafe fn output<L: WinogradLanes>(patch: &OutputPatch) {
    let mut half = [[L::zero(); TILE]; PATCH];
    for j in 0..PATCH {
        let at = |i: usize| L::load(patch.from.add((i * PATCH + j) * patch.step));
        half[j] = backward([at(0), at(1), at(2), at(3), at(4), at(5)]);
    }
    let start = L::load(patch.start);
    for (i, epilogue) in patch.rows.iter().enumerate() {
        let row = backward([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
        let [a, b, c, d] = match i {
            0 => sums::<L, 6, 5, 4>(row, start),
            1 => sums::<L, 5, 4, 3>(row, start),
            _ => sums::<L, 4, 3, 2>(row, start),
        };
        match patch.width {
            1 => finish::<L, 1, 1>(&[a], epilogue),
            2 => finish::<L, 2, 1>(&[a, b], epilogue),
            3 => finish::<L, 3, 1>(&[a, b, c], epilogue),
            _ => finish::<L, 4, 1>(&[a, b, c, d], epilogue),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::simd::Portable;
    use super::super::simd::PortableWords;
    use super::*;

    #[test]
    fn a_ninth_is_what_nine_times_makes_one() {
        assert_eq!(ONE_NINTH.wrapping_mul(9), 1);
    }

    /// The rows of Bᵀ from its own code, and the largest and least that it makes of bytes when applied twice.
    #[test]
    fn transformed_bytes_and_filters_fit_sixteen_bits() {
        let column = |k: usize| {
            let unit = std::array::from_fn(|i| i16::from(i == k));
            // SAFETY: portable vectors run anywhere.
            unsafe { forward::<PortableWords>(unit.map(|v| PortableWords::splat(v))) }.map(|w| {
                let mut lanes = [0; BLOCK];
                // SAFETY: as long as the vector.
                unsafe { w.store(lanes.as_mut_ptr()) };
                i32::from(lanes[0])
            })
        };
        let columns: Vec<_> = (0..PATCH).map(column).collect();
        for (i, j) in (0..PRODUCTS).map(|p| (p / PATCH, p % PATCH)) {
            let term = |k: usize| 255 * columns[k / PATCH][i] * columns[k % PATCH][j];
            let largest: i32 = (0..PRODUCTS).map(|k| term(k).max(0)).sum();
            let least: i32 = (0..PRODUCTS).map(|k| term(k).min(0)).sum();
            assert!(largest <= i32::from(i16::MAX) && least >= i32::from(i16::MIN), "{i}, {j}: {least} to {largest}");
        }
        let extremes =
            (0..512_u32).map(|bits| std::array::from_fn::<i8, 9, _>(|k| if bits >> k & 1 == 1 { 127 } else { -127 }));
        for filter in extremes {
            let wide = |product: usize| -> i32 {
                let (row, column) = (&G[product / PATCH], &G[product % PATCH]);
                (0..9).map(|k| i32::from(row[k / 3]) * i32::from(filter[k]) * i32::from(column[k % 3])).sum()
            };
            let transformed = transformed_filter(&filter);
            assert!((0..PRODUCTS).all(|p| wide(p) == i32::from(transformed[p])));
        }
    }

    #[test]
    fn one_tile_is_what_its_definition_gives_to_the_last_bit() {
        let inputs: Vec<u8> = (0..36).map(|i| ((i * 83) % 256) as u8).collect();
        let filter: Vec<i8> = (0..9).map(|i| ((i * 101) % 255 - 127) as i8).collect();
        let pixels: Vec<[u8; BLOCK]> = inputs.iter().map(|&v| [v; BLOCK]).collect();
        let mut words = vec![[0i16; BLOCK]; PRODUCTS];
        let rows = std::array::from_fn(|i| pixels[i * PATCH..].as_ptr().cast());
        let patch = InputPatch { rows, columns: PATCH, zero: 0, out: words.as_mut_ptr().cast(), step: BLOCK };
        // SAFETY: the buffers hold a patch each; the portable vectors run anywhere.
        unsafe { input::<PortableWords>(&patch) };
        let u = transformed_filter(&filter);
        let products: Vec<[i32; BLOCK]> =
            words.iter().zip(u).map(|(words, u)| words.map(|w| i32::from(w).wrapping_mul(i32::from(u)))).collect();
        let mut results = [[[0.0f32; TILE]; BLOCK]; TILE];
        let (factor, offset, start) = ([1.0; BLOCK], [0.0; BLOCK], [7; BLOCK]);
        let rows: Vec<_> = results
            .iter_mut()
            .map(|row| Epilogue {
                factor: factor.as_ptr(),
                offset: offset.as_ptr(),
                bounds: None,
                late: None,
                residual: std::ptr::null(),
                residual_plane: 0,
                residual_zero: 0.0,
                residual_factor: 0.0,
                upsampled_from: None,
                out: std::ptr::null_mut(),
                out_plane: 0,
                floats: row.as_mut_ptr().cast(),
                float_plane: TILE,
                float_channels: BLOCK,
            })
            .collect();
        let patch = OutputPatch {
            from: products.as_ptr().cast(),
            step: BLOCK,
            start: start.as_ptr(),
            rows: &rows,
            width: TILE,
        };
        // SAFETY: as above.
        unsafe { output::<Portable>(&patch) };
        for (i, x) in (0..TILE * TILE).map(|at| (at / TILE, at % TILE)) {
            let term = |k: usize| i32::from(filter[k]) * i32::from(inputs[(i + k / 3) * PATCH + x + k % 3]);
            let expected = (7 + (0..9).map(term).sum::<i32>()) as f32;
            assert!(
                results[i].iter().all(|channel| channel[x] == expected),
                "{i}, {x}: {:?}, not {expected}",
                results[i][0]
            );
        }
    }
}
