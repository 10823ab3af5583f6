//! What a step keeps in the device's memory, planned once: every buffer with the first and the last
//! moment at which it is needed, so that those never needed together share memory.
//!
//! Moments are counted in layers: the forward pass of layer i is moment i, fetching follows, then the
//! seeds of the backward pass, and the layers once more in reverse.

use anyhow::ensure;
use peregrine_engine::plan_memory::{place, Lifetime};
use peregrine_engine::{Graph, LayerId, Op, Shape};

use super::kernels::{Precision, CHANNELS};
use super::parameters::ParameterLayout;
use crate::net::{activation, NetParams};

/// What a [`CudaNet`](super::CudaNet) is made for.
#[derive(Debug, Clone, Copy)]
pub struct Training<'a> {
    pub graph: &'a Graph,
    pub params: &'a NetParams,
    /// Whether a gradient has to reach a layer.
    pub needed: &'a [bool],
    pub batch: usize,
    /// Layers whose tensors the losses read, and may give gradients of.
    pub fetched: &'a [LayerId],
    pub precision: Precision,
}

impl Training<'_> {
    /// The plan of its memory for batches of another size.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn layout(&self, batch: usize, multiprocessors: u32) -> anyhow::Result<Layout> {
        let Self { graph, params, needed, fetched, precision, .. } = *self;
        Layout::new(graph, params, needed, batch, fetched, precision, multiprocessors)
    }
}

/// What buffers are aligned to, in bytes.
const ALIGNMENT: usize = 256;

/// Values that the kernels can count in one tensor of a batch.
const MOST_VALUES: usize = i32::MAX as usize;

/// Index of a buffer in [`Layout::buffers`].
pub type BufferId = usize;

/// A part of the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    pub offset: usize,
    pub bytes: usize,
    /// When it holds something that is needed, both inclusive.
    pub first: usize,
    pub last: usize,
}

/// A sum over pixels in chunks, each by blocks of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunks {
    /// Pixels of one.
    pub pixels: usize,
    pub count: usize,
}

impl Chunks {
    /// Of `pixels`, so many that with `blocks` for each the device is busy, but none of fewer than
    /// `least` pixels.
    fn new(pixels: usize, blocks: usize, least: usize, multiprocessors: u32) -> Self {
        let wanted = (4 * multiprocessors as usize).div_ceil(blocks).clamp(1, pixels.div_ceil(least));
        let of_one = pixels.div_ceil(wanted).next_multiple_of(16);
        Self { pixels: of_one, count: pixels.div_ceil(of_one) }
    }
}

/// The side that a block of a dense kernel makes of its tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    pub kernel: &'static str,
    pub rows: usize,
    pub columns: usize,
}

/// What a convolution has besides its tensors.
#[derive(Debug, Clone, Copy)]
pub struct ConvBuffers {
    /// The convolution alone, where the backward pass needs it.
    pub alone: Option<BufferId>,
    /// With batch-norm: scale, shift, mean, 1 / deviation.
    pub affine: Option<BufferId>,
    /// Sums in parts, of the forward pass with batch-norm; of the backward pass; of the weights.
    pub sums: Option<BufferId>,
    pub gradient_sums: BufferId,
    /// Two means, then room for the gradients of β and γ of a layer that is frozen.
    pub means: BufferId,
    pub weight_parts: BufferId,
    pub pixels: Chunks,
    pub weight_chunks: Chunks,
}

/// The plan of a network's memory for one batch.
#[derive(Debug, Clone)]
pub struct Layout {
    pub batch: usize,
    pub precision: Precision,
    pub buffers: Vec<Buffer>,
    /// Bytes.
    pub arena: usize,
    /// Of each layer.
    pub values: Vec<BufferId>,
    /// Of each layer that a gradient reaches.
    pub gradients: Vec<Option<BufferId>>,
    /// Of each maximum over windows, where it came from.
    pub largest: Vec<Option<BufferId>>,
    /// By index of its parameters.
    pub convs: Vec<ConvBuffers>,
    /// Planar values on their way: of the input, of each layer that is fetched, of each seed.
    pub planar_input: BufferId,
    pub planar_outputs: Vec<(LayerId, BufferId)>,
    pub planar_seeds: Vec<(LayerId, BufferId)>,
    pub parameters: ParameterLayout,
}

impl Layout {
    /// For batches of `batch` images; the layers `fetched` are given to the losses, and may be given a
    /// gradient by them. `needed`: whether a gradient has to reach a layer.
    ///
    /// # Errors
    /// Names a layer whose tensor of a batch is too large for the kernels.
    pub fn new(
        graph: &Graph,
        params: &NetParams,
        needed: &[bool],
        batch: usize,
        fetched: &[LayerId],
        precision: Precision,
        multiprocessors: u32,
    ) -> anyhow::Result<Self> {
        for layer in &graph.layers {
            let values = batch * layer.shape.len();
            ensure!(
                values <= MOST_VALUES / 4,
                "{} has {values} values in a batch of {batch}, and the CUDA kernels count up to {}; lower batch",
                layer.name,
                MOST_VALUES / 4
            );
            if let Op::MaxPool(window) = layer.op {
                ensure!(window.kernel < 256, "{} has a window of {}, and the most is 255", layer.name, window.kernel);
            }
        }
        let moments = Moments { layers: graph.layers.len() };
        let mut fetched: Vec<LayerId> = fetched.to_vec();
        fetched.sort_unstable();
        fetched.dedup();
        let reached = reached(graph, needed, &fetched);
        let mut plan = Planner { buffers: vec![] };

        let values: Vec<BufferId> = (0..graph.layers.len())
            .map(|id| {
                let bytes = precision.bytes() * batch * graph.layers[id].shape.len();
                let last = moments.last_use(graph, params, id, &reached, fetched.contains(&id));
                plan.add(bytes, id, last)
            })
            .collect();
        let gradients = (0..graph.layers.len()).map(|id| {
            let bytes = precision.bytes() * batch * graph.layers[id].shape.len();
            reached[id]
                .then(|| plan.add(bytes, moments.first_gradient(graph, id, &reached, &fetched), moments.backward(id)))
        });
        let gradients = gradients.collect();
        let largest = graph.layers.iter().enumerate().map(|(id, layer)| {
            let last = if reached[id] { moments.backward(id) } else { id };
            matches!(layer.op, Op::MaxPool(_)).then(|| plan.add(2 * batch * layer.shape.len(), id, last))
        });
        let largest = largest.collect();
        let convs = params.convs.iter().map(|conv| {
            let (id, layer) = (conv.layer, &graph.layers[conv.layer]);
            let Op::Conv(of) = layer.op else { unreachable!("only convolutions have parameters") };
            let back = moments.backward(id);
            let last = if reached[id] { back } else { id };
            let (channels, pixels) = (layer.shape.channels, batch * layer.shape.pixels());
            let keep = conv.norm.is_some() || !activation::is_known_by_result(of.activation);
            let sums = Chunks::new(pixels, channels.div_ceil(CHANNELS), 64, multiprocessors);
            let weights = conv.weight.value.len();
            let blocks = match of.depthwise {
                true => channels.div_ceil(CHANNELS) * of.kernel * of.kernel,
                false => {
                    let terms = weights / channels;
                    let tile = weight_tile(channels, terms);
                    channels.div_ceil(tile.rows) * terms.div_ceil(tile.columns)
                }
            };
            let weight_chunks = Chunks::new(pixels, blocks, 256, multiprocessors);
            let trained = reached[id] && !conv.frozen;
            ConvBuffers {
                alone: keep.then(|| plan.add(precision.bytes() * batch * layer.shape.len(), id, last)),
                affine: conv.norm.as_ref().map(|_| plan.add(16 * channels, id, last)),
                sums: conv.norm.as_ref().map(|_| plan.add(8 * channels * sums.count, id, id)),
                gradient_sums: plan.add(if reached[id] { 8 * channels * sums.count } else { 0 }, back, back),
                means: plan.add(if reached[id] { 16 * channels } else { 0 }, back, back),
                weight_parts: plan.add(if trained { 4 * weights * weight_chunks.count } else { 0 }, back, back),
                pixels: sums,
                weight_chunks,
            }
        });
        let convs = convs.collect();
        let planar = |shape: Shape| 4 * batch * shape.len();
        let planar_input = plan.add(planar(graph.layers[0].shape), 0, 0);
        // Losses read the ones and write the others.
        let mut staged = |ids: &mut dyn Iterator<Item = LayerId>| -> Vec<(LayerId, BufferId)> {
            ids.map(|id| (id, plan.add(planar(graph.layers[id].shape), moments.fetch(), moments.seeds()))).collect()
        };
        let planar_outputs = staged(&mut fetched.iter().copied());
        let planar_seeds = staged(&mut fetched.iter().copied().filter(|&id| reached[id]));
        let parameters = ParameterLayout::new(graph, params);
        let (buffers, arena) = plan.place();
        Ok(Self {
            batch,
            precision,
            buffers,
            arena,
            values,
            gradients,
            largest,
            convs,
            planar_input,
            planar_outputs,
            planar_seeds,
            parameters,
        })
    }

    /// Bytes of the device's memory that a training takes: the arena, parameters, gradients, the
    /// average and `slots` values of the optimizer for each trainable one.
    pub fn device_bytes(&self, slots: usize) -> usize {
        let ParameterLayout { trainable, all, .. } = self.parameters;
        self.arena + 4 * (2 * all + (1 + slots) * trainable)
    }
}

/// The kernel of a dense convolution's weight gradient: for few output channels, few terms of a
/// window, or many of both.
pub fn weight_tile(channels: usize, terms: usize) -> Tile {
    match (channels, terms) {
        (..=32, _) => Tile { kernel: "dense_weights_flat", rows: 32, columns: 128 },
        (_, ..=32) => Tile { kernel: "dense_weights_narrow", rows: 128, columns: 32 },
        _ => Tile { kernel: "dense_weights", rows: 64, columns: 64 },
    }
}

/// The kernel of a product with so many columns.
pub fn pixel_tile(kernel: &'static str, narrow: &'static str, columns: usize) -> Tile {
    if columns <= 32 {
        Tile { kernel: narrow, rows: 128, columns: 32 }
    } else {
        Tile { kernel, rows: 64, columns: 64 }
    }
}

/// The layers that a gradient reaches from the layers `fetched`.
fn reached(graph: &Graph, needed: &[bool], fetched: &[LayerId]) -> Vec<bool> {
    let mut reached = vec![false; graph.layers.len()];
    for &id in fetched {
        reached[id] = needed[id];
    }
    for id in (1..graph.layers.len()).rev().filter(|&id| needed[id]) {
        if reached[id] {
            graph.layers[id].inputs.iter().for_each(|&input| reached[input] |= needed[input]);
        }
    }
    reached
}

/// The moments of a step.
#[derive(Clone, Copy)]
struct Moments {
    layers: usize,
}

impl Moments {
    fn fetch(self) -> usize {
        self.layers
    }

    fn seeds(self) -> usize {
        self.layers + 1
    }

    fn backward(self, id: LayerId) -> usize {
        2 * self.layers + 1 - id
    }

    /// When the first part of a layer's gradient is there.
    fn first_gradient(self, graph: &Graph, id: LayerId, reached: &[bool], fetched: &[LayerId]) -> usize {
        let readers = (0..self.layers).filter(|&r| reached[r] && graph.layers[r].inputs.contains(&id));
        let seed = fetched.contains(&id).then(|| self.seeds());
        readers.map(|r| self.backward(r)).chain(seed).min().unwrap_or_else(|| self.backward(id))
    }

    /// When a layer's tensor is read for the last time.
    fn last_use(self, graph: &Graph, params: &NetParams, id: LayerId, reached: &[bool], fetched: bool) -> usize {
        let mut last = if fetched { self.fetch() } else { id };
        for (reader, layer) in graph.layers.iter().enumerate().filter(|(_, layer)| layer.inputs.contains(&id)) {
            let conv = params.convs.iter().find(|conv| conv.layer == reader);
            let reads_back = match layer.op {
                Op::Conv(_) => conv.is_some_and(|conv| !conv.frozen),
                Op::Scale | Op::Activate(_) => true,
                _ => false,
            };
            last = last.max(if reads_back && reached[reader] { self.backward(reader) } else { reader });
        }
        // The slope of its own activation, where that follows from the result.
        let own = params.convs.iter().find(|conv| conv.layer == id);
        if own.is_some_and(|conv| conv.norm.is_none()) && reached[id] {
            last = last.max(self.backward(id));
        }
        last
    }
}

/// Collects buffers.
struct Planner {
    buffers: Vec<Lifetime>,
}

impl Planner {
    fn add(&mut self, bytes: usize, first: usize, last: usize) -> BufferId {
        self.buffers.push(Lifetime { size: bytes.next_multiple_of(ALIGNMENT), first, last });
        self.buffers.len() - 1
    }

    fn place(&self) -> (Vec<Buffer>, usize) {
        let (offsets, arena) = place(&self.buffers);
        let buffers = self.buffers.iter().zip(offsets);
        (buffers.map(|(b, offset)| Buffer { offset, bytes: b.size, first: b.first, last: b.last }).collect(), arena)
    }
}
