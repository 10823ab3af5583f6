//! Forward and backward over the graph, for a whole batch.

use std::mem::take;

use candle_core::{Device, Result};
use peregrine_engine::{Activation, Graph, LayerId, Op};
use rayon::prelude::*;

use super::device::DevicePasses;
use super::fake::{self, FakeQuantization};
use super::norm::{self, BatchStatistics};
use super::{convolve, pool, Geometry, NetParams};

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
    pub(super) needs_gradient: Vec<bool>,
    /// `[batch, channels, height, width]` for each layer.
    values: Vec<Vec<f32>>,
    /// Convolution outputs ahead of batch-norm, where there is one.
    pre_norm: Vec<Vec<f32>>,
    statistics: Vec<BatchStatistics>,
    gradients: Vec<Vec<f32>>,
    /// Whether `gradients` holds something of this pass already.
    started: Vec<bool>,
    fake: Option<Fake>,
    on: Option<Box<On>>,
}

/// Where else than on the CPU the passes are made.
struct On {
    passes: DevicePasses,
    /// Layers whose tensors are fetched after each forward pass.
    seen: Vec<LayerId>,
}

/// The grids to round to, and what was there before.
struct Fake {
    quantization: FakeQuantization,
    /// For each convolution, its weights on their grid in the last forward pass.
    weights: Vec<Vec<f32>>,
    /// For each layer, its tensor before it was rounded.
    unrounded: Vec<Vec<f32>>,
}

impl TrainNet {
    /// A network for batches of `batch` images of the graph's input size.
    ///
    /// # Panics
    /// When the graph has what neither student nor teacher has: slices, shuffles, or an activation other than ReLU and
    /// ReLU6.
    pub fn new(graph: Graph, params: NetParams, batch: usize) -> Self {
        let layers = graph.layers.len();
        for layer in &graph.layers {
            let trainable = match layer.op {
                Op::Conv(conv) => {
                    matches!(conv.activation, Activation::Identity | Activation::Relu6 | Activation::Relu)
                }
                op => !matches!(op, Op::Slice { .. } | Op::Shuffle { .. }),
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
            fake: None,
            on: None,
        }
    }

    /// The same on a device of candle's. Only the graph's outputs and the layers `seen` then have a
    /// [`value`](Self::value).
    ///
    /// # Panics
    /// When it is to compute as an integer engine: candle does not round as that does.
    pub fn on(mut self, device: Device, seen: &[LayerId]) -> Self {
        assert!(self.fake.is_none(), "fake quantization is the CPU's");
        let seen: Vec<LayerId> = self.graph.outputs.iter().chain(seen).copied().collect();
        let kept = |id: &usize| *id == 0 || seen.contains(id);
        (0..self.values.len()).filter(|id| !kept(id)).for_each(|id| self.values[id] = Vec::new());
        self.pre_norm.iter_mut().chain(&mut self.gradients).for_each(|buffer| *buffer = Vec::new());
        self.on = Some(Box::new(On { passes: DevicePasses::new(device, self.batch), seen }));
        self
    }

    /// The same, computing as an integer engine would.
    ///
    /// # Panics
    /// When a layer has a batch-norm: it has to be folded in first.
    pub fn with_fake(mut self, quantization: FakeQuantization) -> Self {
        assert!(self.params.convs.iter().all(|c| c.norm.is_none()), "batch-norm is to be folded before quantization");
        let rounded =
            |(scale, values): (&Option<_>, &Vec<f32>)| vec![0.0; if scale.is_some() { values.len() } else { 0 }];
        let unrounded = quantization.tensors.iter().zip(&self.values).map(rounded).collect();
        self.fake = Some(Fake { quantization, weights: Vec::new(), unrounded });
        self
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
    ///
    /// # Errors
    /// When a device other than the CPU fails, for want of memory for instance.
    pub fn forward(&mut self, mode: Mode) -> Result<()> {
        if let Some(On { passes, seen }) = self.on.as_deref_mut() {
            for (index, of_batch) in passes.forward(&self.graph, &self.params, &self.values[0], mode)? {
                let norm = self.params.convs[index].norm.as_mut().expect("it was normalised");
                norm.running.follow(&of_batch);
            }
            for &layer in &*seen {
                self.values[layer] = passes.value(layer)?;
            }
            return Ok(());
        }
        if let Some(fake) = &mut self.fake {
            let convs = &self.params.convs;
            fake.weights = convs.par_iter().map(|c| fake.quantization.rounded(&c.name, &c.weight.value)).collect();
        }
        self.round(0);
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
                Op::MaxPool { kernel, stride } => {
                    let (from, to) = (self.graph.layers[layer.inputs[0]].shape, layer.shape);
                    let input = &self.values[layer.inputs[0]];
                    let planes = output.par_chunks_mut(to.pixels()).zip(input.par_chunks(from.pixels()));
                    planes.for_each(|(output, input)| {
                        for (i, value) in output.iter_mut().enumerate() {
                            *value = input[pool::largest(input, from, (kernel, stride), (i / to.width, i % to.width))];
                        }
                    });
                }
                op => unreachable!("refused by `new`: {op:?}"),
            }
            self.values[id] = output;
            self.round(id);
        }
        Ok(())
    }

    /// Rounds a layer's tensor to its grid, if it has one.
    fn round(&mut self, id: LayerId) {
        let Some(fake) = &mut self.fake else { return };
        let Some(scale) = fake.quantization.tensors[id] else { return };
        let chunks =
            self.values[id].par_chunks_mut(PARALLEL_CHUNK).zip(fake.unrounded[id].par_chunks_mut(PARALLEL_CHUNK));
        chunks.for_each(|(values, unrounded)| {
            unrounded.copy_from_slice(values);
            fake::round(values, scale);
        });
    }

    /// A layer's tensor before rounding.
    fn unrounded(&self, id: LayerId) -> &[f32] {
        match &self.fake {
            Some(fake) if fake.quantization.tensors[id].is_some() => &fake.unrounded[id],
            _ => &self.values[id],
        }
    }

    /// Runs the network backwards from the gradients of some layers' tensors (the graph's outputs, or inner ones for
    /// hints), and adds to the parameters' gradients.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) -> Result<()> {
        if let Some(On { passes, .. }) = self.on.as_deref() {
            for found in passes.backward(&self.graph, &self.params, &self.needs_gradient, seeds)? {
                let conv = &mut self.params.convs[found.conv];
                add_or_copy(&mut conv.weight.gradient, &found.weight, true);
                add_or_copy(&mut conv.bias.gradient, &found.bias, true);
                if let Some(norm) = &mut conv.norm {
                    add_or_copy(&mut norm.gamma.gradient, &found.gamma, true);
                }
            }
            return Ok(());
        }
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
            if let Some((fake, scale)) = self.fake.as_ref().and_then(|f| Some((f, f.quantization.tensors[id]?))) {
                let chunks = gradient.par_chunks_mut(PARALLEL_CHUNK).zip(fake.unrounded[id].par_chunks(PARALLEL_CHUNK));
                chunks.for_each(|(gradient, unrounded)| fake::cut(gradient, unrounded, scale));
            }
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
                Op::MaxPool { kernel, stride } if self.needs_gradient[inputs[0]] => {
                    let (from, to) = (self.graph.layers[inputs[0]].shape, self.graph.layers[id].shape);
                    let values = take(&mut self.values[inputs[0]]);
                    self.accumulate(inputs[0], |into, keep| {
                        let planes = into.par_chunks_mut(from.pixels()).zip(values.par_chunks(from.pixels()));
                        planes.zip(gradient.par_chunks(to.pixels())).for_each(|((into, values), gradient)| {
                            if !keep {
                                into.fill(0.0);
                            }
                            for (i, d) in gradient.iter().enumerate() {
                                let at = (i / to.width, i % to.width);
                                into[pool::largest(values, from, (kernel, stride), at)] += d;
                            }
                        });
                    });
                    self.values[inputs[0]] = values;
                }
                Op::MaxPool { .. } => {}
                op => unreachable!("refused by `new`: {op:?}"),
            }
            self.gradients[id] = gradient;
        }
        Ok(())
    }

    fn forward_conv(&mut self, id: LayerId, output: &mut [f32], mode: Mode) {
        let g = self.geometry(id);
        let index = self.conv_of[id].expect("a convolution has parameters");
        let conv = &mut self.params.convs[index];
        let weight = self.fake.as_ref().map_or(&conv.weight.value, |fake| &fake.weights[index]);
        let input = &self.values[self.graph.layers[id].inputs[0]];
        let pixels = g.output.pixels();
        let finish = |plane: &mut [f32], scale: f32, shift: f32| match g.conv.activation {
            Activation::Identity => plane.iter_mut().for_each(|v| *v = *v * scale + shift),
            Activation::Relu6 => plane.iter_mut().for_each(|v| *v = (*v * scale + shift).clamp(0.0, 6.0)),
            Activation::Relu => plane.iter_mut().for_each(|v| *v = (*v * scale + shift).max(0.0)),
            other => unreachable!("refused by `new`: {other:?}"),
        };
        let Some(norm) = &mut conv.norm else {
            convolve::forward(&g, input, weight, output);
            let bias = &conv.bias.value;
            output.par_chunks_mut(pixels).enumerate().for_each(|(i, plane)| finish(plane, 1.0, bias[i % bias.len()]));
            return;
        };
        let z = &mut self.pre_norm[id];
        convolve::forward(&g, input, weight, z);
        if mode == Mode::Train {
            let batch = BatchStatistics::of(z, g.output.channels, pixels);
            norm.running.follow(&batch);
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
        if g.conv.activation != Activation::Identity {
            let most = if g.conv.activation == Activation::Relu6 { 6.0 } else { f32::INFINITY };
            gradient.par_chunks_mut(pixels).zip(self.unrounded(id).par_chunks(pixels)).for_each(|(gradient, value)| {
                for (d, &v) in gradient.iter_mut().zip(value) {
                    *d = if v > 0.0 && v < most { *d } else { 0.0 };
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
        let fake = self.fake.take();
        let weight = take(&mut conv.weight.value);
        let used = fake.as_ref().map_or(&weight, |fake| &fake.weights[index]);
        self.accumulate(from, |into, keep| convolve::backward_input(&g, used, gradient, into, keep));
        self.params.convs[index].weight.value = weight;
        self.fake = fake;
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
