//! Bilinear upsampling of one channel by two, and its adjoint.

use peregrine_engine::Shape;

/// The input rows (or columns) of output row (or column) `at`, of `size`, and their weights.
fn taps(at: usize, size: usize) -> [(usize, f32); 2] {
    let own = at / 2;
    let beside = if at.is_multiple_of(2) { own.saturating_sub(1) } else { (own + 1).min(size - 1) };
    [(own, 0.75), (beside, 0.25)]
}

/// Calls `f(output value, input value, weight)` for each share of an input value in an output's.
fn for_each_share(from: Shape, mut f: impl FnMut(usize, usize, f32)) {
    for y in 0..2 * from.height {
        for x in 0..2 * from.width {
            for (row, of_row) in taps(y, from.height) {
                for (column, of_column) in taps(x, from.width) {
                    f(y * 2 * from.width + x, row * from.width + column, of_row * of_column);
                }
            }
        }
    }
}

/// Writes `output`, twice as high and wide as the `input` of shape `from`.
pub fn forward(from: Shape, input: &[f32], output: &mut [f32]) {
    output.fill(0.0);
    for_each_share(from, |to, at, weight| output[to] += weight * input[at]);
}

/// Adds to the input's gradient.
pub fn backward(from: Shape, gradient: &[f32], into: &mut [f32]) {
    for_each_share(from, |to, at, weight| into[at] += weight * gradient[to]);
}
