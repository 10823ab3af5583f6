//! The operations without parameters, forward and backward side by side, over a whole batch.

use peregrine_engine::{Graph, LayerId, Op, Shape};
use rayon::prelude::*;

use super::gradients::add_or_copy;
use super::pool;

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
        let len = self.output.len();
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
            Op::Upsample2x(_) => {
                let width = self.output.width;
                let rows = output.par_chunks_mut(2 * width).zip(inputs[0].par_chunks(width / 2));
                rows.for_each(|(both, from)| {
                    both.iter_mut().enumerate().for_each(|(x, value)| *value = from[x % width / 2]);
                });
            }
            Op::MaxPool(window) => {
                let (from, to) = (self.inputs[0], self.output);
                let planes = output.par_chunks_mut(to.pixels()).zip(inputs[0].par_chunks(from.pixels()));
                planes.for_each(|(output, input)| {
                    for (i, value) in output.iter_mut().enumerate() {
                        let at = (i / to.width, i % to.width);
                        *value = input[pool::largest(input, from, window, at)];
                    }
                });
            }
            op => unreachable!("refused by `TrainNet::new`: {op:?}"),
        }
    }

    /// The gradient of input number `which` (whose values are `input`), from that of the output;
    /// added to `into` if `keep`, else written over it.
    pub fn backward(&self, which: usize, input: &[f32], gradient: &[f32], into: &mut [f32], keep: bool) {
        match self.op {
            Op::Add => add_or_copy(into, gradient, keep),
            Op::Concat => {
                let (at, part) = (self.offset(which), self.inputs[which].len());
                let images = into.chunks_mut(part).zip(gradient.chunks(self.output.len()));
                images.for_each(|(into, from)| add_or_copy(into, &from[at..at + part], keep));
            }
            Op::Upsample2x(_) => {
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
                let (from, to) = (self.inputs[0], self.output);
                let planes = into.par_chunks_mut(from.pixels()).zip(input.par_chunks(from.pixels()));
                planes.zip(gradient.par_chunks(to.pixels())).for_each(|((into, input), gradient)| {
                    if !keep {
                        into.fill(0.0);
                    }
                    for (i, d) in gradient.iter().enumerate() {
                        let at = (i / to.width, i % to.width);
                        into[pool::largest(input, from, window, at)] += d;
                    }
                });
            }
            op => unreachable!("refused by `TrainNet::new`: {op:?}"),
        }
    }

    /// Where input number `which` begins in an image of a concatenation.
    fn offset(&self, which: usize) -> usize {
        self.inputs[..which].iter().map(Shape::len).sum()
    }
}
