//! Filters as their products take them, and the gradients of these.

use std::array::from_fn;

use super::super::vectors::vectorised;
use super::super::Geometry;
use super::sides::{filter_gradient_side, filter_side, map, split, PATCH, PRODUCTS, TAPS};

/// Filters that are transformed at a time: as many as stay in a core's first cache.
const FILTERS: usize = 128;

/// Filters as their products take them: for each of 36 planes a matrix.
pub struct Filters {
    pub(super) values: Vec<f32>,
    /// Steps from one output channel to the next, and from one input channel.
    pub(super) steps: (usize, usize),
}

impl Filters {
    /// Of the weights `[out, in, 3, 3]`.
    pub fn new(g: &Geometry, weight: &[f32]) -> Self {
        Self { values: transformed(weight, |tap| tap), steps: (g.input.channels, 1) }
    }

    /// Of the [`adjoint`] of the convolution `g` with these weights.
    pub fn adjoint(g: &Geometry, weight: &[f32]) -> Self {
        Self { values: transformed(weight, |tap| TAPS - 1 - tap), steps: (1, g.input.channels) }
    }
}

/// `G w Gᵀ` of each filter, with its taps in the order `tap_of`: `[36, filters]`.
fn transformed(weight: &[f32], tap_of: impl Fn(usize) -> usize) -> Vec<f32> {
    let filters = weight.len() / TAPS;
    let mut values = vec![0.0; PRODUCTS * filters];
    let (mut taps, mut rows) = ([0.0; TAPS * FILTERS], [0.0; 3 * PATCH * FILTERS]);
    for first in (0..filters).step_by(FILTERS) {
        let together = first..(first + FILTERS).min(filters);
        for (i, filter) in weight[TAPS * first..TAPS * together.end].chunks_exact(TAPS).enumerate() {
            (0..TAPS).for_each(|tap| taps[tap * FILTERS + i] = filter[tap_of(tap)]);
        }
        vectorised!({
            // Along y for each column of taps, then along x.
            for (x, rows) in rows.chunks_mut(PATCH * FILTERS).enumerate() {
                map(from_fn(|y| &taps[(3 * y + x) * FILTERS..]), split(rows, FILTERS), filter_side);
            }
            for y in 0..PATCH {
                let from = from_fn(|x| &rows[(PATCH * x + y) * FILTERS..]);
                let mut planes = values.chunks_mut(filters).skip(y).step_by(PATCH);
                let into = from_fn(|_| &mut planes.next().expect("six of each")[together.clone()]);
                map(from, into, filter_side);
            }
        });
    }
    values
}

/// Adds the adjoint of [`transformed`]: from the gradients of the 36 planes to those of the weights.
pub fn add_weight_gradient(planes: &[f32], d_weight: &mut [f32]) {
    let filters = d_weight.len() / TAPS;
    let (mut taps, mut rows) = ([0.0; TAPS * FILTERS], [0.0; 3 * PATCH * FILTERS]);
    for first in (0..filters).step_by(FILTERS) {
        let together = (first + FILTERS).min(filters) - first;
        vectorised!({
            for y in 0..PATCH {
                let from = from_fn(|x| &planes[(PATCH * x + y) * filters + first..]);
                let mut columns = rows.chunks_mut(FILTERS).skip(y).step_by(PATCH);
                let into = from_fn(|_| &mut columns.next().expect("three of each")[..together]);
                map(from, into, filter_gradient_side);
            }
            for (x, rows) in rows.chunks(PATCH * FILTERS).enumerate() {
                let mut planes = taps.chunks_mut(FILTERS).skip(x).step_by(3);
                let into = from_fn(|_| planes.next().expect("three of each"));
                map(from_fn(|y| &rows[y * FILTERS..]), into, filter_gradient_side);
            }
        });
        for (i, filter) in d_weight[TAPS * first..].chunks_exact_mut(TAPS).enumerate().take(together) {
            filter.iter_mut().enumerate().for_each(|(tap, to)| *to += taps[tap * FILTERS + i]);
        }
    }
}
