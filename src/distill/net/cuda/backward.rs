//! The launches of the backward pass: the gradients of tensors one after the other, in reverse, and
//! those of parameters, which are added to what is there.

use std::slice::from_ref;

use peregrine_engine::cuda::arguments::number;
use peregrine_engine::cuda::launch::{Node, Span};
use peregrine_engine::{Activation, Interpolation, LayerId, Op};

use super::arguments::{self as arg, int};
use super::kernels::CHANNELS;
use super::layout::{pixel_tile, weight_tile};
use super::nodes::Plan;
use crate::net::NetParams;

/// Which gradients hold something of this pass already.
struct Started(Vec<bool>);

impl Started {
    /// Whether to add to a layer's gradient rather than to write over it; from then on to add.
    fn keep(&mut self, layer: LayerId) -> bool {
        std::mem::replace(&mut self.0[layer], true)
    }
}

impl Plan<'_> {
    /// From the planar gradients of the layout's seeds that are `given`.
    pub fn backward(&self, params: &NetParams, given: &[bool]) -> Vec<Node> {
        let mut nodes = vec![];
        let mut started = Started(vec![false; self.graph.layers.len()]);
        let seeds = self.layout.planar_seeds.iter().zip(given).filter(|(_, given)| **given);
        for (&(layer, buffer), _) in seeds {
            let Some(packed) = self.gradient(layer) else { continue };
            let planar = self.buffer(buffer);
            let name = &self.graph.layers[layer].name;
            let loss_scale = self.bases.step + std::mem::offset_of!(arg::Step, loss_scale) as u64;
            let argument = self.repack(&planar, &packed, layer, loss_scale, started.keep(layer));
            let step = loss_scale..loss_scale + 4;
            nodes.push(self.flat((name, "pack"), self.count(layer), &argument, &[planar, step], &[packed]));
        }
        for id in (1..self.graph.layers.len()).rev() {
            let Some(gradient) = self.gradient(id).filter(|_| started.0[id]) else { continue };
            match params.convs.iter().position(|conv| conv.layer == id) {
                Some(index) => self.convolution_gradients(id, index, &gradient, &mut started, &mut nodes),
                None => self.operation_gradients(id, &gradient, &mut started, &mut nodes),
            }
        }
        nodes
    }

    fn convolution_gradients(
        &self,
        id: LayerId,
        index: usize,
        gradient: &Span,
        started: &mut Started,
        nodes: &mut Vec<Node>,
    ) {
        let layer = &self.graph.layers[id];
        let Op::Conv(conv) = layer.op else { unreachable!("only convolutions have parameters") };
        let (slots, buffers) = (self.layout.parameters.convs[index], self.layout.convs[index]);
        self.activation_and_norm(id, index, conv.activation, gradient, nodes);

        let (input, from) = (layer.inputs[0], self.shape(layer.inputs[0]));
        let window = arg::Windowed::new(self.layout.batch, conv.window(), from, layer.shape);
        let channels = layer.shape.channels;
        if !slots.frozen {
            let (values, parts) = (self.value(input), self.buffer(buffers.weight_parts));
            let argument = arg::WeightGradient {
                window,
                input: values.start,
                gradient: gradient.start,
                partial: parts.start,
                chunk: int(buffers.weight_chunks.pixels),
                unused: 0,
            };
            let count = buffers.weight_chunks.count;
            let (kernel, grid) = if conv.depthwise {
                ("depthwise_weights", [channels.div_ceil(CHANNELS), count, conv.kernel * conv.kernel])
            } else {
                let terms = slots.weight.len / channels;
                let tile = weight_tile(channels, terms);
                (tile.kernel, [channels.div_ceil(tile.rows), terms.div_ceil(tile.columns), count])
            };
            let grid = grid.map(|n| int(n) as u32);
            let reads = [values, gradient.clone()];
            nodes.push(self.blocks((&layer.name, kernel), grid, &argument, &reads, from_ref(&parts)));
            let sums = self.parameter_gradient(slots.weight);
            let argument =
                arg::Reduce { partial: parts.start, sums: sums.start, count: int(slots.weight.len), parts: int(count) };
            let reads = [parts, sums.clone()];
            nodes.push(self.flat((&layer.name, "reduce"), slots.weight.len, &argument, &reads, &[sums]));
        }
        let Some(result) = self.gradient(input) else { return };
        let weights = self.parameter(slots.weight);
        let argument = arg::InputGradient {
            window: window.keeping(started.keep(input)),
            gradient: gradient.start,
            weights: weights.start,
            result: result.start,
        };
        let reads = [gradient.clone(), weights, result.clone()];
        nodes.push(if conv.depthwise {
            self.flat((&layer.name, "depthwise_input"), self.count(input), &argument, &reads, &[result])
        } else {
            let tile = pixel_tile("dense_input", "dense_input_narrow", from.channels);
            let grid = [self.pixels(input).div_ceil(tile.rows), from.channels.div_ceil(tile.columns), 1];
            self.blocks((&layer.name, tile.kernel), grid.map(|n| int(n) as u32), &argument, &reads, &[result])
        });
    }

    /// From the gradient of the output to that of the convolution alone, in place.
    fn activation_and_norm(
        &self,
        id: LayerId,
        index: usize,
        activation: Activation,
        gradient: &Span,
        nodes: &mut Vec<Node>,
    ) {
        let (slots, buffers) = (self.layout.parameters.convs[index], self.layout.convs[index]);
        let name = &self.graph.layers[id].name[..];
        let channels = self.shape(id).channels;
        let (sums, means) = (self.buffer(buffers.gradient_sums), self.buffer(buffers.means));
        let beta = self.parameter(slots.bias);
        let mut reads = vec![beta.clone()];
        let mut argument = arg::Norm {
            gradient: gradient.start,
            beta: beta.start,
            partial: sums.start,
            means: means.start,
            pixels: int(self.pixels(id)),
            channels: int(channels),
            chunk: int(buffers.pixels.pixels),
            chunks: int(buffers.pixels.count),
            activation: number(activation),
            ..arg::Norm::default()
        };
        match buffers.alone {
            Some(alone) => {
                let z = self.buffer(alone);
                argument.z = z.start;
                reads.push(z);
            }
            None => {
                let y = self.value(id);
                argument.y = y.start;
                reads.push(y);
            }
        }
        if let Some(((gamma, _), affine)) = slots.norm.zip(buffers.affine) {
            let (gamma, affine) = (self.parameter(gamma), self.buffer(affine));
            (argument.gamma, argument.affine) = (gamma.start, affine.start);
            reads.extend([gamma, affine]);
        }
        // What is frozen has no gradient: that goes where nobody reads it.
        let unread =
            |at: usize| means.start + 4 * (at * channels) as u64..means.start + 4 * ((at + 1) * channels) as u64;
        let (d_beta, d_gamma) = if slots.frozen {
            (unread(2), unread(3))
        } else {
            let d_gamma = slots.norm.map_or(0..0, |(gamma, _)| self.parameter_gradient(gamma));
            (self.parameter_gradient(slots.bias), d_gamma)
        };
        (argument.d_beta, argument.d_gamma) = (d_beta.start, d_gamma.start);
        if slots.norm.is_some() || !slots.frozen {
            let grid = [int(channels.div_ceil(CHANNELS)) as u32, int(buffers.pixels.count) as u32, 1];
            let from: Vec<_> = reads.iter().cloned().chain([gradient.clone()]).collect();
            nodes.push(self.blocks((name, "norm_gradient_sums"), grid, &argument, &from, from_ref(&sums)));
            let from = [sums, d_beta.clone(), d_gamma.clone()];
            let writes = [means.clone(), d_beta, d_gamma];
            nodes.push(self.flat((name, "norm_parameters"), channels, &argument, &from, &writes));
        }
        if slots.norm.is_some() || activation != Activation::Identity {
            reads.extend([gradient.clone(), means]);
            nodes.push(self.flat((name, "norm_gradient"), self.count(id), &argument, &reads, from_ref(gradient)));
        }
    }

    fn operation_gradients(&self, id: LayerId, gradient: &Span, started: &mut Started, nodes: &mut Vec<Node>) {
        let layer = &self.graph.layers[id];
        let mut at = 0;
        for (which, &input) in layer.inputs.iter().enumerate() {
            let skipped = at;
            at += self.shape(input).channels;
            let Some(result) = self.gradient(input) else { continue };
            let keep = started.keep(input);
            self.gradient_of_operand(id, which, gradient, &result, (skipped, keep), nodes);
        }
    }

    /// The gradient of operand number `which`, into `result`. `skipped`: channels of the operands
    /// before it.
    fn gradient_of_operand(
        &self,
        id: LayerId,
        which: usize,
        gradient: &Span,
        result: &Span,
        (skipped, keep): (usize, bool),
        nodes: &mut Vec<Node>,
    ) {
        let layer = &self.graph.layers[id];
        let input = layer.inputs[which];
        let (from, count, images) = (self.shape(input), self.count(input), self.images());
        let (channels, keep) = (int(from.channels), i32::from(keep));
        let bytes = self.layout.precision.bytes();
        let of = |kernel| (&layer.name[..], kernel);
        let (reads, writes) = ([gradient.clone(), result.clone()], [result.clone()]);
        let elementwise = arg::Elementwise {
            first: gradient.start,
            result: result.start,
            count: count as i64,
            keep,
            ..arg::Elementwise::default()
        };
        let select = arg::Select {
            input: gradient.start,
            result: result.start,
            pixels: int(self.pixels(id)),
            channels,
            in_channels: int(layer.shape.channels),
            out_channels: channels,
            groups: 1,
            keep,
        };
        let node = match layer.op {
            Op::Add => self.flat(of("accumulate"), count, &elementwise, &reads, &writes),
            Op::Activate(activation) => {
                let values = self.value(input);
                let argument = arg::Elementwise {
                    first: values.start,
                    second: gradient.start,
                    activation: number(activation),
                    ..elementwise
                };
                let reads = [gradient.clone(), values, result.clone()];
                self.flat(of("activation_gradient"), count, &argument, &reads, &writes)
            }
            Op::Concat => {
                let argument = arg::Select { input: gradient.start + (skipped * bytes) as u64, ..select };
                self.flat(of("select"), count, &argument, &reads, &writes)
            }
            Op::Slice { first } => {
                if keep == 0 {
                    nodes.push(self.flat(of("zero"), count, &elementwise, &[], &writes));
                }
                let argument = arg::Select {
                    result: result.start + (first * bytes) as u64,
                    channels: int(layer.shape.channels),
                    keep: 1,
                    ..select
                };
                self.flat(of("select"), self.count(id), &argument, &reads, &writes)
            }
            Op::Shuffle { groups } => {
                // The inverse of a shuffle in groups is one in groups of the other size.
                let argument = arg::Select { groups: int(from.channels / groups), ..select };
                self.flat(of("select"), count, &argument, &reads, &writes)
            }
            Op::Upsample2x(by) => {
                let argument = arg::Upsample {
                    input: gradient.start,
                    result: result.start,
                    images,
                    height: int(from.height),
                    width: int(from.width),
                    channels,
                    bilinear: i32::from(by == Interpolation::Bilinear),
                    keep,
                };
                self.flat(of("upsample_gradient"), count, &argument, &reads, &writes)
            }
            Op::MaxPool(window) | Op::AveragePool(window) => {
                let largest = self.layout.largest[id].map(|id| self.buffer(id));
                let argument = arg::Pool {
                    window: arg::Windowed { keep, ..arg::Windowed::new(self.layout.batch, window, from, layer.shape) },
                    input: gradient.start,
                    result: result.start,
                    largest: largest.as_ref().map_or(0, |largest| largest.start),
                };
                let kernel = if largest.is_some() { "max_pool_gradient" } else { "average_pool_gradient" };
                let reads: Vec<_> = reads.into_iter().chain(largest).collect();
                self.flat(of(kernel), count, &argument, &reads, &writes)
            }
            Op::GlobalAverage => {
                let argument = arg::Whole {
                    first: gradient.start,
                    result: result.start,
                    factor: 1.0 / from.pixels() as f32,
                    images,
                    pixels: int(from.pixels()),
                    channels,
                    keep,
                    ..arg::Whole::default()
                };
                self.flat(of("whole_spread"), count, &argument, &reads, &writes)
            }
            Op::Scale if which == 0 => {
                let factors = self.value(layer.inputs[1]);
                let argument = arg::Scale {
                    input: gradient.start,
                    factors: factors.start,
                    result: result.start,
                    images,
                    pixels: int(from.pixels()),
                    channels,
                    keep,
                };
                let reads = [gradient.clone(), factors, result.clone()];
                self.flat(of("scale"), count, &argument, &reads, &writes)
            }
            Op::Scale => {
                let values = self.value(layer.inputs[0]);
                let argument = arg::Whole {
                    first: gradient.start,
                    second: values.start,
                    result: result.start,
                    factor: 1.0,
                    images,
                    pixels: int(layer.shape.pixels()),
                    channels,
                    keep,
                    unused: 0,
                };
                let grid = [int(from.channels.div_ceil(CHANNELS)) as u32, images as u32, 1];
                let reads = [gradient.clone(), values, result.clone()];
                self.blocks(of("whole_sum"), grid, &argument, &reads, &writes)
            }
            Op::Input | Op::Conv(_) => unreachable!("has a pass of its own"),
        };
        nodes.push(node);
    }
}
