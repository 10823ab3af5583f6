//! The launches of the forward pass.

use std::slice::from_ref;

use peregrine_engine::cuda::arguments::number;
use peregrine_engine::cuda::launch::{Node, NodeWork};
use peregrine_engine::{Interpolation, LayerId, Op};

use super::arguments::{self as arg, int};
use super::kernels::CHANNELS;
use super::layout::pixel_tile;
use super::nodes::Plan;
use crate::net::{Mode, NetParams};

impl Plan<'_> {
    /// From the pinned input at `host` to the planar one.
    pub fn upload_input(&self, host: u64) -> Node {
        let planar = self.buffer(self.layout.planar_input);
        Node {
            name: "upload".into(),
            work: NodeWork::Upload { host, device: planar.start, bytes: 4 * self.count(0) },
            reads: vec![],
            writes: vec![planar],
        }
    }

    /// From the planar input to the planar tensors of the layout's outputs.
    pub fn forward(&self, params: &NetParams, mode: Mode) -> Vec<Node> {
        let (planar, packed) = (self.buffer(self.layout.planar_input), self.value(0));
        let argument = self.repack(&planar, &packed, 0, 0, false);
        let mut nodes = vec![self.flat(("input", "pack"), self.count(0), &argument, &[planar], &[packed])];
        for id in 1..self.graph.layers.len() {
            match params.convs.iter().position(|conv| conv.layer == id) {
                Some(index) => self.convolution(id, index, mode, &mut nodes),
                None => self.operation(id, &mut nodes),
            }
        }
        for &(layer, buffer) in &self.layout.planar_outputs {
            let (planar, packed) = (self.buffer(buffer), self.value(layer));
            let argument = self.repack(&planar, &packed, layer, 0, false);
            let name = &self.graph.layers[layer].name;
            nodes.push(self.flat((name, "unpack"), self.count(layer), &argument, &[packed], from_ref(&planar)));
        }
        nodes
    }

    /// From those to pinned memory, one address for each.
    pub fn fetch(&self, hosts: &[u64]) -> Vec<Node> {
        let download = |(&(layer, buffer), &host): (&(LayerId, _), &u64)| {
            let (planar, bytes) = (self.buffer(buffer), 4 * self.count(layer));
            Node {
                name: format!("{} download", self.graph.layers[layer].name),
                work: NodeWork::Download { device: planar.start, host, bytes },
                reads: vec![planar],
                writes: vec![],
            }
        };
        self.layout.planar_outputs.iter().zip(hosts).map(download).collect()
    }

    fn convolution(&self, id: LayerId, index: usize, mode: Mode, nodes: &mut Vec<Node>) {
        let layer = &self.graph.layers[id];
        let Op::Conv(conv) = layer.op else { unreachable!("only convolutions have parameters") };
        let (slots, buffers) = (self.layout.parameters.convs[index], self.layout.convs[index]);
        let (input, output) = (self.value(layer.inputs[0]), self.value(id));
        let (weights, bias) = (self.parameter(slots.weight), self.parameter(slots.bias));
        let alone = buffers.alone.map(|id| self.buffer(id));
        let from = self.shape(layer.inputs[0]);
        let mut argument = arg::Forward {
            window: arg::Windowed::new(self.layout.batch, conv.window(), from, layer.shape),
            input: input.start,
            weights: weights.start,
            bias: bias.start,
            output: output.start,
            alone: alone.as_ref().map_or(0, |alone| alone.start),
            activation: number(conv.activation),
            unused: 0,
        };
        let mut writes: Vec<_> = alone.iter().cloned().collect();
        match (&slots.norm, &alone) {
            // What the norm reads is the convolution alone.
            (Some(_), Some(alone)) => (argument.output, argument.alone, argument.bias) = (alone.start, 0, 0),
            _ => writes.push(output.clone()),
        }
        let reads = [input, weights, bias.clone()];
        if conv.depthwise {
            let of = (&layer.name[..], "depthwise_forward");
            nodes.push(self.flat(of, self.count(id), &argument, &reads, &writes));
        } else {
            let tile = pixel_tile("dense_forward", "dense_forward_narrow", layer.shape.channels);
            let grid = [self.pixels(id).div_ceil(tile.rows), layer.shape.channels.div_ceil(tile.columns), 1];
            let of = (&layer.name[..], tile.kernel);
            nodes.push(self.blocks(of, grid.map(|n| int(n) as u32), &argument, &reads, &writes));
        }
        let (Some((gamma, running)), Some(z)) = (slots.norm, alone) else { return };
        let (gamma, running) = (self.parameter(gamma), self.parameter(running));
        let affine = self.buffer(buffers.affine.expect("a layer with a norm has it"));
        let sums = self.buffer(buffers.sums.expect("a layer with a norm has them"));
        let channels = layer.shape.channels;
        let norm = arg::Norm {
            z: z.start,
            y: output.start,
            gamma: gamma.start,
            beta: bias.start,
            running: running.start,
            affine: affine.start,
            partial: sums.start,
            pixels: int(self.pixels(id)),
            channels: int(channels),
            chunk: int(buffers.pixels.pixels),
            chunks: int(buffers.pixels.count),
            activation: number(conv.activation),
            ..arg::Norm::default()
        };
        let of = |kernel| (&layer.name[..], kernel);
        match mode {
            Mode::Train => {
                let grid = [int(channels.div_ceil(CHANNELS)) as u32, int(buffers.pixels.count) as u32, 1];
                nodes.push(self.blocks(of("norm_sums"), grid, &norm, from_ref(&z), from_ref(&sums)));
                let writes = [affine.clone(), running];
                nodes.push(self.flat(of("norm_statistics"), channels, &norm, &[sums, gamma, bias], &writes));
            }
            Mode::Evaluate => {
                let reads = [running, gamma, bias];
                nodes.push(self.flat(of("norm_running"), channels, &norm, &reads, from_ref(&affine)));
            }
        }
        nodes.push(self.flat(of("norm_apply"), self.count(id), &norm, &[z, affine], &[output]));
    }

    fn operation(&self, id: LayerId, nodes: &mut Vec<Node>) {
        let layer = &self.graph.layers[id];
        let inputs = &layer.inputs;
        let (first, output, count) = (self.value(inputs[0]), self.value(id), self.count(id));
        let from = self.shape(inputs[0]);
        let (images, pixels, channels) = (self.images(), int(layer.shape.pixels()), int(layer.shape.channels));
        let of = |kernel| (&layer.name[..], kernel);
        let elementwise = arg::Elementwise {
            first: first.start,
            result: output.start,
            count: count as i64,
            ..arg::Elementwise::default()
        };
        let node = match layer.op {
            Op::Add => {
                let second = self.value(inputs[1]);
                let argument = arg::Elementwise { second: second.start, ..elementwise };
                self.flat(of("sum"), count, &argument, &[first, second], &[output])
            }
            Op::Activate(activation) => {
                let argument = arg::Elementwise { activation: number(activation), ..elementwise };
                self.flat(of("activation"), count, &argument, &[first], &[output])
            }
            Op::Concat => {
                let mut at = 0;
                for &input in inputs {
                    let (part, shape) = (self.value(input), self.shape(input));
                    let argument = arg::Select {
                        input: part.start,
                        result: output.start + (at * self.layout.precision.bytes()) as u64,
                        pixels: int(self.pixels(id)),
                        channels: int(shape.channels),
                        in_channels: int(shape.channels),
                        out_channels: channels,
                        groups: 1,
                        keep: 0,
                    };
                    nodes.push(self.flat(of("select"), self.count(input), &argument, &[part], from_ref(&output)));
                    at += shape.channels;
                }
                return;
            }
            Op::Slice { first: skipped } => {
                let argument = arg::Select {
                    input: first.start + (skipped * self.layout.precision.bytes()) as u64,
                    result: output.start,
                    pixels: int(self.pixels(id)),
                    channels,
                    in_channels: int(from.channels),
                    out_channels: channels,
                    groups: 1,
                    keep: 0,
                };
                self.flat(of("select"), count, &argument, &[first], &[output])
            }
            Op::Shuffle { groups } => {
                let argument = arg::Select {
                    input: first.start,
                    result: output.start,
                    pixels: int(self.pixels(id)),
                    channels,
                    in_channels: channels,
                    out_channels: channels,
                    groups: int(groups),
                    keep: 0,
                };
                self.flat(of("select"), count, &argument, &[first], &[output])
            }
            Op::Upsample2x(by) => {
                let argument = arg::Upsample {
                    input: first.start,
                    result: output.start,
                    images,
                    height: int(from.height),
                    width: int(from.width),
                    channels,
                    bilinear: i32::from(by == Interpolation::Bilinear),
                    keep: 0,
                };
                self.flat(of("upsample"), count, &argument, &[first], &[output])
            }
            Op::MaxPool(window) | Op::AveragePool(window) => {
                let largest = self.layout.largest[id].map(|id| self.buffer(id));
                let argument = arg::Pool {
                    window: arg::Windowed::new(self.layout.batch, window, from, layer.shape),
                    input: first.start,
                    result: output.start,
                    largest: largest.as_ref().map_or(0, |largest| largest.start),
                };
                let kernel = if largest.is_some() { "max_pool" } else { "average_pool" };
                let writes: Vec<_> = largest.into_iter().chain([output]).collect();
                self.flat(of(kernel), count, &argument, &[first], &writes)
            }
            Op::GlobalAverage => {
                let argument = arg::Whole {
                    first: first.start,
                    result: output.start,
                    factor: 1.0 / from.pixels() as f32,
                    images,
                    pixels: int(from.pixels()),
                    channels,
                    ..arg::Whole::default()
                };
                let grid = [int(layer.shape.channels.div_ceil(CHANNELS)) as u32, images as u32, 1];
                self.blocks(of("whole_sum"), grid, &argument, &[first], &[output])
            }
            Op::Scale => {
                let factors = self.value(inputs[1]);
                let argument = arg::Scale {
                    input: first.start,
                    factors: factors.start,
                    result: output.start,
                    images,
                    pixels,
                    channels,
                    keep: 0,
                };
                self.flat(of("scale"), count, &argument, &[first, factors], &[output])
            }
            Op::Input | Op::Conv(_) => unreachable!("has a pass of its own"),
        };
        nodes.push(node);
    }
}
