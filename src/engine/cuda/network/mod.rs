//! A network's launches: for each step of the plan a kernel, its grid, and its argument with every
//! address in place.
//!
//! - `half`, `integer`: convolutions of either precision; `pooling`: what makes one value of several
//!   pixels; `movement`: everything else; `integer_pooling`: what differs of them in bytes.

mod half;
mod integer;
mod integer_pooling;
mod movement;
mod pooling;

use super::arguments as arg;
use super::kernels::{FilterRun, Tile, STEM_CHANNELS, THREADS};
use super::launch::{Launch, Node, NodeWork, Span};
use super::layout::{Layout, TensorView};
use crate::plan::{ChannelRange, Operand, PlanStep, Work};
use crate::{Activation, Conv, EngineError, Graph, Quantization, Weights, Window};

/// Which variant of its kernel a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// A dense convolution.
    Dense(Tile),
    Depthwise(FilterRun),
    /// A first layer; output channels of a thread.
    Stem(usize),
    /// What has no variants.
    Only,
}

/// Where the memory of a network begins on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bases {
    pub arena: u64,
    pub weights: u64,
}

/// The weights of all steps in the order of the kernels, and where those of each step begin.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PackedWeights {
    pub bytes: Vec<u8>,
    /// Of each step: its weights, sources or table, and its biases or constants. Unused for steps
    /// without.
    pub at: Vec<(usize, usize)>,
}

/// A network planned for CUDA.
#[derive(Debug, Clone)]
pub struct Network {
    pub layout: Layout,
    graph: Graph,
    quantization: Option<Quantization>,
}

impl Network {
    /// In half precision.
    ///
    /// # Errors
    /// As [`Layout::new`].
    pub fn new(graph: &Graph) -> Result<Self, EngineError> {
        Ok(Self { layout: Layout::new(graph)?, graph: graph.clone(), quantization: None })
    }

    /// In 8-bit integers where `quantization` says so, in half precision elsewhere.
    ///
    /// # Errors
    /// As [`Layout::quantized`].
    pub fn quantized(graph: &Graph, quantization: &Quantization) -> Result<Self, EngineError> {
        let layout = Layout::quantized(graph, quantization)?;
        Ok(Self { layout, graph: graph.clone(), quantization: Some(quantization.clone()) })
    }

    /// The variants that step `s` may run as, the smallest tile first.
    pub fn variants(&self, s: usize) -> Vec<Variant> {
        let step = &self.layout.plan.steps[s];
        let Work::Conv { conv, .. } = step.work else { return vec![Variant::Only] };
        if conv.depthwise {
            let element = self.view(step.inputs[0]).element;
            return FilterRun::choices(element, conv.kernel, conv.stride)
                .iter()
                .map(|&r| Variant::Depthwise(r))
                .collect();
        }
        let out = self.view(step.output).shape.channels;
        if self.is_stem(step) {
            let fits = |&&c: &&usize| c == STEM_CHANNELS[0] || c < out + STEM_CHANNELS[0];
            return STEM_CHANNELS.iter().filter(fits).map(|&c| Variant::Stem(c)).collect();
        }
        let tiles = Tile::choices(self.view(step.inputs[0]).element, is_point(conv));
        // Tiles of which most would be padding are left out, but for the narrowest.
        let narrowest = tiles.iter().map(Tile::channels).min().unwrap_or(0);
        let fits = |t: &&Tile| t.channels() == narrowest || t.channels() < 2 * out;
        tiles.iter().filter(fits).map(|&t| Variant::Dense(t)).collect()
    }

    /// A variant for each step without measuring any: for pointwise convolutions the largest tile
    /// of which the device gets two blocks a multiprocessor, else the one with the most blocks.
    pub fn guess(&self, multiprocessors: u32) -> Vec<Variant> {
        let guess = |s: usize| {
            let variants = self.variants(s);
            let blocks = |v: &Variant| self.grid(s, *v).iter().map(|&g| g as usize).product::<usize>();
            let enough = 2 * multiprocessors as usize;
            let large = variants.iter().rev().find(|v| blocks(v) >= enough);
            *large.unwrap_or_else(|| variants.iter().max_by_key(|v| blocks(v)).expect("each step has a variant"))
        };
        (0..self.layout.plan.steps.len()).map(guess).collect()
    }

    /// What tells steps apart for the choice of a variant: two with the same text run equally fast.
    pub fn signature(&self, s: usize) -> String {
        let step = &self.layout.plan.steps[s];
        let (from, to) = (self.view(step.inputs[0]).shape, self.view(step.output).shape);
        let shape = |s: crate::Shape| format!("{}x{}x{}", s.channels, s.height, s.width);
        match &step.work {
            Work::Conv { conv, residual, .. } => {
                let kind = match (conv.depthwise, self.is_stem(step)) {
                    (true, _) => "depthwise",
                    (_, true) => "stem",
                    _ => "dense",
                };
                let plus = if residual.is_some() { "+" } else { "" };
                let element = |tensor: usize| self.view(tensor).element.name();
                format!(
                    "{kind} {}/{} {} {} {} {}{plus} {:?}",
                    conv.kernel,
                    conv.stride,
                    element(step.inputs[0]),
                    shape(from),
                    element(step.output),
                    shape(to),
                    conv.activation
                )
            }
            Work::Add(_) => format!("add {}", shape(to)),
            Work::Upsample2x => format!("upsample {}", shape(to)),
            Work::Concat(_) => format!("concat {}", shape(to)),
            Work::Gather(_) => format!("gather {}", shape(to)),
            Work::MaxPool(Window { kernel, stride, .. }) => format!("max {kernel}/{stride} {}", shape(to)),
            Work::AveragePool(Window { kernel, stride, .. }) => format!("average {kernel}/{stride} {}", shape(to)),
            Work::GlobalAverage => format!("global average {}", shape(from)),
            Work::Bilinear2x => format!("bilinear {}", shape(to)),
            Work::Scale => format!("scale {}", shape(to)),
            Work::Activate(activation) => format!("{activation:?} {}", shape(to)),
        }
    }

    /// The weights for `variants`, one for each step.
    pub fn pack(&self, weights: &Weights, variants: &[Variant]) -> PackedWeights {
        let mut packed = PackedWeights::default();
        for (step, variant) in self.layout.plan.steps.iter().zip(variants) {
            packed.at.push((0, 0));
            let (values, constants) = match &step.work {
                &Work::Conv { conv, layer, .. } => {
                    let name = &self.graph.layers[layer].name;
                    match &self.quantization {
                        Some(quantization) if self.is_integer(step) => {
                            self.integer_weights(step, conv, &quantization.convs[name], *variant)
                        }
                        _ => self.half_weights(step, conv, weights.of(name), *variant),
                    }
                }
                Work::Gather(parts) if parts.len() > 1 => (self.sources(step, parts), vec![]),
                &Work::Activate(activation) if self.is_integer(step) => (self.table(step, activation), vec![]),
                _ => continue,
            };
            let mut append = |bytes: Vec<u8>| {
                packed.bytes.resize(packed.bytes.len().next_multiple_of(16), 0);
                let at = packed.bytes.len();
                packed.bytes.extend(bytes);
                at
            };
            let at = (append(values), append(constants));
            *packed.at.last_mut().expect("pushed above") = at;
        }
        packed
    }

    /// The launches of the whole network, in execution order.
    pub fn nodes(&self, variants: &[Variant], packed: &PackedWeights, bases: Bases) -> Vec<Node> {
        self.layout.order.iter().flat_map(|&s| self.step_nodes(s, variants[s], packed.at[s], bases)).collect()
    }

    /// The launches of step `s`: one, but for a concatenation as many as it has parts to copy.
    /// `weights` are the offsets of its weights and constants.
    pub fn step_nodes(&self, s: usize, variant: Variant, weights: (usize, usize), bases: Bases) -> Vec<Node> {
        let step = &self.layout.plan.steps[s];
        let whole = |tensor: usize| ChannelRange { tensor, first: 0, count: self.view(tensor).shape.channels };
        match &step.work {
            Work::Conv { conv, residual, .. } => {
                let (residual, at) =
                    (residual.as_ref(), (bases.weights + weights.0 as u64, bases.weights + weights.1 as u64));
                let launch = if self.is_integer(step) {
                    self.integer_convolution(s, *conv, residual, variant, at, bases)
                } else {
                    self.half_convolution(s, *conv, residual, variant, at, bases)
                };
                vec![self.node(step, launch, bases)]
            }
            Work::Add([a, b]) => {
                let launch = self.sum(step, [Some(a), Some(b)], bases);
                vec![self.node(step, launch, bases)]
            }
            Work::Upsample2x => {
                let operand = Operand { tensor: step.inputs[0], upsampled: true };
                let launch = self.sum(step, [Some(&operand), None], bases);
                vec![self.node(step, launch, bases)]
            }
            Work::Concat(parts) => {
                parts.iter().map(|&(part, channel)| self.copy(step, whole(part), channel, bases)).collect()
            }
            Work::Gather(parts) => match parts[..] {
                // Perhaps a conversion.
                [part] => vec![self.copy(step, part, 0, bases)],
                _ => {
                    let launch = self.gather(step, bases.weights + weights.0 as u64, bases);
                    vec![self.node(step, launch, bases)]
                }
            },
            &Work::MaxPool(window) => vec![self.node(step, self.pool("max_pool", step, window, bases), bases)],
            &Work::AveragePool(window) => vec![self.node(step, self.pool("average_pool", step, window, bases), bases)],
            Work::GlobalAverage => vec![self.node(step, self.global_average(step, bases), bases)],
            Work::Bilinear2x => vec![self.node(step, self.bilinear(step, bases), bases)],
            Work::Scale if self.is_integer(step) => vec![self.node(step, self.integer_scaling(step, bases), bases)],
            Work::Activate(_) if self.is_integer(step) => {
                let launch = self.lookup(step, bases.weights + weights.0 as u64, bases);
                vec![self.node(step, launch, bases)]
            }
            Work::Scale => {
                let launch = self.elementwise(step, Some(step.inputs[1]), Activation::Identity, bases);
                vec![self.node(step, launch, bases)]
            }
            &Work::Activate(activation) => {
                vec![self.node(step, self.elementwise(step, None, activation, bases), bases)]
            }
        }
    }

    /// The grid of a convolution; that of other steps does not depend on a variant and counts as
    /// one block.
    fn grid(&self, s: usize, variant: Variant) -> [u32; 3] {
        let to = self.view(self.layout.plan.steps[s].output);
        let (pixels, channels) = (to.shape.pixels(), to.shape.channels);
        let blocks = |n: usize| u32::try_from(n).expect("maps are far smaller");
        match variant {
            Variant::Dense(tile) => {
                [blocks(pixels.div_ceil(tile.pixels())), blocks(channels.div_ceil(tile.channels())), 1]
            }
            Variant::Depthwise(run) => {
                let [tiles, slices] = run.blocks(to.padded(), to.shape.width, to.shape.height);
                [blocks(tiles), blocks(slices), 1]
            }
            Variant::Stem(n) => [blocks(pixels.div_ceil(THREADS as usize)), blocks(to.padded().div_ceil(n)), 1],
            Variant::Only => [1, 1, 1],
        }
    }

    /// How a step's window moves.
    fn window(&self, step: &PlanStep, window: Window, activation: Activation) -> arg::Window {
        let (from, to) = (self.view(step.inputs[0]), self.view(step.output));
        arg::Window {
            in_height: int(from.shape.height),
            in_width: int(from.shape.width),
            in_pitch: int(from.pitch),
            out_height: int(to.shape.height),
            out_width: int(to.shape.width),
            out_pitch: int(to.pitch),
            pixels: int(to.shape.pixels()),
            kernel: int(window.kernel),
            stride: int(window.stride),
            pad_top: int(window.before(from.shape.height)),
            pad_left: int(window.before(from.shape.width)),
            activation: arg::number(activation),
        }
    }

    fn node(&self, step: &PlanStep, launch: Launch, bases: Bases) -> Node {
        let mut reads: Vec<Span> = step.inputs.iter().map(|&t| self.span(t, bases)).collect();
        reads.dedup();
        Node {
            name: step.name.clone(),
            work: NodeWork::Kernel(launch),
            reads,
            writes: vec![self.span(step.output, bases)],
        }
    }

    /// The bytes that `tensor` takes on the device.
    pub fn span(&self, tensor: usize, bases: Bases) -> Span {
        let start = self.address(tensor, bases);
        start..start + self.view(tensor).extent() as u64
    }

    /// Where `tensor` begins on the device.
    pub fn address(&self, tensor: usize, bases: Bases) -> u64 {
        bases.arena + self.view(tensor).base as u64
    }

    /// Where results beyond the range of half precision are counted on the device.
    pub fn saturated(&self, bases: Bases) -> u64 {
        bases.arena + self.layout.saturated() as u64
    }

    pub fn view(&self, tensor: usize) -> TensorView {
        self.layout.views[tensor]
    }

    /// Tensor of the graph's output `index`.
    pub fn output(&self, index: usize) -> usize {
        self.layout.plan.outputs[index]
    }

    fn is_stem(&self, step: &PlanStep) -> bool {
        self.layout.narrow_input() && step.inputs[0] == 0
    }
}

fn is_point(conv: Conv) -> bool {
    conv.kernel == 1 && conv.stride == 1
}

/// Sizes were checked when the network was laid out.
fn int(n: usize) -> i32 {
    i32::try_from(n).expect("sizes are far below 2^31")
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
