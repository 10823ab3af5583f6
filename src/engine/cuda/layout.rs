//! Where a network's tensors lie: channels last, in half precision or in bytes, in one arena; and
//! in what order its steps run.
//!
//! Steps are ordered by their level, the longest path from the input. Steps of one level are
//! independent, and a tensor's memory is used again only by a later level: so those of one level
//! can run at the same time, as the heads do.

use super::kernels::Element;
use super::precision;
use crate::plan::{Plan, TensorId, Work};
use crate::plan_memory::{place, Lifetime};
use crate::quantization::TensorScale;
use crate::{EngineError, Graph, Quantization, Shape};

/// Channels in half precision are padded to a multiple of this, 16 bytes, with finite values: what
/// activations make of zero. Bytes are padded to 16, whatever they hold. The weights that meet the
/// padding are zero.
pub const BLOCK: usize = Element::F16.per_lane();

/// What tensors are aligned to, in bytes.
const ALIGNMENT: usize = 256;

/// The largest kernel of a dense first layer or a depthwise convolution.
pub const MAX_KERNEL: usize = 7;

/// Most pixels of a map: far below what a 32-bit index can count.
const MAX_PIXELS: usize = 1 << 28;

/// A tensor in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TensorView {
    pub shape: Shape,
    /// Byte of the arena at which its first channel of its first pixel lies.
    pub base: usize,
    /// Values from pixel to pixel.
    pub pitch: usize,
    pub element: Element,
}

impl TensorView {
    /// Channels with the padding.
    pub fn padded(&self) -> usize {
        self.shape.channels.next_multiple_of(self.element.per_lane()).min(self.pitch)
    }

    /// Bytes from the first value to the last, the padding of the last pixel included.
    pub fn extent(&self) -> usize {
        self.element.bytes() * ((self.shape.pixels() - 1) * self.pitch + self.padded())
    }
}

/// A network's steps and tensors, before any address is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    pub plan: Plan,
    /// Indices of the plan's steps, in execution order.
    pub order: Vec<usize>,
    /// Of each step.
    pub levels: Vec<usize>,
    pub views: Vec<TensorView>,
    /// Of each tensor in bytes; `None` for those in half precision.
    pub scales: Vec<Option<TensorScale>>,
    /// Bytes. The last hold a count, of 32 bits, of the results that lay beyond the range of half precision and became
    /// its end.
    pub arena: usize,
}

/// Bytes of that count, with what aligns the next arena.
const COUNT: usize = ALIGNMENT;

impl Layout {
    /// For a network in half precision.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] names the layer that the kernels cannot take.
    pub fn new(graph: &Graph) -> Result<Self, EngineError> {
        check(graph)?;
        let plan = Plan::new(graph, BLOCK);
        let scales = vec![None; plan.tensors.len()];
        Ok(Self::of(plan, scales))
    }

    /// For one of which `quantization` says which layers are integer.
    ///
    /// # Errors
    /// As [`new`](Self::new), and where `quantization` does not fit.
    pub fn quantized(graph: &Graph, quantization: &Quantization) -> Result<Self, EngineError> {
        check(graph)?;
        quantization.check(graph)?;
        let (plan, scales) = precision::plan(graph, quantization)?;
        Ok(Self::of(plan, scales))
    }

    fn of(plan: Plan, scales: Vec<Option<TensorScale>>) -> Self {
        let levels = levels(&plan);
        let mut order: Vec<usize> = (0..plan.steps.len()).collect();
        order.sort_by_key(|&s| levels[s]);
        let mut layout = Self { views: views(&plan, &scales), plan, order, levels, scales, arena: 0 };
        layout.place();
        layout
    }

    /// Whether the input has four values a pixel, for the kernel of first layers; it has blocks of
    /// eight otherwise.
    pub fn narrow_input(&self) -> bool {
        self.views[0].pitch == 4
    }

    /// Byte of the arena at which results beyond the range of half precision are counted, from what was there on.
    pub fn saturated(&self) -> usize {
        self.arena - COUNT
    }

    fn place(&mut self) {
        let plan = &self.plan;
        // The input is filled at level 0; what a level reads was written by earlier ones.
        let mut lives = vec![Lifetime { size: 0, first: usize::MAX, last: 0 }; plan.tensors.len()];
        let mut touch = |tensor: TensorId, level: usize| {
            let life = &mut lives[plan.storage(tensor)];
            (life.first, life.last) = (life.first.min(level), life.last.max(level));
        };
        touch(0, 0);
        for (step, &level) in plan.steps.iter().zip(&self.levels) {
            step.inputs.iter().chain([&step.output]).for_each(|&t| touch(t, level));
        }
        let end = self.levels.iter().max().map_or(1, |l| l + 1);
        plan.outputs.iter().for_each(|&t| touch(t, end));

        let whole: Vec<TensorId> = (0..lives.len()).filter(|&t| lives[t].first != usize::MAX).collect();
        let size = |t: TensorId| {
            let view = &self.views[t];
            (view.element.bytes() * view.shape.pixels() * view.pitch).next_multiple_of(ALIGNMENT)
        };
        let buffers: Vec<_> = whole.iter().map(|&t| Lifetime { size: size(t), ..lives[t] }).collect();
        let (offsets, arena) = place(&buffers);
        self.arena = arena.next_multiple_of(ALIGNMENT) + COUNT;
        for (&tensor, offset) in whole.iter().zip(offsets) {
            self.views[tensor].base = offset;
        }
        for tensor in 0..self.views.len() {
            let (whole, channel) = self.plan.place(tensor);
            let bytes = self.views[tensor].element.bytes();
            self.views[tensor].base = self.views[whole].base + bytes * channel;
        }
    }
}

/// Whether the kernels can take the sizes of all layers.
fn check(graph: &Graph) -> Result<(), EngineError> {
    let fault = |why: String| Err(EngineError::Unsupported { device: "CUDA", why });
    if let Some((layer, conv, _)) = graph.convs().find(|(_, conv, _)| conv.kernel > MAX_KERNEL) {
        return fault(format!("{} has a kernel of {}, and the largest is {MAX_KERNEL}", layer.name, conv.kernel));
    }
    if let Some(layer) = graph.layers.iter().find(|l| l.shape.is_empty() || l.shape.pixels() > MAX_PIXELS) {
        let pixels = layer.shape.pixels();
        return fault(format!("{} has {pixels} pixels, and the most are {MAX_PIXELS}", layer.name));
    }
    Ok(())
}

/// The level of each step: 1 for those that read the input alone.
fn levels(plan: &Plan) -> Vec<usize> {
    // By storage: a concatenation made in place is there once all of its parts are.
    let mut made = vec![0; plan.tensors.len()];
    let mut levels = vec![];
    for step in &plan.steps {
        let level = 1 + step.inputs.iter().map(|&t| made[plan.storage(t)]).max().unwrap_or(0);
        let whole = &mut made[plan.storage(step.output)];
        *whole = level.max(*whole);
        levels.push(level);
    }
    levels
}

/// Views without bases.
fn views(plan: &Plan, scales: &[Option<TensorScale>]) -> Vec<TensorView> {
    let narrow = plan.tensors[0].shape.channels <= 4 && only_first_layers_read_the_input(plan);
    let view = |t: TensorId| {
        let element = if scales[t].is_some() { Element::I8 } else { Element::F16 };
        let pitch = match t {
            0 if narrow => 4,
            _ => plan.tensors[plan.storage(t)].shape.channels.next_multiple_of(element.per_lane()),
        };
        TensorView { shape: plan.tensors[t].shape, base: 0, pitch, element }
    };
    (0..plan.tensors.len()).map(view).collect()
}

fn only_first_layers_read_the_input(plan: &Plan) -> bool {
    let mut readers = plan.steps.iter().filter(|s| s.inputs.contains(&0));
    readers.all(|s| matches!(s.work, Work::Conv { conv, residual: None, .. } if !conv.depthwise))
        && !plan.outputs.contains(&0)
}
