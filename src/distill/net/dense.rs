//! Dense convolution of one image as a matrix product: 1×1 directly, larger kernels by im2col.

use gemm::{gemm, Parallelism};

use super::Geometry;

/// Values of scratch memory that an image of this geometry needs.
pub fn scratch_len(g: &Geometry) -> usize {
    if is_pointwise(g) {
        0
    } else {
        column_len(g) * g.output.pixels()
    }
}

/// `output[o, p] = Σ weight[o, q] · columns[q, p]`; bias and activation are the caller's.
pub fn forward(g: &Geometry, input: &[f32], weight: &[f32], output: &mut [f32], scratch: &mut [f32]) {
    let columns = columns(g, input, scratch);
    let (out, k, pixels) = (g.output.channels, column_len(g), g.output.pixels());
    matmul(out, pixels, k, output, 0.0, (weight, k, 1), (columns, pixels, 1));
}

/// Adds to the weights' gradient: `d_weight[o, q] += Σ d_output[o, p] · columns[q, p]`.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_weight: &mut [f32], scratch: &mut [f32]) {
    let columns = columns(g, input, scratch);
    let (out, k, pixels) = (g.output.channels, column_len(g), g.output.pixels());
    matmul(out, k, pixels, d_weight, 1.0, (d_output, pixels, 1), (columns, 1, pixels));
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
        matmul(k, pixels, out, d_input, keep, (weight, 1, k), (d_output, pixels, 1));
        return;
    }
    matmul(k, pixels, out, scratch, 0.0, (weight, 1, k), (d_output, pixels, 1));
    if !accumulate {
        d_input.fill(0.0);
    }
    for_each_tap(g, |column, pixel, value| d_input[value] += scratch[column * pixels + pixel]);
}

fn is_pointwise(g: &Geometry) -> bool {
    g.conv.kernel == 1 && g.conv.stride == 1
}

fn column_len(g: &Geometry) -> usize {
    g.input.channels * g.conv.kernel * g.conv.kernel
}

fn columns<'a>(g: &Geometry, input: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
    if is_pointwise(g) {
        return input;
    }
    let pixels = g.output.pixels();
    scratch.fill(0.0);
    for_each_tap(g, |column, pixel, value| scratch[column * pixels + pixel] = input[value]);
    scratch
}

/// Calls `f(column, output pixel, input value)` for each tap that falls inside the input.
fn for_each_tap(g: &Geometry, mut f: impl FnMut(usize, usize, usize)) {
    let (kernel, stride) = (g.conv.kernel, g.conv.stride);
    for channel in 0..g.input.channels {
        for ky in 0..kernel {
            for kx in 0..kernel {
                let column = (channel * kernel + ky) * kernel + kx;
                for oy in 0..g.output.height {
                    let Some(iy) = (oy * stride + ky).checked_sub(g.pad_top).filter(|&y| y < g.input.height) else {
                        continue;
                    };
                    for ox in 0..g.output.width {
                        let Some(ix) = (ox * stride + kx).checked_sub(g.pad_left).filter(|&x| x < g.input.width) else {
                            continue;
                        };
                        let value = (channel * g.input.height + iy) * g.input.width + ix;
                        f(column, oy * g.output.width + ox, value);
                    }
                }
            }
        }
    }
}

/// `dst = keep · dst + lhs · rhs`, `dst` being m × n row-major, each operand given as (values, row
/// stride, column stride).
fn matmul(
    m: usize,
    n: usize,
    k: usize,
    dst: &mut [f32],
    keep: f32,
    (lhs, lhs_row, lhs_col): (&[f32], usize, usize),
    (rhs, rhs_row, rhs_col): (&[f32], usize, usize),
) {
    assert!(dst.len() >= m * n && lhs.len() >= m * k && rhs.len() >= k * n);
    // SAFETY: the lengths were checked just now, and every (row, column) offset below stays within
    // m·n, m·k or k·n values, since each operand is dense and its two strides are 1 and the length
    // of its other side.
    unsafe {
        gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            1,
            n as isize,
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
