//! Turns a [`Plan`] into stages over memory: which convolutions form chains, where each tensor
//! lies.

use super::convolution::FloatConvolution;
use super::executor::{PixelLayout, Program};
use super::explain::StepReport;
use super::input_channels::InputChannels;
use super::isa::Isa;
use super::layout::{FloatView, Region, ThreadMemory, PIXEL};
use super::movement;
use super::plain;
use super::pool::Stages;
use super::residual::Residual;
use super::simd::BLOCK;
use super::stage::{self, FloatAction, FloatStage, FloatStep, MAX_CHAIN};
use super::tiles::MAX_KERNEL;
use super::views::whole_views;
use super::winograd::Winograd;
use crate::plan::{ChannelRange, Operand, Plan, TensorId, Work};
use crate::plan_memory::{place, Lifetime};
use crate::quantization::TensorScale;
use crate::{plan, EngineError, Graph, Op, Weights};

/// Floats of intermediate maps that a chain's band may take: half of a 512 KiB second-level cache,
/// the least among processors worth naming; weights and the maps at both ends need the rest.
const BAND_FLOATS: usize = 64 * 1024;

/// A chain is worth its rows of overlap where a map inside it has at least this many floats: the 1
/// MiB of a second-level cache. Measured on Zen 4, one thread: from 16 Ki to 512 Ki floats make no
/// difference of more than 2 % with AVX-512.
const CHAINED_FLOATS: usize = 256 * 1024;

/// What overlap may add to a chain's operations before it is split into no more parts than there
/// are threads.
const MOST_OVERLAP: f64 = 1.04;

/// Stages, and how much memory they need, in floats.
pub struct FloatProgram {
    pub stages: Vec<FloatStage>,
    pub arena: usize,
    /// Per thread.
    pub scratch: usize,
    /// Offset of each output among the planar outputs.
    pub outputs: Vec<usize>,
}

/// A step of the plan, or the packing of the input before them all.
#[derive(Clone, Copy, PartialEq)]
enum FloatItem {
    Pack,
    Step(usize),
}

struct FloatBuilder<'a> {
    plan: Plan,
    graph: &'a Graph,
    weights: &'a Weights,
    isa: Isa,
    threads: usize,
    views: Vec<FloatView>,
}

/// Builds the program for `threads` threads of `isa`.
///
/// # Errors
/// Where a kernel is larger than the tiles can take.
pub fn build(graph: &Graph, weights: &Weights, isa: Isa, threads: usize) -> Result<FloatProgram, EngineError> {
    check_kernels(graph)?;
    let mut plan = Plan::new(graph, BLOCK);
    plan.read_in_place();
    let views = whole_views(&plan);
    Ok(FloatBuilder { plan, graph, weights, isa, threads, views }.run())
}

/// Checks that no window is larger than the tiles can take.
///
/// # Errors
/// [`EngineError::Unsupported`] names the layer.
pub fn check_kernels(graph: &Graph) -> Result<(), EngineError> {
    for layer in &graph.layers {
        let kernel = match layer.op {
            Op::Conv(conv) => conv.kernel,
            Op::MaxPool(window) | Op::AveragePool(window) => window.kernel,
            _ => continue,
        };
        if kernel > MAX_KERNEL {
            let why = format!("{} has a kernel of {kernel}, and the largest is {MAX_KERNEL}", layer.name);
            return Err(EngineError::Unsupported { device: "CPU", why });
        }
    }
    Ok(())
}

impl FloatBuilder<'_> {
    fn run(mut self) -> FloatProgram {
        let groups = self.group();
        let arena = self.place_whole(&groups);
        let mut scratch = 0;
        let mut stages = vec![];
        for items in &groups {
            let (band, floats) = self.place_chain(items);
            scratch = scratch.max(floats);
            let steps: Vec<_> = items.iter().map(|&item| self.step(item, items.len() == 1)).collect();
            for step in &steps {
                if let FloatAction::Winograd(convolution) = &step.action {
                    scratch = scratch.max(convolution.scratch());
                }
            }
            stages.push(FloatStage { chunks: self.chunks(&steps), steps, band });
        }
        let mut outputs = vec![];
        let mut offset = 0;
        for &tensor in &self.plan.outputs {
            let view = self.views[tensor];
            let steps = vec![FloatStep {
                name: "unpack".into(),
                action: FloatAction::Unpack(offset),
                input: view,
                output: view,
                flops: 0,
            }];
            stages.push(FloatStage { chunks: self.chunks(&steps), steps, band: 0 });
            outputs.push(offset);
            offset += view.shape.len();
        }
        FloatProgram { stages, arena, scratch, outputs }
    }

    /// The plan's steps in order, those that form a chain together.
    fn group(&self) -> Vec<Vec<FloatItem>> {
        let mut groups: Vec<Vec<FloatItem>> = vec![vec![FloatItem::Pack]];
        for at in 0..self.plan.steps.len() {
            let group = groups.last_mut().expect("starts with one");
            if group.len() < MAX_CHAIN && self.chains(*group.last().expect("no group is empty"), at) {
                group.push(FloatItem::Step(at));
            } else {
                groups.push(vec![FloatItem::Step(at)]);
            }
        }
        groups
    }

    /// Whether the map between `before` and the step `at` is used nowhere else and is worth keeping
    /// in cache.
    fn chains(&self, before: FloatItem, at: usize) -> bool {
        let is_conv = |i: usize| matches!(self.plan.steps[i].work, Work::Conv { .. });
        let (tensor, conv) = match before {
            FloatItem::Pack => (0, self.views[0].place == Region::Arena),
            FloatItem::Step(i) => (self.plan.steps[i].output, is_conv(i)),
        };
        let next = &self.plan.steps[at];
        let only_here =
            next.inputs[0] == tensor && !next.inputs[1..].contains(&tensor) && self.plan.readers(tensor) == 1;
        let placed = self.plan.tensors[tensor].within.is_some() || !next.gathered.is_empty();
        conv && is_conv(at) && only_here && !placed && self.views[tensor].len() >= CHAINED_FLOATS
    }

    fn output(&self, item: FloatItem) -> TensorId {
        match item {
            FloatItem::Pack => 0,
            FloatItem::Step(i) => self.plan.steps[i].output,
        }
    }

    /// Gives an offset to every tensor that is whole in memory: all but those inside chains.
    /// Returns the arena's size.
    fn place_whole(&mut self, groups: &[Vec<FloatItem>]) -> usize {
        let unused = Lifetime { size: 0, first: usize::MAX, last: 0 };
        let mut lives = vec![unused; self.plan.tensors.len()];
        for (now, items) in groups.iter().enumerate() {
            let inside: Vec<_> = items[..items.len() - 1].iter().map(|&i| self.output(i)).collect();
            let read = items.iter().flat_map(|&item| match item {
                FloatItem::Pack => [].as_slice(),
                FloatItem::Step(i) => &self.plan.steps[i].inputs,
            });
            let made = items.iter().map(|&i| self.output(i));
            for tensor in read.copied().chain(made).filter(|t| !inside.contains(t)) {
                let life = &mut lives[self.plan.storage(tensor)];
                *life = Lifetime { size: 0, first: life.first.min(now), last: life.last.max(now) };
            }
        }
        for &tensor in &self.plan.outputs {
            lives[self.plan.storage(tensor)].last = groups.len();
        }
        let mut placed: Vec<TensorId> = (0..lives.len()).filter(|&t| lives[t].first != usize::MAX).collect();
        placed.retain(|&t| self.plan.storage(t) == t && self.views[t].place == Region::Arena);
        let buffers: Vec<_> = placed.iter().map(|&t| Lifetime { size: self.views[t].len(), ..lives[t] }).collect();
        let (offsets, total) = place(&buffers);
        for (&tensor, offset) in placed.iter().zip(offsets) {
            self.views[tensor].base = offset;
        }
        for tensor in 0..self.views.len() {
            let (whole, channel) = self.plan.place(tensor);
            if whole != tensor {
                self.views[tensor].base = self.views[whole].base + channel / BLOCK * self.views[whole].plane;
            }
        }
        total
    }

    /// Makes rings in the scratch of the maps inside a chain, for the highest band that
    /// [`BAND_FLOATS`] allows. Returns that band and the floats that the rings take.
    fn place_chain(&mut self, items: &[FloatItem]) -> (usize, usize) {
        if items.len() == 1 {
            return (0, 0);
        }
        let height = self.views[self.output(items[items.len() - 1])].shape.height;
        let rings = |band: usize| {
            let (mut views, mut rows, mut floats) = (vec![], band, 0);
            for pair in items.windows(2).rev() {
                let FloatItem::Step(reader) = pair[1] else { unreachable!("a pack comes first") };
                let Work::Conv { conv, .. } = self.plan.steps[reader].work else { unreachable!("chains convolve") };
                let tensor = self.output(pair[0]);
                let whole = self.views[tensor];
                rows = (rows - 1) * conv.stride + conv.kernel;
                let view = FloatView::new(whole.shape, rows, (whole.left, whole.right));
                views.push((tensor, FloatView { place: Region::Scratch, base: floats, ..view }));
                floats += view.len();
            }
            (views, floats)
        };
        let band = (2..=height).rev().find(|&band| rings(band).1 <= BAND_FLOATS).unwrap_or(1);
        let (views, floats) = rings(band);
        for (tensor, view) in views {
            self.views[tensor] = view;
        }
        // Even bands: the last one is not a sliver.
        (height.div_ceil(height.div_ceil(band)), floats)
    }

    /// `alone`: not within a chain.
    fn step(&self, item: FloatItem, alone: bool) -> FloatStep {
        let view = |tensor: TensorId| self.views[tensor];
        let FloatItem::Step(at) = item else {
            let output = view(0);
            return FloatStep { name: "pack".into(), action: FloatAction::Pack, input: output, output, flops: 0 };
        };
        let step = &self.plan.steps[at];
        let operand = |o: &Operand| Residual { view: view(o.tensor), upsampled: o.upsampled };
        let action = match &step.work {
            Work::Conv { conv, layer, residual } => {
                let values = self.weights.of(&self.graph.layers[*layer].name);
                let (channels, to) = (self.input_channels(step), view(step.output).shape.channels);
                let residual = residual.as_ref().map(operand);
                let kernels = self.isa.kernels();
                let input = view(step.inputs[0]);
                // In a chain the scratch is taken by its maps, and bands begin where they must.
                if alone && step.gathered.is_empty() && Winograd::suits(*conv, &input, to, residual.as_ref()) {
                    let activation = conv.activation;
                    let winograd = Winograd::new(&input, to, values, activation, residual, kernels, self.threads);
                    FloatAction::Winograd(Box::new(winograd))
                } else {
                    let direct = FloatConvolution::new(*conv, channels, to, values, residual, kernels);
                    FloatAction::Convolution(Box::new(direct))
                }
            }
            _ => plain::action(step, view, self.isa.kernels()),
        };
        let (input, output) = (view(step.inputs[0]), view(step.output));
        FloatStep { name: step.name.clone(), action, input, output, flops: self.plan.flops(step) }
    }

    /// Where a convolution finds its input channels.
    fn input_channels(&self, step: &plan::PlanStep) -> InputChannels {
        let first = self.views[step.inputs[0]];
        if step.gathered.is_empty() {
            return InputChannels::of_view(&first);
        }
        let offset = |channel: usize, tensor: TensorId| {
            let view = self.views[tensor];
            let at = view.base + channel / BLOCK * view.plane + channel % BLOCK;
            at as isize - first.base as isize
        };
        let of = |c: &ChannelRange| (c.first..c.first + c.count).map(|i| offset(i, c.tensor)).collect::<Vec<_>>();
        InputChannels::of_offsets(&step.gathered.iter().flat_map(of).collect::<Vec<_>>())
    }

    /// Parts for the threads to take: one for a lone thread; else a few for each, so that one that
    /// starts late or is interrupted takes fewer. A chain's parts each cost some rows of overlap.
    fn chunks(&self, steps: &[FloatStep]) -> usize {
        let last = &steps[steps.len() - 1];
        let rows = last.output.shape.height;
        if let FloatAction::Winograd(winograd) = &last.action {
            return winograd.chunks();
        }
        match (self.threads, steps.len()) {
            (1, _) => 1,
            (threads, 1) => (4 * threads).min(last.groups() * rows),
            (threads, _) => {
                let few = threads.min(rows);
                let more = (2 * threads).min(rows);
                if stage::overlap(steps, more) <= MOST_OVERLAP {
                    more
                } else {
                    few
                }
            }
        }
    }
}

impl Stages for FloatProgram {
    fn stages(&self) -> usize {
        self.stages.len()
    }

    fn chunks(&self, stage: usize) -> usize {
        self.stages[stage].chunks
    }

    unsafe fn run(&self, memory: &ThreadMemory, stage: usize, chunk: usize, before: Option<usize>) {
        self.stages[stage].run(memory, chunk, before);
    }
}

impl Program for FloatProgram {
    fn arena(&self) -> usize {
        self.arena
    }

    fn scratch(&self) -> usize {
        self.scratch
    }

    fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    fn pixels(&self) -> Option<PixelLayout> {
        let view = self.stages[0].steps[0].output;
        (view.place == Region::Pixels).then_some(PixelLayout {
            size: (view.shape.width, view.shape.height),
            left: 4 * view.left * PIXEL,
            row: 4 * view.row,
            pixel: 4 * PIXEL,
            write: movement::write_pixels,
            scale: TensorScale { scale: 1.0, zero_point: 0 },
        })
    }

    fn steps(&self, stage: usize) -> Vec<StepReport> {
        self.stages[stage].steps.iter().map(StepReport::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, Conv, Padding, Shape};

    #[test]
    fn an_oversized_kernel_is_refused_by_name() {
        let mut graph = Graph::new(Shape::new(1, 16, 16));
        let conv =
            Conv { kernel: 9, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let id = graph.conv("huge", 0, 1, conv);
        graph.outputs.push(id);
        let error = build(&graph, &Weights::default(), Isa::Portable, 1).err().expect("must be refused");
        assert!(error.to_string().contains("huge has a kernel of 9"));
    }
}
