//! Turns a lowered plan into stages over memory, integer steps and those that stay f32.

use super::super::convolution::FloatConvolution;
use super::super::executor::{PixelLayout, Program};
use super::super::explain::StepReport;
use super::super::input_channels::InputChannels;
use super::super::isa::Isa;
use super::super::layout::{FloatView, ThreadMemory};
use super::super::plain;
use super::super::pool::Stages;
use super::super::residual::Residual;
use super::super::stage::{FloatAction, FloatStage, FloatStep};
use super::convolution::{ConvolutionOutput, IntegerConvolution};
use super::isa::IntegerIsa;
use super::layout::{ByteView, BLOCK, QUAD};
use super::movement::CopiedBytes;
use super::parts::{is_in_place, places, share_borders, Places};
use super::plain::PlainAction;
use super::residual::ScaledResidual;
use super::stage::{IntegerAction, IntegerStage};
use super::winograd::Winograd;
use crate::plan::{ChannelRange, Operand, PlanStep, TensorId, Work};
use crate::plan_memory::{place, Lifetime};
use crate::quantization::{relative_factor, Quantization, Requantization, TensorScale};
use crate::quantized_plan::Lowered;
use crate::{Graph, Weights};

/// Bytes in a cache line, to which everything in the arena is aligned.
const LINE: usize = 64;

/// Stages, and how much memory they need.
pub struct IntegerProgram {
    pub stages: Vec<IntegerStage>,
    /// Floats.
    pub arena: usize,
    /// Offset of each output among the planar outputs.
    pub outputs: Vec<usize>,
}

/// What a stage is made from.
#[derive(Clone, Copy)]
enum IntegerItem {
    QuantizeInput,
    PackInput,
    Step(usize),
    /// A tensor to its other form.
    Convert(TensorId),
    Unpack(usize),
}

struct IntegerBuilder<'a> {
    lowered: &'a Lowered,
    graph: &'a Graph,
    weights: &'a Weights,
    quantization: &'a Quantization,
    isa: IntegerIsa,
    threads: usize,
    bytes: Vec<Option<ByteView>>,
    floats: Vec<Option<FloatView>>,
    outputs: Vec<usize>,
    /// Of the bytes of each tensor: the concatenation that they are a part of, and their first channel there.
    places: Places,
}

/// Builds the program for `threads` threads of `isa`.
pub fn build(
    graph: &Graph,
    weights: &Weights,
    quantization: &Quantization,
    lowered: &Lowered,
    isa: IntegerIsa,
    threads: usize,
) -> IntegerProgram {
    let lengths = lowered.plan.outputs.iter().map(|&t| lowered.plan.tensors[t].shape.len());
    let ends = lengths.clone().scan(0, |end, len| {
        *end += len;
        Some(*end)
    });
    let outputs = ends.zip(lengths).map(|(end, len)| end - len).collect();
    let tensors = lowered.plan.tensors.len();
    let (bytes, floats) = (vec![None; tensors], vec![None; tensors]);
    let places = places(lowered);
    IntegerBuilder { lowered, graph, weights, quantization, isa, threads, bytes, floats, outputs, places }.run()
}

impl IntegerBuilder<'_> {
    fn run(mut self) -> IntegerProgram {
        let items = self.items();
        self.make_views();
        let arena = self.place(&items);
        let stages = items.iter().map(|&item| self.stage(item)).collect();
        IntegerProgram { stages, arena: arena / 4, outputs: self.outputs }
    }

    /// What happens, in order: each tensor is converted right after it was made.
    fn items(&self) -> Vec<IntegerItem> {
        let Lowered { plan, forms, .. } = self.lowered;
        let mut items = vec![];
        if forms[0].bytes {
            items.push(IntegerItem::QuantizeInput);
        }
        if forms[0].floats {
            items.push(IntegerItem::PackInput);
        }
        for (i, step) in plan.steps.iter().enumerate() {
            if !is_in_place(&self.places, step) {
                items.push(IntegerItem::Step(i));
            }
            let form = forms[step.output];
            if form.bytes && form.floats {
                items.push(IntegerItem::Convert(step.output));
            }
        }
        let real = |&k: &usize| !forms[plan.outputs[k]].departs;
        items.extend((0..plan.outputs.len()).filter(real).map(IntegerItem::Unpack));
        items
    }

    /// The tensor whose memory the bytes of a tensor lie in.
    fn storage(&self, tensor: TensorId) -> TensorId {
        self.places[tensor].map_or(tensor, |(whole, _)| whole)
    }

    /// A view of each tensor in each of its forms, with the border that its readers need.
    fn make_views(&mut self) {
        let Lowered { plan, forms, .. } = self.lowered;
        let mut border = vec![(0, 0); plan.tensors.len()];
        let mut only_dense = true;
        for step in &plan.steps {
            let dense = matches!(step.work, Work::Conv { conv, residual: None, .. } if !conv.depthwise);
            only_dense &= dense || !step.inputs.contains(&0);
            if let Work::Conv { conv, .. } = step.work {
                let (from, to) = (plan.tensors[step.inputs[0]].shape.width, plan.tensors[step.output].shape.width);
                let left = conv.pad_before(from);
                let right = ((to - 1) * conv.stride + conv.kernel).saturating_sub(left + from);
                let border = &mut border[step.inputs[0]];
                *border = (border.0.max(left), border.1.max(right));
            }
        }
        share_borders(&self.places, &mut border);
        for (t, tensor) in plan.tensors.iter().enumerate() {
            let small = t == 0 && only_dense && tensor.shape.channels <= QUAD;
            let block = if small { QUAD } else { BLOCK };
            if forms[t].bytes {
                let zero = self.lowered.scale(t).zero_point;
                let pixels = small && tensor.shape.channels == 3 && !forms[t].floats && !plan.outputs.contains(&t);
                self.bytes[t] = Some(ByteView { pixels, ..ByteView::new(tensor.shape, block, border[t], zero) });
            }
            if forms[t].floats {
                self.floats[t] = Some(FloatView::new(tensor.shape, usize::MAX, border[t]));
            }
        }
    }

    /// The tensors that an item reads and makes, and in which form: true for bytes.
    fn touched(&self, item: IntegerItem) -> Vec<(TensorId, bool)> {
        let Lowered { plan, forms, integer, .. } = self.lowered;
        match item {
            IntegerItem::QuantizeInput => vec![(0, true)],
            IntegerItem::PackInput => vec![(0, false)],
            IntegerItem::Step(i) => {
                let step = &plan.steps[i];
                let mut touched: Vec<_> = step.inputs.iter().map(|&t| (t, integer[i])).collect();
                if !forms[step.output].departs {
                    touched.push((step.output, integer[i]));
                }
                touched
            }
            IntegerItem::Convert(t) => vec![(t, true), (t, false)],
            IntegerItem::Unpack(k) => vec![(plan.outputs[k], forms[plan.outputs[k]].made_as_bytes)],
        }
    }

    /// Gives each view its place; returns the arena's size in bytes.
    fn place(&mut self, items: &[IntegerItem]) -> usize {
        let mut lives = std::collections::BTreeMap::new();
        for (now, &item) in items.iter().enumerate() {
            let in_arena = |&(tensor, as_bytes): &(TensorId, bool)| !(as_bytes && self.byte_view(tensor).pixels);
            for (tensor, as_bytes) in self.touched(item).into_iter().filter(in_arena) {
                let tensor = if as_bytes { self.storage(tensor) } else { tensor };
                let key = (tensor, as_bytes);
                let size = if as_bytes { self.byte_view(tensor).len() } else { 4 * self.float_view(tensor).len() };
                let life = lives.entry(key).or_insert(Lifetime { size: size.div_ceil(LINE), first: now, last: now });
                life.last = now;
            }
        }
        let buffers: Vec<_> = lives.values().copied().collect();
        let (offsets, total) = place(&buffers);
        for (&(tensor, as_bytes), offset) in lives.keys().zip(offsets) {
            match (as_bytes, &mut self.bytes[tensor], &mut self.floats[tensor]) {
                (true, Some(view), _) => view.base = offset * LINE,
                (false, _, Some(view)) => view.base = offset * LINE / 4,
                _ => unreachable!("only what has a view is placed"),
            }
        }
        for part in 0..self.places.len() {
            let Some((whole, first)) = self.places[part] else { continue };
            let base = self.byte_view(whole).base + first / BLOCK * self.byte_view(whole).plane;
            self.bytes[part].as_mut().expect("a part is in bytes").base = base;
        }
        total * LINE
    }

    fn byte_view(&self, tensor: TensorId) -> ByteView {
        self.bytes[tensor].expect("made where the lowering asks for bytes")
    }

    fn float_view(&self, tensor: TensorId) -> FloatView {
        self.floats[tensor].expect("made where the lowering asks for floats")
    }

    fn stage(&self, item: IntegerItem) -> IntegerStage {
        let plan = &self.lowered.plan;
        let named = |name: String, flops: usize, action: IntegerAction| self.split(name, flops, action);
        let tensor_name = |t: TensorId| self.graph.layers[plan.tensors[t].layer].name.clone();
        match item {
            IntegerItem::QuantizeInput => {
                // The pairs of weights are of no concern to it.
                let kernels = self.isa.kernels(true);
                let action = IntegerAction::QuantizeInput(kernels, self.byte_view(0), self.lowered.scale(0));
                named("quantize input".into(), 0, action)
            }
            IntegerItem::PackInput => {
                let view = self.float_view(0);
                self.float("pack".into(), 0, FloatAction::Pack, view, view)
            }
            IntegerItem::Step(i) => {
                let step = &plan.steps[i];
                if self.lowered.integer[i] {
                    named(step.name.clone(), plan.flops(step), self.integer_action(step))
                } else {
                    self.float_step(step)
                }
            }
            IntegerItem::Convert(t) => {
                let (bytes, floats, scale) = (self.byte_view(t), self.float_view(t), self.lowered.scale(t));
                if self.lowered.forms[t].made_as_bytes {
                    named(format!("{} to f32", tensor_name(t)), 0, IntegerAction::ToFloats(bytes, scale, floats))
                } else {
                    named(format!("{} to int8", tensor_name(t)), 0, IntegerAction::ToBytes(floats, scale, bytes))
                }
            }
            IntegerItem::Unpack(k) => {
                let (t, offset) = (plan.outputs[k], self.outputs[k]);
                if self.lowered.forms[t].made_as_bytes {
                    let scale = self.lowered.scale(t);
                    named("unpack".into(), 0, IntegerAction::Unpack(self.byte_view(t), scale, offset))
                } else {
                    let view = self.float_view(t);
                    self.float("unpack".into(), 0, FloatAction::Unpack(offset), view, view)
                }
            }
        }
    }

    fn operand(&self, operand: &Operand, output: Option<TensorScale>) -> ScaledResidual {
        ScaledResidual {
            tensor: Residual { view: self.byte_view(operand.tensor), upsampled: operand.upsampled },
            factor: relative_factor(self.lowered.scale(operand.tensor), output),
        }
    }

    fn integer_action(&self, step: &PlanStep) -> IntegerAction {
        let plan = &self.lowered.plan;
        let output_scale = self.lowered.output_scale(step);
        match &step.work {
            Work::Conv { conv, layer, residual } => {
                let values = &self.quantization.convs[&self.graph.layers[*layer].name];
                let input = self.byte_view(step.inputs[0]);
                let input_scale = self.lowered.scale(step.inputs[0]);
                let constants = Requantization::new(values, conv.activation, input_scale, output_scale);
                let output = if self.lowered.forms[step.output].departs {
                    let k = plan.outputs.iter().position(|&t| t == step.output).expect("it departs");
                    ConvolutionOutput::Floats { offset: self.outputs[k], shape: plan.tensors[step.output].shape }
                } else {
                    ConvolutionOutput::Bytes(self.byte_view(step.output))
                };
                let residual = residual.as_ref().map(|r| self.operand(r, output_scale));
                let on = (self.isa, self.threads);
                let convolution = IntegerConvolution::new(*conv, values, constants, input, output, residual, on);
                IntegerAction::Convolution(Box::new(convolution))
            }
            Work::Add(operands) => {
                let operands = operands.each_ref().map(|o| self.operand(o, output_scale));
                IntegerAction::Sum(operands, self.byte_view(step.output))
            }
            Work::Upsample2x => IntegerAction::Upsample(self.byte_view(step.inputs[0]), self.byte_view(step.output)),
            Work::Concat(parts) => {
                let whole = |&(t, to): &(TensorId, usize)| {
                    let view = self.byte_view(t);
                    CopiedBytes { view, from: 0, to, count: view.shape.channels }
                };
                IntegerAction::Copy(parts.iter().map(whole).collect(), self.byte_view(step.output))
            }
            Work::Gather(channels) => {
                let mut to = 0;
                let copied = |c: &ChannelRange| {
                    to += c.count;
                    CopiedBytes { view: self.byte_view(c.tensor), from: c.first, to: to - c.count, count: c.count }
                };
                IntegerAction::Copy(channels.iter().map(copied).collect(), self.byte_view(step.output))
            }
            work => {
                let (input, output) = (step.inputs[0], step.output);
                let second = || (self.byte_view(step.inputs[1]), self.lowered.scale(step.inputs[1]));
                let action = PlainAction::new(work, self.lowered.scale(input), second, self.lowered.scale(output));
                IntegerAction::Plain(action, self.byte_view(input), self.byte_view(output))
            }
        }
    }

    fn float_step(&self, step: &PlanStep) -> IntegerStage {
        let operand = |o: &Operand| Residual { view: self.float_view(o.tensor), upsampled: o.upsampled };
        let (input, output) = (self.float_view(step.inputs[0]), self.float_view(step.output));
        let action = match &step.work {
            Work::Conv { conv, layer, residual } => {
                let values = self.weights.of(&self.graph.layers[*layer].name);
                let channels = InputChannels::of_view(&input);
                let residual = residual.as_ref().map(operand);
                let kernels = Isa::best().kernels();
                let to = output.shape.channels;
                let convolution = FloatConvolution::new(*conv, channels, to, values, residual, kernels);
                FloatAction::Convolution(Box::new(convolution))
            }
            _ => plain::action(step, |t| self.float_view(t), Isa::best().kernels()),
        };
        self.float(step.name.clone(), self.lowered.plan.flops(step), action, input, output)
    }

    fn float(
        &self,
        name: String,
        flops: usize,
        action: FloatAction,
        input: FloatView,
        output: FloatView,
    ) -> IntegerStage {
        let step = FloatStep { name: name.clone(), action, input, output, flops };
        let (groups, rows) = (step.groups(), output.shape.height);
        let chunks = self.chunks(groups, rows);
        IntegerStage {
            name,
            action: IntegerAction::Float(FloatStage { steps: vec![step], band: 0, chunks }),
            groups,
            rows,
            chunks,
            flops,
        }
    }

    fn split(&self, name: String, flops: usize, action: IntegerAction) -> IntegerStage {
        let (groups, rows) = match &action {
            IntegerAction::QuantizeInput(_, view, _)
            | IntegerAction::Copy(_, view)
            | IntegerAction::ToBytes(_, _, view) => (1, view.shape.height),
            IntegerAction::ToFloats(view, ..) | IntegerAction::Unpack(view, ..) => (1, view.shape.height),
            IntegerAction::Convolution(c) => (c.groups(), c.output().shape().height),
            IntegerAction::Sum(_, view) | IntegerAction::Upsample(_, view) | IntegerAction::Plain(_, _, view) => {
                (view.blocks(), view.shape.height)
            }
            IntegerAction::Float(_) => unreachable!("has its own split"),
        };
        let by_winograd = if let IntegerAction::Convolution(c) = &action { c.winograd() } else { None };
        let chunks = by_winograd.map_or_else(|| self.chunks(groups, rows), |winograd| winograd.split().chunks());
        IntegerStage { name, action, groups, rows, chunks, flops }
    }

    /// As in the f32 engine: one part for a lone thread, else a few for each.
    fn chunks(&self, groups: usize, rows: usize) -> usize {
        match self.threads {
            1 => 1,
            threads => (4 * threads).min(groups * rows),
        }
    }
}

impl Stages for IntegerProgram {
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

impl Program for IntegerProgram {
    fn arena(&self) -> usize {
        // A line more: kernels read a little past a row's end.
        self.arena + LINE / 4
    }

    /// Only Winograd's transforms have scratch: there are no chains here.
    fn scratch(&self) -> usize {
        let bytes = |stage: &IntegerStage| match &stage.action {
            IntegerAction::Convolution(c) => c.winograd().map_or(0, Winograd::scratch),
            _ => 0,
        };
        self.stages.iter().map(bytes).max().unwrap_or(0).div_ceil(4)
    }

    fn outputs(&self) -> &[usize] {
        &self.outputs
    }

    fn pixels(&self) -> Option<PixelLayout> {
        let IntegerAction::QuantizeInput(kernels, view, scale) = &self.stages[0].action else { return None };
        view.pixels.then_some(PixelLayout {
            size: (view.shape.width, view.shape.height),
            left: view.left * QUAD,
            row: view.row,
            pixel: QUAD,
            write: kernels.quantize_pixels,
            scale: *scale,
        })
    }

    fn steps(&self, stage: usize) -> Vec<StepReport> {
        vec![self.stages[stage].report()]
    }
}
