//! Forward and backward over the graph, for a whole batch.

use std::mem::take;

use rayon::prelude::*;

use super::norm::{self, BatchStatistics, MOMENTUM};
use super::{convolve, Geometry, NetParams};
use crate::engine::{Activation, Graph, LayerId, Op};

/// Values that one task adds or copies.
const PARALLEL_CHUNK: usize = 1 << 16;

/// Which statistics normalise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The batch's, which then move the running ones.
    Train,
    /// The running ones.
    Evaluate,
}

/// A network in training: its parameters and a buffer for each tensor of a batch.
pub struct TrainNet {
    pub graph: Graph,
    pub params: NetParams,
    batch: usize,
    /// For each layer, its index in `params.convs`.
    conv_of: Vec<Option<usize>>,
    /// Whether a gradient has to reach a layer's output.
    needs_gradient: Vec<bool>,
    /// `[batch, channels, height, width]` for each layer.
    values: Vec<Vec<f32>>,
    /// Convolution outputs ahead of batch-norm, where there is one.
    pre_norm: Vec<Vec<f32>>,
    statistics: Vec<BatchStatistics>,
    gradients: Vec<Vec<f32>>,
    /// Whether `gradients` holds something of this pass already.
    started: Vec<bool>,
}

impl TrainNet {
    /// A network for batches of `batch` images of the graph's input size.
    ///
    /// # Panics
    /// When the graph has what no student has: pooling, slices, shuffles, or an activation other than ReLU6.
    pub fn new(graph: Graph, params: NetParams, batch: usize) -> Self {
        let layers = graph.layers.len();
        for layer in &graph.layers {
            let trainable = match layer.op {
                Op::Conv(conv) => matches!(conv.activation, Activation::Identity | Activation::Relu6),
                op => matches!(op, Op::Input | Op::Add | Op::Upsample2x | Op::Concat),
            };
            assert!(trainable, "{}: {:?} cannot be trained", layer.name, layer.op);
        }
        let mut conv_of = vec![None; layers];
        for (i, conv) in params.convs.iter().enumerate() {
            conv_of[conv.layer] = Some(i);
        }
        let mut needs_gradient = vec![false; layers];
        for (id, layer) in graph.layers.iter().enumerate() {
            let trained = conv_of[id].is_some_and(|i| !params.convs[i].frozen);
            needs_gradient[id] = trained || layer.inputs.iter().any(|&i| needs_gradient[i]);
        }
        let buffers = |wanted: &dyn Fn(usize) -> bool| -> Vec<Vec<f32>> {
            let len = |id: usize| if wanted(id) { batch * graph.layers[id].shape.len() } else { 0 };
            (0..layers).map(|id| vec![0.0; len(id)]).collect()
        };
        Self {
            batch,
            values: buffers(&|_| true),
            pre_norm: buffers(&|id| conv_of[id].is_some_and(|i| params.convs[i].norm.is_some())),
            statistics: vec![BatchStatistics::default(); layers],
            gradients: buffers(&|id| needs_gradient[id]),
            started: vec![false; layers],
            graph,
            params,
            conv_of,
            needs_gradient,
        }
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The input to fill: `[batch, 3, height, width]`.
    pub fn input(&mut self) -> &mut [f32] {
        &mut self.values[0]
    }

    /// The tensor that a layer made in the last forward pass: `[batch, channels, height, width]`.
    pub fn value(&self, layer: LayerId) -> &[f32] {
        &self.values[layer]
    }

    /// Runs the network over the input.
    pub fn forward(&mut self, mode: Mode) {
        for id in 1..self.graph.layers.len() {
            let mut output = take(&mut self.values[id]);
            let layer = &self.graph.layers[id];
            let len = layer.shape.len();
            match layer.op {
                Op::Input => unreachable!("only layer 0 is the input"),
                Op::Conv(_) => self.forward_conv(id, &mut output, mode),
                Op::Add => {
                    let (a, b) = (&self.values[layer.inputs[0]], &self.values[layer.inputs[1]]);
                    output.par_chunks_mut(len).zip(a.par_chunks(len)).zip(b.par_chunks(len)).for_each(|((o, a), b)| {
                        o.iter_mut().zip(a.iter().zip(b)).for_each(|(o, (a, b))| *o = a + b);
                    });
                }
                Op::Upsample2x => {
                    let from = &self.values[layer.inputs[0]];
                    let width = layer.shape.width;
                    output.par_chunks_mut(2 * width).zip(from.par_chunks(width / 2)).for_each(|(rows, from)| {
                        for (x, value) in rows.iter_mut().enumerate() {
                            *value = from[x % width / 2];
                        }
                    });
                }
                Op::Concat => {
                    for n in 0..self.batch {
                        let mut at = n * len;
                        for &input in &layer.inputs {
                            let part = self.graph.layers[input].shape.len();
                            output[at..at + part].copy_from_slice(&self.values[input][n * part..][..part]);
                            at += part;
                        }
                    }
                }
                op => unreachable!("refused by `new`: {op:?}"),
            }
            self.values[id] = output;
        }
    }

    /// Runs the network backwards from the gradients of some layers' tensors (the graph's outputs, or inner ones for
    /// hints), and adds to the parameters' gradients.
    pub fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) {
        self.started.fill(false);
        for (layer, gradient) in seeds {
            self.accumulate(layer, |into, keep| {
                into.iter_mut().zip(gradient).for_each(|(i, g)| *i = if keep { *i + g } else { *g });
            });
        }
        for id in (1..self.graph.layers.len()).rev() {
            if !self.started[id] {
                continue;
            }
            let mut gradient = take(&mut self.gradients[id]);
            let (op, inputs) = (self.graph.layers[id].op, self.graph.layers[id].inputs.clone());
            match op {
                Op::Input => {}
                Op::Conv(_) => self.backward_conv(id, &mut gradient),
                Op::Add => {
                    for input in inputs {
                        self.accumulate(input, |into, keep| add_or_copy(into, &gradient, keep));
                    }
                }
                Op::Upsample2x => {
                    let width = self.graph.layers[id].shape.width;
                    self.accumulate(inputs[0], |into, keep| {
                        let rows = into.par_chunks_mut(width / 2).zip(gradient.par_chunks(2 * width));
                        rows.for_each(|(into, from)| {
                            let (upper, lower) = from.split_at(width);
                            for (x, i) in into.iter_mut().enumerate() {
                                let sum = upper[2 * x] + upper[2 * x + 1] + lower[2 * x] + lower[2 * x + 1];
                                *i = if keep { *i + sum } else { sum };
                            }
                        });
                    });
                }
                Op::Concat => {
                    let len = self.graph.layers[id].shape.len();
                    let mut at = 0;
                    for input in inputs {
                        let part = self.graph.layers[input].shape.len();
                        self.accumulate(input, |into, keep| {
                            let images = into.chunks_mut(part).zip(gradient.chunks(len));
                            images.for_each(|(into, from)| add_or_copy(into, &from[at..at + part], keep));
                        });
                        at += part;
                    }
                }
                op => unreachable!("refused by `new`: {op:?}"),
            }
            self.gradients[id] = gradient;
        }
    }

    fn forward_conv(&mut self, id: LayerId, output: &mut [f32], mode: Mode) {
        let g = self.geometry(id);
        let conv = &mut self.params.convs[self.conv_of[id].expect("a convolution has parameters")];
        let input = &self.values[self.graph.layers[id].inputs[0]];
        let pixels = g.output.pixels();
        let finish = |plane: &mut [f32], scale: f32, shift: f32| match g.conv.activation {
            Activation::Identity => plane.iter_mut().for_each(|v| *v = *v * scale + shift),
            Activation::Relu6 => plane.iter_mut().for_each(|v| *v = (*v * scale + shift).clamp(0.0, 6.0)),
            other => unreachable!("refused by `new`: {other:?}"),
        };
        let Some(norm) = &mut conv.norm else {
            convolve::forward(&g, input, &conv.weight.value, output);
            let bias = &conv.bias.value;
            output.par_chunks_mut(pixels).enumerate().for_each(|(i, plane)| finish(plane, 1.0, bias[i % bias.len()]));
            return;
        };
        let z = &mut self.pre_norm[id];
        convolve::forward(&g, input, &conv.weight.value, z);
        if mode == Mode::Train {
            let batch = BatchStatistics::of(z, g.output.channels, pixels);
            let follow = |running: &mut [f32], now: &[f32]| {
                running.iter_mut().zip(now).for_each(|(r, n)| *r += MOMENTUM * (n - *r));
            };
            follow(&mut norm.running.mean, &batch.mean);
            follow(&mut norm.running.variance, &batch.variance);
            self.statistics[id] = batch;
        } else {
            self.statistics[id] = norm.running.clone();
        }
        let (statistics, gamma, beta) = (&self.statistics[id], &norm.gamma.value, &conv.bias.value);
        output.par_chunks_mut(pixels).zip(z.par_chunks(pixels)).enumerate().for_each(|(i, (plane, z))| {
            plane.copy_from_slice(z);
            let (scale, shift) = norm::affine(statistics, gamma, beta, i % beta.len());
            finish(plane, scale, shift);
        });
    }

    fn backward_conv(&mut self, id: LayerId, gradient: &mut [f32]) {
        let g = self.geometry(id);
        let pixels = g.output.pixels();
        if g.conv.activation == Activation::Relu6 {
            gradient.par_chunks_mut(pixels).zip(self.values[id].par_chunks(pixels)).for_each(|(gradient, value)| {
                for (d, &v) in gradient.iter_mut().zip(value) {
                    *d = if v > 0.0 && v < 6.0 { *d } else { 0.0 };
                }
            });
        }
        let index = self.conv_of[id].expect("a convolution has parameters");
        let conv = &mut self.params.convs[index];
        if let Some(norm) = &mut conv.norm {
            let (statistics, gamma) = (&self.statistics[id], &mut norm.gamma);
            norm::backward(
                &self.pre_norm[id],
                statistics,
                &gamma.value,
                gradient,
                &mut gamma.gradient,
                &mut conv.bias.gradient,
                pixels,
            );
        } else {
            let gradient = &*gradient;
            conv.bias.gradient.par_iter_mut().enumerate().for_each(|(c, bias)| {
                let planes = gradient.chunks(pixels).skip(c).step_by(g.output.channels);
                *bias += planes.map(super::sum).sum::<f32>();
            });
        }
        let from = self.graph.layers[id].inputs[0];
        if !conv.frozen {
            convolve::backward_weight(&g, &self.values[from], gradient, &mut conv.weight.gradient);
        }
        let weight = take(&mut conv.weight.value);
        self.accumulate(from, |into, keep| convolve::backward_input(&g, &weight, gradient, into, keep));
        self.params.convs[index].weight.value = weight;
    }

    /// Hands `f` the gradient buffer of `layer` and whether to add to what it holds; unless none is needed there.
    fn accumulate(&mut self, layer: LayerId, f: impl FnOnce(&mut [f32], bool)) {
        if self.needs_gradient[layer] {
            f(&mut self.gradients[layer], self.started[layer]);
            self.started[layer] = true;
        }
    }

    fn geometry(&self, id: LayerId) -> Geometry {
        let layer = &self.graph.layers[id];
        let Op::Conv(conv) = layer.op else { unreachable!("only convolutions have a geometry") };
        Geometry::new(conv, self.graph.layers[layer.inputs[0]].shape, layer.shape)
    }
}

pub(super) fn add_or_copy(into: &mut [f32], from: &[f32], keep: bool) {
    into.par_chunks_mut(PARALLEL_CHUNK).zip(from.par_chunks(PARALLEL_CHUNK)).for_each(|(into, from)| {
        if keep {
            into.iter_mut().zip(from).for_each(|(i, f)| *i += f);
        } else {
            into.copy_from_slice(from);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::super::check;
    use super::*;
    use crate::engine::{Conv, Shape};

    /// Every operation, a shared tensor, a batch-norm and a shortcut, small enough for finite differences.
    fn small_graph() -> Graph {
        let conv = |kernel, stride, depthwise, activation| Conv { kernel, stride, depthwise, activation };
        let mut g = Graph::new(Shape::new(2, 4, 4));
        let a = g.conv("a", 0, 4, conv(3, 1, false, Activation::Identity));
        let b = g.conv("b", a, 0, conv(3, 2, true, Activation::Identity));
        let c = g.conv("c", b, 4, conv(1, 1, false, Activation::Relu6));
        let up = g.upsample2x("up", c);
        let sum = g.add("sum", up, a);
        let both = g.concat("both", &[sum, a]);
        let out = g.conv("out", both, 2, conv(1, 1, false, Activation::Identity));
        g.outputs.push(out);
        g
    }

    #[test]
    fn gradients_through_a_whole_graph_agree_with_finite_differences() {
        let graph = small_graph();
        let out = graph.outputs[0];
        let batch = 3;
        let mut params = NetParams::random(&graph, 5);
        for trainable in params.trainable() {
            // Far from ReLU6's kinks and with output weights large enough to measure.
            if trainable.name == "out.weight" {
                trainable.param.value.copy_from_slice(&check::values(16, 9));
            }
            if trainable.name == "c.bias" {
                trainable.param.value.fill(3.0);
            }
            if trainable.name == "c.gamma" {
                trainable.param.value.fill(0.5);
            }
        }
        let input = check::values(batch * 2 * 16, 6);
        let probe = check::values(batch * graph.layers[out].shape.len(), 7);
        let run = |params: &NetParams| {
            let mut net = TrainNet::new(graph.clone(), params.clone(), batch);
            net.input().copy_from_slice(&input);
            net.forward(Mode::Train);
            net
        };
        let mut net = run(&params);
        net.backward([(out, &probe[..])]);
        let gradients: Vec<(String, Vec<f32>)> =
            net.params.trainable().into_iter().map(|t| (t.name, t.param.gradient.clone())).collect();
        for (i, (name, gradient)) in gradients.iter().enumerate() {
            println!("{name}");
            let at = params.trainable()[i].param.value.clone();
            check::gradient(&at, gradient, |x| {
                let mut moved = params.clone();
                moved.trainable()[i].param.value.copy_from_slice(x);
                check::dot(run(&moved).value(out), &probe)
            });
        }
    }

    #[test]
    fn folded_weights_give_what_evaluation_gives() {
        let graph = small_graph();
        let mut net = TrainNet::new(graph.clone(), NetParams::random(&graph, 5), 2);
        let input = check::values(2 * 2 * 16, 6);
        for _ in 0..20 {
            net.input().copy_from_slice(&input);
            net.forward(Mode::Train);
        }
        net.forward(Mode::Evaluate);
        let mut folded = NetParams::random(&graph, 0);
        assert_eq!(folded.adopt(&net.params.fold()), 4);
        let mut deployed = TrainNet::new(graph.clone(), folded, 2);
        deployed.input().copy_from_slice(&input);
        deployed.forward(Mode::Evaluate);
        let out = graph.outputs[0];
        for (a, b) in net.value(out).iter().zip(deployed.value(out)) {
            assert!((a - b).abs() < 1e-4 * (1.0 + a.abs()), "{a} {b}");
        }
    }

    #[test]
    fn nothing_is_differentiated_below_the_first_trained_layer() {
        let graph = small_graph();
        let mut params = NetParams::random(&graph, 5);
        params.convs.iter_mut().filter(|c| c.name != "out").for_each(|c| c.frozen = true);
        let net = TrainNet::new(graph, params, 1);
        assert_eq!(net.needs_gradient.iter().filter(|&&n| n).count(), 1);
    }
}
