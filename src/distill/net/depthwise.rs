//! Depthwise convolution of one channel, by rows.
//!
//! A strided row is split once into its phases (even and odd columns for stride 2), after which
//! every tap is a shifted, contiguous multiply-add that the compiler vectorises.

use super::{dot, Geometry};

/// Values of scratch memory that one channel needs.
pub fn scratch_len(g: &Geometry) -> usize {
    if g.conv.stride == 1 {
        0
    } else {
        g.conv.stride * phase_len(g)
    }
}

/// Writes one output channel, without bias and activation.
pub fn forward(g: &Geometry, input: &[f32], kernel: &[f32], output: &mut [f32], scratch: &mut [f32]) {
    let phases = split(g, input, scratch);
    output.fill(0.0);
    for_each_tap_row(g, |tap, output_row, phase_row, len| {
        let w = kernel[tap];
        for (o, &i) in output[output_row..][..len].iter_mut().zip(&phases[phase_row..][..len]) {
            *o += w * i;
        }
    });
}

/// Adds to the gradient of one channel's kernel.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_kernel: &mut [f32], scratch: &mut [f32]) {
    let phases = split(g, input, scratch);
    for_each_tap_row(g, |tap, output_row, phase_row, len| {
        d_kernel[tap] += dot(&d_output[output_row..][..len], &phases[phase_row..][..len]);
    });
}

/// Adds to the gradient of one input channel.
pub fn backward_input(g: &Geometry, kernel: &[f32], d_output: &[f32], d_input: &mut [f32], scratch: &mut [f32]) {
    let scatter = |phases: &mut [f32]| {
        for_each_tap_row(g, |tap, output_row, phase_row, len| {
            let w = kernel[tap];
            for (i, &o) in phases[phase_row..][..len].iter_mut().zip(&d_output[output_row..][..len]) {
                *i += w * o;
            }
        });
    };
    if g.conv.stride == 1 {
        return scatter(d_input);
    }
    scratch.fill(0.0);
    scatter(scratch);
    for_each_phase_value(g, |value, phased| d_input[value] += scratch[phased]);
}

fn phase_width(g: &Geometry) -> usize {
    g.input.width.div_ceil(g.conv.stride)
}

fn phase_len(g: &Geometry) -> usize {
    g.input.height * phase_width(g)
}

fn split<'a>(g: &Geometry, input: &'a [f32], scratch: &'a mut [f32]) -> &'a [f32] {
    if g.conv.stride == 1 {
        return input;
    }
    for_each_phase_value(g, |value, phased| scratch[phased] = input[value]);
    scratch
}

/// Calls `f(index in the plane, index in the phases)` for each value of the plane.
fn for_each_phase_value(g: &Geometry, mut f: impl FnMut(usize, usize)) {
    let (stride, width) = (g.conv.stride, phase_width(g));
    for y in 0..g.input.height {
        for phase in 0..stride {
            for (column, x) in (phase..g.input.width).step_by(stride).enumerate() {
                f(y * g.input.width + x, phase * phase_len(g) + y * width + column);
            }
        }
    }
}

/// Calls `f(tap, first output value, first phase value, run length)` for each row of each tap
/// inside the input.
fn for_each_tap_row(g: &Geometry, mut f: impl FnMut(usize, usize, usize, usize)) {
    let (kernel, stride, width) = (g.conv.kernel, g.conv.stride as isize, phase_width(g));
    for oy in 0..g.output.height {
        for ky in 0..kernel {
            let Some(iy) = (oy * g.conv.stride + ky).checked_sub(g.pad_top).filter(|&y| y < g.input.height) else {
                continue;
            };
            for kx in 0..kernel {
                let offset = kx as isize - g.pad_left as isize;
                let (phase, shift) = (offset.rem_euclid(stride) as usize, offset.div_euclid(stride));
                // Columns of this phase that exist; the last phase of an odd width has one fewer.
                let columns = ((g.input.width - phase.min(g.input.width)).div_ceil(g.conv.stride)) as isize;
                let first = (-shift).max(0);
                let last = (columns - shift).min(g.output.width as isize);
                if last <= first {
                    continue;
                }
                let phase_row = (phase * phase_len(g) + iy * width) as isize + first + shift;
                let output_row = oy * g.output.width + first as usize;
                f(ky * kernel + kx, output_row, phase_row as usize, (last - first) as usize);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check, dense};
    use super::*;
    use peregrine_engine::{Activation, Conv, Padding, Shape};

    fn cases() -> impl Iterator<Item = Geometry> {
        let sizes = [(6, 8), (7, 5), (4, 4)];
        [(3, 1), (5, 1), (3, 2), (5, 2)].into_iter().flat_map(move |(kernel, stride)| {
            sizes.into_iter().map(move |(h, w): (usize, usize)| {
                let conv =
                    Conv { kernel, stride, depthwise: true, activation: Activation::Identity, padding: Padding::Same };
                let output = Shape::new(1, h.div_ceil(stride), w.div_ceil(stride));
                Geometry::new(conv, Shape::new(1, h, w), output)
            })
        })
    }

    fn run(g: &Geometry, input: &[f32], kernel: &[f32]) -> Vec<f32> {
        let mut output = vec![0.0; g.output.len()];
        forward(g, input, kernel, &mut output, &mut vec![0.0; scratch_len(g)]);
        output
    }

    #[test]
    fn one_channel_equals_a_dense_convolution() {
        for g in cases() {
            let input = check::values(g.input.len(), 1);
            let kernel = check::values(g.conv.kernel * g.conv.kernel, 2);
            let mut expected = vec![0.0; g.output.len()];
            dense::forward(&g, &input, &kernel, &mut expected, &mut vec![0.0; dense::scratch_len(&g)]);
            for (a, b) in run(&g, &input, &kernel).iter().zip(&expected) {
                assert!((a - b).abs() < 1e-5, "{g:?}");
            }
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        for g in cases() {
            let input = check::values(g.input.len(), 1);
            let kernel = check::values(g.conv.kernel * g.conv.kernel, 2);
            let probe = check::values(g.output.len(), 3);
            let mut scratch = vec![0.0; scratch_len(&g)];
            let mut d_kernel = vec![0.0; kernel.len()];
            backward_weight(&g, &input, &probe, &mut d_kernel, &mut scratch);
            check::gradient(&kernel, &d_kernel, |w| check::dot(&run(&g, &input, w), &probe));
            let mut d_input = vec![0.0; input.len()];
            backward_input(&g, &kernel, &probe, &mut d_input, &mut scratch);
            check::gradient(&input, &d_input, |x| check::dot(&run(&g, x, &kernel), &probe));
        }
    }
}
