//! Dense convolution of one image as a matrix product: 1×1 directly, larger kernels by im2col, in bands
//! of rows whose columns stay in the cache.

use std::ops::Range;

use gemm::{gemm, Parallelism};

use super::vectors::vectorised;
use super::Geometry;

/// Values of a band's columns: as many as stay in a core's second cache beside what they are multiplied with.
const BAND: usize = 1 << 17;

/// Values of scratch memory that an image of this geometry needs.
pub fn scratch_len(g: &Geometry) -> usize {
    if is_pointwise(g) {
        0
    } else {
        column_len(g) * band_rows(g) * g.output.width
    }
}

/// `output[o, p] = Σ weight[o, q] · columns[q, p]`; bias and activation are the caller's.
pub fn forward(g: &Geometry, input: &[f32], weight: &[f32], output: &mut [f32], scratch: &mut [f32]) {
    let (out, k, pixels) = (g.output.channels, column_len(g), g.output.pixels());
    for band in bands(g) {
        let (columns, n) = columns(g, input, scratch, &band);
        matmul((out, n, k), &mut output[band.first..], pixels, 0.0, (weight, k, 1), (columns, n, 1));
    }
}

/// Adds to the weights' gradient: `d_weight[o, q] += Σ d_output[o, p] · columns[q, p]`.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_weight: &mut [f32], scratch: &mut [f32]) {
    let (out, k, pixels) = (g.output.channels, column_len(g), g.output.pixels());
    for band in bands(g) {
        let (columns, n) = columns(g, input, scratch, &band);
        matmul((out, k, n), d_weight, k, 1.0, (&d_output[band.first..], pixels, 1), (columns, 1, n));
    }
}

/// The input's gradient; added to `d_input` when `accumulate`, else written over it.
pub fn backward_input(
    g: &Geometry,
    weight: &[f32],
    d_output: &[f32],
    d_input: &mut [f32],
    accumulate: bool,
    scratch: &mut [f32],
) {
    let (out, k, pixels) = (g.output.channels, column_len(g), g.output.pixels());
    if is_pointwise(g) {
        let keep = if accumulate { 1.0 } else { 0.0 };
        matmul((k, pixels, out), d_input, pixels, keep, (weight, 1, k), (d_output, pixels, 1));
        return;
    }
    if !accumulate {
        d_input.fill(0.0);
    }
    for band in bands(g) {
        let n = band.pixels(g);
        matmul((k, n, out), scratch, n, 0.0, (weight, 1, k), (&d_output[band.first..], pixels, 1));
        vectorised!({
            for_each_row(g, &band, |column, row| {
                let Some(row) = row else { return };
                let (from, into) = (&scratch[column..][row.to.clone()], &mut d_input[row.from..]);
                if g.conv.stride == 1 {
                    into.iter_mut().zip(from).for_each(|(into, from)| *into += from);
                } else {
                    into.iter_mut().step_by(g.conv.stride).zip(from).for_each(|(into, from)| *into += from);
                }
            });
        });
    }
}

fn is_pointwise(g: &Geometry) -> bool {
    g.conv.kernel == 1 && g.conv.stride == 1
}

fn column_len(g: &Geometry) -> usize {
    g.input.channels * g.conv.kernel * g.conv.kernel
}

/// Rows of outputs whose columns are multiplied at a time.
fn band_rows(g: &Geometry) -> usize {
    let most = (BAND / (column_len(g) * g.output.width)).clamp(1, g.output.height);
    // Of equal heights, so that none is a rest of a row or two.
    g.output.height.div_ceil(g.output.height.div_ceil(most))
}

/// Rows of outputs.
struct Band {
    rows: Range<usize>,
    /// The first output of each channel.
    first: usize,
}

impl Band {
    fn pixels(&self, g: &Geometry) -> usize {
        self.rows.len() * g.output.width
    }
}

/// The outputs in bands; all at once where no columns are copied.
fn bands(g: &Geometry) -> impl Iterator<Item = Band> {
    let (height, width) = (g.output.height, g.output.width);
    let rows = if is_pointwise(g) { height } else { band_rows(g) };
    (0..height).step_by(rows).map(move |y| Band { rows: y..(y + rows).min(height), first: y * width })
}

/// The inputs of each output of a band, `[column, output]`, and how many outputs those are.
fn columns<'a>(g: &Geometry, input: &'a [f32], scratch: &'a mut [f32], band: &Band) -> (&'a [f32], usize) {
    let n = band.pixels(g);
    if is_pointwise(g) {
        return (input, n);
    }
    for_each_row(g, band, |column, row| {
        let to = &mut scratch[column..][..g.output.width];
        let Some(row) = row else { return to.fill(0.0) };
        to[..row.to.start].fill(0.0);
        to[row.to.end..].fill(0.0);
        let to = &mut to[row.to];
        if g.conv.stride == 1 {
            to.copy_from_slice(&input[row.from..][..to.len()]);
        } else {
            to.iter_mut().zip(input[row.from..].iter().step_by(g.conv.stride)).for_each(|(to, from)| *to = *from);
        }
    });
    (scratch, n)
}

/// What a tap meets along a row of outputs: for the outputs `to` every `stride`th input from `from` on.
struct TapRow {
    to: Range<usize>,
    from: usize,
}

/// Calls `f(first value among the columns, tap)` for each tap and row of a band; `None` where the tap lies
/// above or below the image.
#[inline(always)]
fn for_each_row(g: &Geometry, band: &Band, mut f: impl FnMut(usize, Option<TapRow>)) {
    let (kernel, stride, width) = (g.conv.kernel, g.conv.stride, g.output.width);
    let n = band.pixels(g);
    for column in 0..column_len(g) {
        let (channel, ky, kx) = (column / (kernel * kernel), column / kernel % kernel, column % kernel);
        // Outputs whose input `x · stride + kx − left` is one.
        let first = g.pad_left.saturating_sub(kx).div_ceil(stride).min(width);
        let end = (g.input.width + g.pad_left).saturating_sub(kx).div_ceil(stride).clamp(first, width);
        for (row, y) in band.rows.clone().enumerate() {
            let input = (y * stride + ky).checked_sub(g.pad_top).filter(|&y| y < g.input.height && first < end);
            let tap = input.map(|y| TapRow {
                to: first..end,
                from: (channel * g.input.height + y) * g.input.width + first * stride + kx - g.pad_left,
            });
            f(column * n + row * width, tap);
        }
    }
}

/// `dst = keep · dst + lhs · rhs`, of m × n values with k products each; `dst` with `dst_row` values from one
/// row to the next, each operand given as (values, row stride, column stride).
pub(super) fn matmul(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    dst_row: usize,
    keep: f32,
    (lhs, lhs_row, lhs_col): (&[f32], usize, usize),
    (rhs, rhs_row, rhs_col): (&[f32], usize, usize),
) {
    let last = |rows: usize, row: usize, columns: usize, column: usize| (rows - 1) * row + (columns - 1) * column;
    assert!(m > 0 && n > 0 && k > 0 && n <= dst_row);
    assert!(last(m, dst_row, n, 1) < dst.len());
    assert!(last(m, lhs_row, k, lhs_col) < lhs.len() && last(k, rhs_row, n, rhs_col) < rhs.len());
    // SAFETY: the last value that is read of each operand, and the last that is written, lie within their
    // slices, as was checked just now; the others lie before them, since no stride is negative. No two of
    // the values that are written are one, since a row of `dst` is no longer than the step to the next.
    unsafe {
        gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            dst_row as isize,
            keep != 0.0,
            lhs.as_ptr(),
            lhs_col as isize,
            lhs_row as isize,
            rhs.as_ptr(),
            rhs_col as isize,
            rhs_row as isize,
            keep,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use peregrine_engine::{Activation, Conv, Padding, Shape};

    fn geometry(kernel: usize, stride: usize) -> Geometry {
        let conv = Conv { kernel, stride, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let input = Shape::new(3, 6, 8);
        Geometry::new(conv, input, Shape::new(4, 6 / stride, 8 / stride))
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for (kernel, stride) in [(1, 1), (3, 1), (3, 2), (5, 2)] {
            let g = geometry(kernel, stride);
            let input = check::values(g.input.len(), 1);
            let weight = check::values(4 * 3 * kernel * kernel, 2);
            let probe = check::values(g.output.len(), 3);
            let mut scratch = vec![0.0; scratch_len(&g)];
            let mut output = vec![0.0; g.output.len()];
            let mut value = |input: &[f32], weight: &[f32]| {
                let mut scratch = vec![0.0; scratch_len(&g)];
                forward(&g, input, weight, &mut output, &mut scratch);
                check::dot(&output, &probe)
            };
            let mut d_weight = vec![0.0; weight.len()];
            backward_weight(&g, &input, &probe, &mut d_weight, &mut scratch);
            check::gradient(&weight, &d_weight, |w| value(&input, w));
            let mut d_input = vec![0.0; input.len()];
            backward_input(&g, &weight, &probe, &mut d_input, false, &mut scratch);
            check::gradient(&input, &d_input, |x| value(x, &weight));
        }
    }
}
