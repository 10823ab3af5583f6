//! The launches of a step, with every address in place: what `forward` and `backward` add to.

use peregrine_engine::cuda::launch::{span, Launch, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::{Graph, LayerId, Shape};

use super::arguments::{self as arg, int};
use super::kernels::BLOCK;
use super::layout::{BufferId, Layout};
use super::parameters::Slot;

/// Where the memory of a training begins on the device.
#[derive(Debug, Clone, Copy)]
pub struct Bases {
    pub arena: u64,
    pub values: u64,
    pub gradients: u64,
    /// The constants of a step.
    pub step: u64,
}

/// A graph and its layout at given addresses.
pub struct Plan<'a> {
    pub graph: &'a Graph,
    pub layout: &'a Layout,
    pub bases: Bases,
}

impl Plan<'_> {
    /// Of a buffer, or of a list's part of it.
    pub fn buffer(&self, id: BufferId) -> Span {
        let buffer = self.layout.buffers[id];
        span(self.bases.arena + buffer.offset as u64, buffer.bytes)
    }

    /// A layer's tensor.
    pub fn value(&self, layer: LayerId) -> Span {
        self.buffer(self.layout.values[layer])
    }

    /// The gradient of a layer's tensor.
    pub fn gradient(&self, layer: LayerId) -> Option<Span> {
        self.layout.gradients[layer].map(|id| self.buffer(id))
    }

    pub fn parameter(&self, slot: Slot) -> Span {
        span(self.bases.values + 4 * slot.at as u64, 4 * slot.len)
    }

    pub fn parameter_gradient(&self, slot: Slot) -> Span {
        span(self.bases.gradients + 4 * slot.at as u64, 4 * slot.len)
    }

    pub fn shape(&self, layer: LayerId) -> Shape {
        self.graph.layers[layer].shape
    }

    /// Values of a layer's tensor of a batch.
    pub fn count(&self, layer: LayerId) -> usize {
        self.layout.batch * self.shape(layer).len()
    }

    /// Pixels of a batch.
    pub fn pixels(&self, layer: LayerId) -> usize {
        self.layout.batch * self.shape(layer).pixels()
    }

    pub fn images(&self) -> i32 {
        int(self.layout.batch)
    }

    /// A kernel of which each thread makes one of `count` values.
    pub fn flat(&self, of: (&str, &str), count: usize, argument: &impl Plain, reads: &[Span], writes: &[Span]) -> Node {
        let blocks = u32::try_from(count.div_ceil(BLOCK)).expect("checked when the network was laid out");
        self.blocks(of, [blocks, 1, 1], argument, reads, writes)
    }

    /// A kernel of so many blocks. `of`: the layer or what else it is for, and the kernel.
    pub fn blocks(
        &self,
        (name, kernel): (&str, &str),
        grid: [u32; 3],
        argument: &impl Plain,
        reads: &[Span],
        writes: &[Span],
    ) -> Node {
        let launch = Launch {
            kernel: self.layout.precision.kernel(kernel),
            grid,
            threads: BLOCK as u32,
            argument: argument.bytes(),
        };
        let name = format!("{name} {kernel}");
        Node { name, work: NodeWork::Kernel(launch), reads: reads.to_vec(), writes: writes.to_vec() }
    }

    /// Between planar values in `planar` and a packed tensor of `layer` in `packed`; `factor`: the
    /// address of what packed values are multiplied by, or 0.
    pub fn repack(&self, planar: &Span, packed: &Span, layer: LayerId, factor: u64, keep: bool) -> arg::Repack {
        let shape = self.shape(layer);
        arg::Repack {
            planar: planar.start,
            packed: packed.start,
            factor,
            images: self.images(),
            channels: int(shape.channels),
            pixels: int(shape.pixels()),
            keep: i32::from(keep),
        }
    }
}
