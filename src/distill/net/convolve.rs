//! Convolutions of a whole batch `[images, channels, height, width]`, divided among the threads: a
//! dense one by images, a depthwise one by channels.

use rayon::prelude::*;

use super::gradients::add_or_copy;
use super::vectors::with_scratch;
use super::winograd::{self, Filters};
use super::{dense, depthwise, Geometry};

/// Images whose weight gradients are summed one after the other, before the groups' sums are:
/// fixed, so that a result does not depend on the number of threads.
const GRADIENT_GROUPS: usize = 4;

/// Convolves each image of a batch; bias and activation are the caller's.
pub fn forward(g: &Geometry, input: &[f32], weight: &[f32], output: &mut [f32]) {
    if g.conv.depthwise {
        let (from, to, k) = (g.input.pixels(), g.output.pixels(), g.conv.kernel * g.conv.kernel);
        output.par_chunks_mut(to).zip(input.par_chunks(from)).enumerate().for_each(|(i, (output, input))| {
            let weight = &weight[i % g.input.channels * k..][..k];
            with_scratch(depthwise::scratch_len(g), |scratch| depthwise::forward(g, input, weight, output, scratch));
        });
    } else if winograd::suits(g) {
        by_tiles(g, &Filters::new(g, weight), input, output, false);
    } else {
        output.par_chunks_mut(g.output.len()).zip(input.par_chunks(g.input.len())).for_each(|(output, input)| {
            with_scratch(dense::scratch_len(g), |scratch| dense::forward(g, input, weight, output, scratch));
        });
    }
}

/// Convolves each image of a batch by [`winograd`]; added to `output` if `keep`, else written over it.
fn by_tiles(g: &Geometry, filters: &Filters, input: &[f32], output: &mut [f32], keep: bool) {
    let together = winograd::images_together(g);
    let images = output.par_chunks_mut(together * g.output.len()).zip(input.par_chunks(together * g.input.len()));
    images.for_each(|(output, input)| {
        let scratch_len = winograd::scratch_len(g, output.len() / g.output.len());
        with_scratch(scratch_len, |scratch| winograd::forward(g, filters, input, output, keep, scratch));
    });
}

/// Adds to the weights' gradient, summed over the batch.
pub fn backward_weight(g: &Geometry, input: &[f32], d_output: &[f32], d_weight: &mut [f32]) {
    if g.conv.depthwise {
        let (from, to, k) = (g.input.pixels(), g.output.pixels(), g.conv.kernel * g.conv.kernel);
        let channels = g.input.channels;
        d_weight.par_chunks_mut(k).enumerate().for_each(|(c, d_kernel)| {
            with_scratch(depthwise::scratch_len(g), |scratch| {
                for (input, d_output) in input.chunks(from).zip(d_output.chunks(to)).skip(c).step_by(channels) {
                    depthwise::backward_weight(g, input, d_output, d_kernel, scratch);
                }
            });
        });
        return;
    }
    let images = d_output.len() / g.output.len();
    let group = images.div_ceil(GRADIENT_GROUPS);
    let sums: Vec<Vec<f32>> = input
        .par_chunks(group * g.input.len())
        .zip(d_output.par_chunks(group * g.output.len()))
        .map(|(input, d_output)| {
            let mut sum = vec![0.0; d_weight.len()];
            if winograd::suits(g) {
                let mut planes = vec![0.0; winograd::planes_len(g)];
                with_scratch(winograd::scratch_len(g, group), |scratch| {
                    winograd::backward_weight(g, input, d_output, &mut planes, scratch);
                });
                winograd::add_weight_gradient(&planes, &mut sum);
                return sum;
            }
            with_scratch(dense::scratch_len(g), |scratch| {
                for (input, d_output) in input.chunks(g.input.len()).zip(d_output.chunks(g.output.len())) {
                    dense::backward_weight(g, input, d_output, &mut sum, scratch);
                }
            });
            sum
        })
        .collect();
    for sum in sums {
        add_or_copy(d_weight, &sum, true);
    }
}

/// The input's gradient; added to `d_input` when `keep`, else written over it.
pub fn backward_input(g: &Geometry, weight: &[f32], d_output: &[f32], d_input: &mut [f32], keep: bool) {
    if g.conv.depthwise {
        let (from, to, k) = (g.input.pixels(), g.output.pixels(), g.conv.kernel * g.conv.kernel);
        d_input.par_chunks_mut(from).zip(d_output.par_chunks(to)).enumerate().for_each(|(i, (d_input, d_output))| {
            let weight = &weight[i % g.input.channels * k..][..k];
            with_scratch(depthwise::scratch_len(g), |scratch| {
                depthwise::backward_input(g, weight, d_output, d_input, keep, scratch);
            });
        });
    } else if winograd::suits(g) {
        by_tiles(&winograd::adjoint(g), &Filters::adjoint(g, weight), d_output, d_input, keep);
    } else {
        d_input.par_chunks_mut(g.input.len()).zip(d_output.par_chunks(g.output.len())).for_each(
            |(d_input, d_output)| {
                with_scratch(dense::scratch_len(g), |scratch| {
                    dense::backward_input(g, weight, d_output, d_input, keep, scratch);
                });
            },
        );
    }
}
