//! The operations without parameters, forward and backward side by side, over a whole batch.

use peregrine_engine::{Graph, Interpolation, LayerId, Op, Shape};
use rayon::prelude::*;

use super::gradients::{add_or_copy, PARALLEL_CHUNK};
use super::vectors::{dot, sum, vectorised};
use super::{activation, bilinear, pool};

/// One layer's operation with the shapes of its tensors.
pub(super) struct Operation {
    op: Op,
    inputs: Vec<Shape>,
    output: Shape,
}

impl Operation {
    pub fn of(graph: &Graph, id: LayerId) -> Self {
        let layer = &graph.layers[id];
        let inputs = layer.inputs.iter().map(|&i| graph.layers[i].shape).collect();
        Self { op: layer.op, inputs, output: layer.shape }
    }

    /// Writes `output`; all tensors are `[batch, channels, height, width]`.
    pub fn forward(&self, inputs: &[&[f32]], output: &mut [f32]) {
        let (len, from) = (self.output.len(), self.inputs[0]);
        match self.op {
            Op::Add => {
                let images = output.par_chunks_mut(len).zip(inputs[0].par_chunks(len)).zip(inputs[1].par_chunks(len));
                images.for_each(|((sum, a), b)| {
                    sum.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum = a + b);
                });
            }
            Op::Concat => {
                for (which, input) in inputs.iter().enumerate() {
                    let (at, part) = (self.offset(which), self.inputs[which].len());
                    let images = output.chunks_mut(len).zip(input.chunks(part));
                    images.for_each(|(output, input)| output[at..at + part].copy_from_slice(input));
                }
            }
            Op::Upsample2x(Interpolation::Nearest) => {
                let width = self.output.width;
                let rows = output.par_chunks_mut(2 * width).zip(inputs[0].par_chunks(width / 2));
                rows.for_each(|(both, from)| {
                    let (upper, lower) = both.split_at_mut(width);
                    upper.chunks_exact_mut(2).zip(from).for_each(|(pair, value)| pair.fill(*value));
                    lower.copy_from_slice(upper);
                });
            }
            Op::MaxPool(window) => {
                let to = self.output;
                let planes = output.par_chunks_mut(to.pixels()).zip(inputs[0].par_chunks(from.pixels()));
                planes.for_each(|(output, input)| {
                    pool::for_each_largest(input, from, to, window, |i, largest| output[i] = input[largest]);
                });
            }
            Op::Upsample2x(Interpolation::Bilinear) => {
                planes(output, inputs[0], self).for_each(|(output, input)| bilinear::forward(from, input, output));
            }
            Op::AveragePool(window) => planes(output, inputs[0], self).for_each(|(output, input)| {
                output.fill(0.0);
                pool::for_each_share(from, self.output, window, |to, at, share| output[to] += share * input[at]);
            }),
            Op::GlobalAverage => {
                planes(output, inputs[0], self).for_each(|(mean, input)| {
                    mean[0] = vectorised!(sum(input)) / input.len() as f32;
                });
            }
            Op::Scale => {
                let planes = planes(output, inputs[0], self).zip(inputs[1]);
                planes.for_each(|((output, input), factor)| {
                    output.iter_mut().zip(input).for_each(|(to, from)| *to = from * factor);
                });
            }
            Op::Activate(activation) => {
                let chunks = output.par_chunks_mut(PARALLEL_CHUNK).zip(inputs[0].par_chunks(PARALLEL_CHUNK));
                chunks.for_each(|(to, from)| to.iter_mut().zip(from).for_each(|(to, &x)| *to = activation.apply(x)));
            }
            Op::Slice { .. } | Op::Shuffle { .. } => {
                let pixels = self.output.pixels();
                let images = output.par_chunks_mut(len).zip(inputs[0].par_chunks(from.len()));
                images.for_each(|(output, input)| {
                    for (c, plane) in output.chunks_mut(pixels).enumerate() {
                        plane.copy_from_slice(&input[self.source(c) * pixels..][..pixels]);
                    }
                });
            }
            Op::Input | Op::Conv(_) => unreachable!("has a pass of its own"),
        }
    }

    /// The input channel that a slice or a shuffle puts in channel `c`.
    fn source(&self, c: usize) -> usize {
        match self.op {
            Op::Slice { first } => first + c,
            Op::Shuffle { groups } => c % groups * (self.output.channels / groups) + c / groups,
            _ => c,
        }
    }

    /// The gradient of input number `which`, from the values of all `inputs` and the gradient of the
    /// output; added to `into` if `keep`, else written over it.
    pub fn backward(&self, which: usize, inputs: &[&[f32]], gradient: &[f32], into: &mut [f32], keep: bool) {
        let from = self.inputs[0];
        match self.op {
            Op::Add => add_or_copy(into, gradient, keep),
            Op::Concat => {
                let (at, part) = (self.offset(which), self.inputs[which].len());
                let images = into.chunks_mut(part).zip(gradient.chunks(self.output.len()));
                images.for_each(|(into, from)| add_or_copy(into, &from[at..at + part], keep));
            }
            Op::Upsample2x(Interpolation::Nearest) => {
                let width = self.output.width;
                let rows = into.par_chunks_mut(width / 2).zip(gradient.par_chunks(2 * width));
                rows.for_each(|(into, from)| {
                    let (upper, lower) = from.split_at(width);
                    for (x, i) in into.iter_mut().enumerate() {
                        let sum = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1];
                        *i = if keep { *i + sum } else { sum };
                    }
                });
            }
            Op::MaxPool(window) => {
                let to = self.output;
                let planes = into.par_chunks_mut(from.pixels()).zip(inputs[0].par_chunks(from.pixels()));
                planes.zip(gradient.par_chunks(to.pixels())).for_each(|((into, input), gradient)| {
                    if !keep {
                        into.fill(0.0);
                    }
                    pool::for_each_largest(input, from, to, window, |i, largest| into[largest] += gradient[i]);
                });
            }
            Op::Upsample2x(Interpolation::Bilinear) => {
                empty(into, keep);
                planes(into, gradient, self).for_each(|(into, gradient)| bilinear::backward(from, gradient, into));
            }
            Op::AveragePool(window) => {
                empty(into, keep);
                planes(into, gradient, self).for_each(|(into, gradient)| {
                    pool::for_each_share(from, self.output, window, |to, at, share| into[at] += share * gradient[to]);
                });
            }
            Op::GlobalAverage => {
                let share = 1.0 / from.pixels() as f32;
                empty(into, keep);
                planes(into, gradient, self)
                    .for_each(|(into, mean)| into.iter_mut().for_each(|i| *i += mean[0] * share));
            }
            Op::Scale if which == 0 => {
                empty(into, keep);
                planes(into, gradient, self).zip(inputs[1]).for_each(|((into, gradient), factor)| {
                    into.iter_mut().zip(gradient).for_each(|(i, d)| *i += d * factor);
                });
            }
            Op::Scale => {
                empty(into, keep);
                let pixels = self.output.pixels();
                let planes = into.par_iter_mut().zip(inputs[0].par_chunks(pixels).zip(gradient.par_chunks(pixels)));
                planes.for_each(|(factor, (input, gradient))| *factor += vectorised!(dot(input, gradient)));
            }
            Op::Activate(of) => {
                empty(into, keep);
                let values = inputs[0].par_chunks(PARALLEL_CHUNK).zip(gradient.par_chunks(PARALLEL_CHUNK));
                into.par_chunks_mut(PARALLEL_CHUNK).zip(values).for_each(|(into, (input, gradient))| {
                    let values = input.iter().zip(gradient);
                    into.iter_mut().zip(values).for_each(|(i, (&x, d))| *i += d * activation::slope(of, x));
                });
            }
            Op::Slice { .. } | Op::Shuffle { .. } => {
                empty(into, keep);
                let pixels = self.output.pixels();
                let images = into.par_chunks_mut(from.len()).zip(gradient.par_chunks(self.output.len()));
                images.for_each(|(into, gradient)| {
                    for (c, plane) in gradient.chunks(pixels).enumerate() {
                        let into = &mut into[self.source(c) * pixels..][..pixels];
                        into.iter_mut().zip(plane).for_each(|(i, d)| *i += d);
                    }
                });
            }
            Op::Input | Op::Conv(_) => unreachable!("has a pass of its own"),
        }
    }

    /// Where input number `which` begins in an image of a concatenation.
    fn offset(&self, which: usize) -> usize {
        self.inputs[..which].iter().map(Shape::len).sum()
    }
}

/// Pairs the channels of `to` with those of `from`, the two sides of an operation that keeps their
/// number.
fn planes<'a>(
    to: &'a mut [f32],
    from: &'a [f32],
    operation: &Operation,
) -> impl IndexedParallelIterator<Item = (&'a mut [f32], &'a [f32])> {
    let (input, output) = (operation.inputs[0].len(), operation.output.len());
    // Either side may be the output's gradient: the number of channels tells the planes.
    let images = (to.len() + from.len()) / (input + output);
    let count = images * operation.output.channels;
    let (of_to, of_from) = (to.len() / count, from.len() / count);
    to.par_chunks_mut(of_to).zip(from.par_chunks(of_from))
}

/// Makes room for gradients that are added, unless there is something to keep.
fn empty(into: &mut [f32], keep: bool) {
    if !keep {
        into.fill(0.0);
    }
}
