//! The transforms of F(4×4, 3×3): of filters once, of inputs and products tile by tile.

#![allow(clippy::needless_range_loop, reason = "rows and columns, as in the formulas")]

use super::super::simd::{Vector, BLOCK};
use crate::Activation;

/// Side of a tile of outputs, and of the inputs under it.
pub const TILE: usize = 4;
pub const PATCH: usize = 6;
pub const PRODUCTS: usize = PATCH * PATCH;

/// Filters: 6 × 3.
const G: [[f64; 3]; PATCH] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// The inputs under one tile of one block.
pub struct InputPatch {
    /// The first pixel of each row; null above and below the map.
    pub rows: [*const f32; PATCH],
    /// Pixels of each row that are not padding at its end.
    pub columns: usize,
    /// Of the first product; the others follow `step` floats apart.
    pub out: *mut f32,
    pub step: usize,
}

/// The products of one tile of one block, and where its results go.
pub struct OutputPatch {
    pub from: *const f32,
    pub step: usize,
    pub bias: *const f32,
    pub activation: Activation,
    pub rows: [*mut f32; TILE],
    /// Null where there is none.
    pub residual: [*const f32; TILE],
    /// Rows and columns that are within the map.
    pub height: usize,
    pub width: usize,
}

/// G g Gᵀ of one 3×3 filter.
pub fn transformed_filter(filter: &[f32]) -> [f32; PRODUCTS] {
    std::array::from_fn(|product| {
        let (row, column) = (&G[product / PATCH], &G[product % PATCH]);
        let term = |k: usize| row[k / 3] * f64::from(filter[k]) * column[k % 3];
        (0..9).map(term).sum::<f64>() as f32
    })
}

/// Bᵀ v.
///
/// # Safety
/// The function must be compiled for `V`.
#[inline(always)]
unsafe fn forward<V: Vector>(v: [V; PATCH]) -> [V; PATCH] {
    let (two, four, five) = (V::splat(2.0), V::splat(4.0), V::splat(-5.0));
    let (minus_two, minus_four) = (V::splat(-2.0), V::splat(-4.0));
    let (a, b) = (v[4].multiply_add(v[2], minus_four), v[3].multiply_add(v[1], minus_four));
    let (c, d) = (v[4].sub(v[2]), v[3].sub(v[1]));
    [
        v[4].multiply_add(v[2], five).multiply_add(v[0], four),
        a.add(b),
        a.sub(b),
        c.multiply_add(d, two),
        c.multiply_add(d, minus_two),
        v[5].multiply_add(v[3], five).multiply_add(v[1], four),
    ]
}

/// Aᵀ v.
///
/// # Safety
/// The function must be compiled for `V`.
#[inline(always)]
unsafe fn backward<V: Vector>(v: [V; PATCH]) -> [V; TILE] {
    let (a, b) = (v[1].add(v[2]), v[1].sub(v[2]));
    let (c, d) = (v[3].add(v[4]), v[3].sub(v[4]));
    [
        v[0].add(a).add(c),
        b.multiply_add(d, V::splat(2.0)),
        a.multiply_add(c, V::splat(4.0)),
        b.multiply_add(d, V::splat(8.0)).add(v[5]),
    ]
}

/// Transforms the inputs under a tile.
///
/// # Safety
/// The patch's pointers must be valid for its lengths, `V` one block wide, and the function
/// compiled for it.
#[inline(always)]
pub unsafe fn input<V: Vector>(patch: &InputPatch) {
    // Columns first: `half[j]` is Bᵀ of column j.
    let mut half = [[V::zero(); PATCH]; PATCH];
    for j in 0..patch.columns {
        let mut column = [V::zero(); PATCH];
        for i in 0..PATCH {
            if !patch.rows[i].is_null() {
                column[i] = V::load(patch.rows[i].add(j * BLOCK));
            }
        }
        half[j] = forward(column);
    }
    for i in 0..PATCH {
        let row = forward([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
        for j in 0..PATCH {
            row[j].store_blocks(patch.out.add((i * PATCH + j) * patch.step), 0);
        }
    }
}

/// Transforms the products of a tile, and finishes its results.
///
/// # Safety
/// As for [`input`].
#[inline(always)]
pub unsafe fn output<V: Vector>(patch: &OutputPatch) {
    let mut half = [[V::zero(); TILE]; PATCH];
    for j in 0..PATCH {
        let at = |i: usize| V::load(patch.from.add((i * PATCH + j) * patch.step));
        half[j] = backward([at(0), at(1), at(2), at(3), at(4), at(5)]);
    }
    let bias = V::load(patch.bias);
    for i in 0..patch.height {
        let row = backward([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
        for (j, &value) in row.iter().enumerate().take(patch.width) {
            let value = value.add(bias);
            let mut value = value.activate(patch.activation);
            if !patch.residual[i].is_null() {
                value = value.add(V::load(patch.residual[i].add(j * BLOCK)));
            }
            value.store_blocks(patch.rows[i].add(j * BLOCK), 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::simd::Portable;
    use super::*;

    #[test]
    fn one_tile_is_what_its_definition_gives() {
        let inputs: Vec<f32> = (0..36).map(|i| ((i * 37) % 19) as f32 - 9.0).collect();
        let filter: Vec<f32> = (0..9).map(|i| ((i * 5) % 7) as f32 - 3.0).collect();
        let pixels: Vec<[f32; BLOCK]> = inputs.iter().map(|&v| [v; BLOCK]).collect();
        let mut transformed = vec![[0.0f32; BLOCK]; PRODUCTS];
        let rows = std::array::from_fn(|i| pixels[i * PATCH..].as_ptr().cast());
        let patch = InputPatch { rows, columns: PATCH, out: transformed.as_mut_ptr().cast(), step: BLOCK };
        // SAFETY: the buffers hold a patch each; the portable vectors run anywhere.
        unsafe { input::<Portable>(&patch) };
        let u = transformed_filter(&filter);
        transformed.iter_mut().zip(u).for_each(|(pixel, u)| pixel.iter_mut().for_each(|v| *v *= u));
        let mut results = vec![[0.0f32; BLOCK]; TILE * TILE];
        let start: *mut f32 = results.as_mut_ptr().cast();
        let bias = [1.0f32; BLOCK];
        let patch = OutputPatch {
            from: transformed.as_ptr().cast(),
            step: BLOCK,
            bias: bias.as_ptr(),
            activation: Activation::Identity,
            // SAFETY: within the results.
            rows: std::array::from_fn(|i| unsafe { start.add(i * TILE * BLOCK) }),
            residual: [std::ptr::null(); TILE],
            height: TILE,
            width: TILE,
        };
        // SAFETY: as above.
        unsafe { output::<Portable>(&patch) };
        for (i, result) in results.iter().enumerate() {
            let term = |k: usize| filter[k] * inputs[(i / TILE + k / 3) * PATCH + i % TILE + k % 3];
            let expected = 1.0 + (0..9).map(term).sum::<f32>();
            assert!(result.iter().all(|v| (v - expected).abs() < 1e-4), "{i}: {result:?}, not {expected}");
        }
    }
}
