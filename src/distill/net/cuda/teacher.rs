//! A teacher on the device: its forward pass over the student's input is a part of each step.

use std::sync::Arc;

use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{Node, Span};
use peregrine_engine::cuda::Driver;
use peregrine_engine::{Graph, LayerId};

use super::kernels::Precision;
use super::layout::{Layout, Training};
use super::losses::channelwise_affine;
use super::memory::{bytes_of, whole};
use super::nodes::{Bases, Plan};
use crate::net::{Mode, NetParams};

/// What a teacher computes.
pub struct Teaching<'a> {
    pub graph: &'a Graph,
    pub params: &'a NetParams,
    /// The layers whose tensors the losses read, in their order.
    pub given: &'a [LayerId],
    /// For each colour channel factor and offset from the student's input to the teacher's.
    pub renormalise: [(f32, f32); 3],
    /// Whether its parameters are the moving average of the student's, whose layers it has.
    pub is_average: bool,
}

/// A teacher, ready for steps.
pub struct Teacher {
    graph: Graph,
    params: NetParams,
    given: Vec<LayerId>,
    layout: Layout,
    arena: DeviceMemory,
    /// Its parameters; `None` for the average's.
    values: Option<DeviceMemory>,
    /// Factor and offset of each channel.
    numbers: DeviceMemory,
    is_renormalised: bool,
}

impl Teacher {
    /// For batches of so many images.
    ///
    /// # Errors
    /// When the device has too little memory, or a layer is too large for the kernels.
    pub fn new(
        driver: &Arc<dyn Driver>,
        teaching: &Teaching,
        batch: usize,
        precision: Precision,
    ) -> anyhow::Result<Self> {
        let &Teaching { graph, params, given, renormalise, is_average } = teaching;
        // No gradient reaches any of its layers.
        let needed = vec![false; graph.layers.len()];
        let training = Training { graph, params, needed: &needed, batch, fetched: given, precision };
        let layout = training.layout(batch, driver.device().multiprocessors)?;
        let arena = DeviceMemory::new(driver, MemoryKind::Device, layout.arena)?;
        let own = || DeviceMemory::holding(driver, &bytes_of(&layout.parameters.values(params)));
        let values = (!is_average).then(own).transpose()?;
        let numbers: Vec<f32> = renormalise.iter().flat_map(|&(factor, offset)| [factor, offset]).collect();
        let numbers = DeviceMemory::holding(driver, &bytes_of(&numbers))?;
        Ok(Self {
            graph: graph.clone(),
            params: params.clone(),
            given: given.to_vec(),
            is_renormalised: renormalise != [(1.0, 0.0); 3],
            layout,
            arena,
            values,
            numbers,
        })
    }

    /// The shape of its tensor of this number, `[batch, channels, height, width]`.
    pub fn shape(&self, number: usize) -> Option<[usize; 4]> {
        let shape = self.graph.layers[*self.given.get(number)?].shape;
        Some([self.layout.batch, shape.channels, shape.height, shape.width])
    }

    /// Its forward pass over the planar input that is at `input`; `average`: where the moving average is.
    pub fn nodes(&self, input: &Span, average: Option<u64>) -> Vec<Node> {
        let plan = self.plan(average);
        let own = plan.buffer(self.layout.planar_input);
        let shape = self.graph.input_shape();
        let sizes = [self.layout.batch, shape.channels, shape.pixels()];
        let numbers = self.is_renormalised.then(|| whole(&self.numbers));
        let mut nodes = channelwise_affine(self.layout.precision, input, &own, sizes, numbers.as_ref());
        nodes.extend(plan.forward(&self.params, Mode::Evaluate));
        nodes.iter_mut().for_each(|node| node.name.insert_str(0, "teacher "));
        nodes
    }

    /// Where each of its tensors is.
    pub fn tensors(&self, average: Option<u64>) -> Vec<Span> {
        let plan = self.plan(average);
        let of = |layer: &LayerId| {
            let buffer = self.layout.planar_outputs.iter().find(|(of, _)| of == layer);
            plan.buffer(buffer.expect("it is fetched").1)
        };
        self.given.iter().map(of).collect()
    }

    fn plan(&self, average: Option<u64>) -> Plan<'_> {
        let own = self.values.as_ref().map(DeviceMemory::device);
        let values = own.or(average).expect("an optimizer was set for the average");
        // Nothing is trained.
        let bases = Bases { arena: self.arena.device(), values, gradients: 0, step: 0 };
        Plan { graph: &self.graph, layout: &self.layout, bases }
    }
}
