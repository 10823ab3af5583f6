//! A teacher on the device: its forward pass over the student's input is a part of each step.

use peregrine_engine::cuda::driver::{DeviceMemory, MemoryKind};
use peregrine_engine::cuda::launch::{Node, Span};
use peregrine_engine::{Graph, LayerId};

use super::layout::{Layout, Training};
use super::losses::channelwise_affine;
use super::nodes::{Bases, Plan};
use super::passes::{bytes_of, whole, CudaNet};
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

impl CudaNet {
    /// Adds a teacher, whose tensors the losses may read from then on. For the average an optimizer must
    /// have been [set](Self::optimize).
    ///
    /// # Errors
    /// When the device has too little memory, or a layer is too large for the kernels.
    pub fn teach(&mut self, teaching: &Teaching) -> anyhow::Result<()> {
        let &Teaching { graph, params, given, renormalise, is_average } = teaching;
        // No gradient reaches any of its layers.
        let needed = vec![false; graph.layers.len()];
        let (batch, precision) = (self.layout.batch, self.layout.precision);
        let training = Training { graph, params, needed: &needed, batch, fetched: given, precision };
        let layout = training.layout(batch, self.driver.device().multiprocessors)?;
        let driver = &self.driver;
        let arena = DeviceMemory::new(driver, MemoryKind::Device, layout.arena)?;
        let own = || DeviceMemory::holding(driver, &bytes_of(&layout.parameters.values(params)));
        let values = (!is_average).then(own).transpose()?;
        let numbers: Vec<f32> = renormalise.iter().flat_map(|&(factor, offset)| [factor, offset]).collect();
        let numbers = DeviceMemory::holding(driver, &bytes_of(&numbers))?;
        self.teacher = Some(Teacher {
            graph: graph.clone(),
            params: params.clone(),
            given: given.to_vec(),
            is_renormalised: renormalise != [(1.0, 0.0); 3],
            layout,
            arena,
            values,
            numbers,
        });
        Ok(())
    }

    /// The shape of the teacher's tensor of this number, `[batch, channels, height, width]`; `None` without
    /// one.
    pub fn teacher_shape(&self, number: usize) -> Option<[usize; 4]> {
        let teacher = self.teacher.as_ref()?;
        let shape = teacher.graph.layers[*teacher.given.get(number)?].shape;
        Some([self.layout.batch, shape.channels, shape.height, shape.width])
    }

    /// The teacher's forward pass over the planar input that is at `input`.
    pub(super) fn teacher_nodes(&self, input: &Span) -> Vec<Node> {
        let Some(teacher) = &self.teacher else { return Vec::new() };
        let plan = self.teacher_plan(teacher);
        let own = plan.buffer(teacher.layout.planar_input);
        let shape = teacher.graph.input_shape();
        let sizes = [self.layout.batch, shape.channels, shape.pixels()];
        let numbers = teacher.is_renormalised.then(|| whole(&teacher.numbers));
        let mut nodes = channelwise_affine(self.layout.precision, input, &own, sizes, numbers.as_ref());
        nodes.extend(plan.forward(&teacher.params, Mode::Evaluate));
        nodes.iter_mut().for_each(|node| node.name.insert_str(0, "teacher "));
        nodes
    }

    /// Where each of its tensors is.
    pub(super) fn teacher_tensors(&self) -> Vec<Span> {
        let Some(teacher) = &self.teacher else { return Vec::new() };
        let plan = self.teacher_plan(teacher);
        let of = |layer: &LayerId| {
            let buffer = teacher.layout.planar_outputs.iter().find(|(of, _)| of == layer);
            plan.buffer(buffer.expect("it is fetched").1)
        };
        teacher.given.iter().map(of).collect()
    }

    fn teacher_plan<'a>(&'a self, teacher: &'a Teacher) -> Plan<'a> {
        let values = match &teacher.values {
            Some(own) => own.device(),
            None => self.average().expect("an optimizer was set"),
        };
        // Nothing is trained.
        let bases = Bases { arena: teacher.arena.device(), values, gradients: 0, step: 0 };
        Plan { graph: &teacher.graph, layout: &teacher.layout, bases }
    }
}
