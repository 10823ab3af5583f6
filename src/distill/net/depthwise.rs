//! Depthwise convolution of one channel.
//!
//! The plane is copied once, with zeros around it and split into its phases (for stride 2 even and
//! odd rows and columns). All phases have one pitch, so that every tap of every output of the plane
//! is the same step away: the convolution is a sum of shifted runs over the plane as one line, whose
//! values beyond the ends of rows are computed and left out.

use super::vectors::{fuses, multiply_add, vectorised};
use super::Geometry;

/// Taps that are summed in one pass over a line.
const TOGETHER: usize = 5;

/// Values of scratch memory that one channel needs.
pub fn scratch_len(g: &Geometry) -> usize {
    let lines = Lines::of(g);
    lines.phases_len() + lines.margin() + lines.phase_len()
}

/// Writes one output channel, without bias and activation.
pub fn forward(g: &Geometry, input: &[f32], kernel: &[f32], output: &mut [f32], scratch: &mut [f32]) {
    let lines = Lines::of(g);
    let (phases, line) = scratch.split_at_mut(lines.phases_len());
    lines.split(input, phases);
    let taps: Vec<Tap> = lines.taps().zip(kernel).map(|(at, &weight)| Tap { at, weight }).collect();
    sum_of_runs(&taps, phases, &mut line[..lines.run_len()]);
    for (row, output) in line.chunks(lines.pitch).zip(output.chunks_mut(g.output.width)) {
        output.copy_from_slice(&row[..output.len()]);
    }
}

/// Adds to the gradient of one channel's kernel.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_kernel: &mut [f32], scratch: &mut [f32]) {
    let lines = Lines::of(g);
    let (phases, line) = scratch.split_at_mut(lines.phases_len());
    lines.split(input, phases);
    let line = &mut line[..lines.run_len()];
    lines.write_rows(d_output, line);
    for (at, d_weight) in lines.taps().zip(d_kernel) {
        *d_weight += dot(&phases[at..][..line.len()], line);
    }
}

/// The gradient of one input channel; added to `d_input` if `keep`, else written over it.
pub fn backward_input(
    g: &Geometry,
    kernel: &[f32],
    d_output: &[f32],
    d_input: &mut [f32],
    keep: bool,
    scratch: &mut [f32],
) {
    let lines = Lines::of(g);
    let (phases, padded) = scratch.split_at_mut(lines.phases_len());
    let margin = lines.margin();
    padded.fill(0.0);
    lines.write_rows(d_output, &mut padded[margin..][..lines.run_len()]);
    let steps: Vec<usize> = lines.taps().collect();
    // What a tap has taken from a phase goes back to it.
    for (phase, values) in phases.chunks_mut(lines.phase_len()).enumerate() {
        let first = phase * lines.phase_len();
        let own = steps.iter().zip(kernel).filter(|(at, _)| **at / lines.phase_len() == phase);
        let taps: Vec<Tap> = own.map(|(at, &weight)| Tap { at: margin - (at - first), weight }).collect();
        sum_of_runs(&taps, padded, values);
    }
    lines.join(phases, d_input, keep);
}

/// A tap of the kernel: where it begins to read, and by what it multiplies.
struct Tap {
    at: usize,
    weight: f32,
}

/// `line[i] = Σ weight · values[at + i]`.
fn sum_of_runs(taps: &[Tap], values: &[f32], line: &mut [f32]) {
    line.fill(0.0);
    for taps in taps.chunks(TOGETHER) {
        match taps.len() {
            1 => add_runs::<1>(taps, values, line),
            2 => add_runs::<2>(taps, values, line),
            3 => add_runs::<3>(taps, values, line),
            4 => add_runs::<4>(taps, values, line),
            _ => add_runs::<TOGETHER>(taps, values, line),
        }
    }
}

/// `line[i] += Σ weight · values[at + i]` over `N` taps.
fn add_runs<const N: usize>(taps: &[Tap], values: &[f32], line: &mut [f32]) {
    if fuses() {
        vectorised!(add_runs_by::<N, true>(taps, values, line));
    } else {
        vectorised!(add_runs_by::<N, false>(taps, values, line));
    }
}

#[inline(always)]
fn add_runs_by<const N: usize, const FUSED: bool>(taps: &[Tap], values: &[f32], line: &mut [f32]) {
    let count = line.len();
    let runs: [(f32, &[f32]); N] = std::array::from_fn(|k| (taps[k].weight, &values[taps[k].at..][..count]));
    for i in 0..count {
        let mut sum = line[i];
        for (weight, run) in runs {
            sum = multiply_add::<FUSED>(weight, run[i], sum);
        }
        line[i] = sum;
    }
}

/// Σ a·b.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    vectorised!(super::vectors::dot(a, b))
}

/// A plane split into phases, each a line of rows with zeros around them.
struct Lines {
    kernel: usize,
    stride: usize,
    /// Zeros above and to the left of the plane.
    pad: [usize; 2],
    /// Height and width of the plane.
    plane: [usize; 2],
    /// Rows of a convolution's output.
    outputs: [usize; 2],
    /// Values from one row of a phase to the next.
    pitch: usize,
    /// Rows of a phase.
    rows: usize,
}

impl Lines {
    fn of(g: &Geometry) -> Self {
        let (kernel, stride) = (g.conv.kernel, g.conv.stride);
        let beyond = (kernel - 1) / stride;
        let plane = [g.input.height, g.input.width];
        let outputs = [g.output.height, g.output.width];
        // All of the plane lies in it, also where no tap reads.
        let room = |side: usize, pad: usize| (outputs[side] + beyond).max((plane[side] + pad).div_ceil(stride));
        Self {
            kernel,
            stride,
            pad: [g.pad_top, g.pad_left],
            plane,
            outputs,
            pitch: room(1, g.pad_left),
            // One more, into which the last row's shifted run reaches.
            rows: room(0, g.pad_top) + 1,
        }
    }

    fn phase_len(&self) -> usize {
        self.rows * self.pitch
    }

    fn phases_len(&self) -> usize {
        self.stride * self.stride * self.phase_len()
    }

    /// The outputs as a line.
    fn run_len(&self) -> usize {
        self.outputs[0] * self.pitch
    }

    /// The farthest that a tap is from the first one of its phase.
    fn margin(&self) -> usize {
        (self.kernel - 1) / self.stride * (self.pitch + 1)
    }

    /// Where each tap meets the first output's value, row by row of the kernel.
    fn taps(&self) -> impl Iterator<Item = usize> + '_ {
        let (kernel, stride) = (self.kernel, self.stride);
        (0..kernel * kernel).map(move |tap| {
            let (y, x) = (tap / kernel, tap % kernel);
            (y % stride * stride + x % stride) * self.phase_len() + y / stride * self.pitch + x / stride
        })
    }

    /// Calls `f(phase's value, plane's value, how many)` for each row of each phase; the latter are `stride` apart.
    #[inline(always)]
    fn for_each_row(&self, mut f: impl FnMut(usize, usize, usize)) {
        let (stride, [top, left], [height, width]) = (self.stride, self.pad, self.plane);
        for y in 0..height {
            let row = (top + y) % stride * stride * self.phase_len() + (top + y) / stride * self.pitch;
            for x in 0..stride.min(width) {
                let phased = row + (left + x) % stride * self.phase_len() + (left + x) / stride;
                f(phased, y * width + x, (width - x).div_ceil(stride));
            }
        }
    }

    fn split(&self, plane: &[f32], phases: &mut [f32]) {
        phases.fill(0.0);
        self.for_each_row(|phased, at, count| {
            if self.stride == 1 {
                phases[phased..][..count].copy_from_slice(&plane[at..][..count]);
            } else {
                let from = plane[at..].iter().step_by(self.stride);
                phases[phased..][..count].iter_mut().zip(from).for_each(|(to, &value)| *to = value);
            }
        });
    }

    /// Puts the phases together again, over `plane` or added to it.
    fn join(&self, phases: &[f32], plane: &mut [f32], keep: bool) {
        self.for_each_row(|phased, at, count| {
            let to = plane[at..].iter_mut().step_by(self.stride);
            for (to, &value) in to.zip(&phases[phased..][..count]) {
                *to = if keep { *to + value } else { value };
            }
        });
    }

    /// The outputs as a line, with zeros after each row.
    fn write_rows(&self, outputs: &[f32], line: &mut [f32]) {
        let width = self.outputs[1];
        for (row, outputs) in line.chunks_mut(self.pitch).zip(outputs.chunks(width)) {
            row[..width].copy_from_slice(outputs);
            row[width..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{check, dense};
    use super::*;
    use peregrine_engine::{Activation, Conv, Padding, Shape};

    fn cases() -> impl Iterator<Item = Geometry> {
        let sizes = [(6, 8), (7, 5), (4, 4), (5, 37)];
        [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1), (3, 2), (5, 2), (3, 3)].into_iter().flat_map(
            move |(kernel, stride)| {
                sizes.into_iter().map(move |(h, w): (usize, usize)| {
                    let conv = Conv {
                        kernel,
                        stride,
                        depthwise: true,
                        activation: Activation::Identity,
                        padding: Padding::Same,
                    };
                    let output = Shape::new(1, h.div_ceil(stride), w.div_ceil(stride));
                    Geometry::new(conv, Shape::new(1, h, w), output)
                })
            },
        )
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
            backward_input(&g, &kernel, &probe, &mut d_input, false, &mut scratch);
            check::gradient(&input, &d_input, |x| check::dot(&run(&g, x, &kernel), &probe));
            let mut twice = d_input.clone();
            backward_input(&g, &kernel, &probe, &mut twice, true, &mut scratch);
            assert!(twice.iter().zip(&d_input).all(|(twice, once)| (twice - 2.0 * once).abs() < 1e-5), "{g:?}");
        }
    }
}
