//! A network in training on a CUDA device: its parameters, tensors and gradients stay there, and a
//! [step](super::step) is one graph.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::launch::{dependencies, span, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::cuda::{CudaError, Driver, Wait};
use peregrine_engine::{Graph, LayerId};
use peregrine_student::architecture::Input;

use super::arguments::{Outcome, Step};
use super::image_store::ImageBytes;
use super::layout::{Layout, Training};
use super::loss_scale::LossScale;
use super::nodes::{Bases, Plan};
use super::pictures::Pictures;
use super::room;
use super::step::{Graphs, Parts};
use super::teacher::Teacher;
use super::update::{Rule, UpdateMemory};
use crate::net::{Mode, NetParams};
use crate::picture::{Picture, Staying};
use crate::tensor::record::Operation;
use crate::tensor::Tensor;

/// See the module.
pub struct CudaNet {
    // Graphs are dropped before the memory that they work on.
    pub(super) graphs: Graphs,
    pub(super) teacher: Option<Teacher>,
    /// Made when they are first asked for.
    forward: BTreeMap<bool, Box<dyn Instance>>,
    clear: Box<dyn Instance>,
    update: Option<Update>,
    graph: Graph,
    pub(super) layout: Layout,
    arena: DeviceMemory,
    values: DeviceMemory,
    gradients: DeviceMemory,
    pub(super) step: DeviceMemory,
    /// Pinned.
    pub(super) step_host: DeviceMemory,
    pub(super) input: DeviceMemory,
    /// Where inputs are rendered, if that is here.
    pictures: Option<Pictures>,
    /// Pinned, for the forward pass alone.
    outputs: Vec<DeviceMemory>,
    loss_scale: LossScale,
    /// Whether the gradients of the parameters may not be zero.
    has_gradients: bool,
    pub(super) driver: Arc<dyn Driver>,
}

/// The optimizer's graph and memory.
struct Update {
    instance: Box<dyn Instance>,
    memory: UpdateMemory,
    /// Whether the next step is to end with it.
    is_announced: bool,
    /// Whether the last step did.
    is_done: bool,
    slots: Vec<DeviceMemory>,
    average: DeviceMemory,
    /// Pinned.
    outcome: DeviceMemory,
    _device: [DeviceMemory; 3],
}

impl CudaNet {
    /// Plans and allocates its memory, and makes its graphs.
    ///
    /// # Errors
    /// When the device fails, has too little memory (the error says how much is needed, and which
    /// batch fits), or a layer is too large for the kernels.
    pub fn new(driver: &Arc<dyn Driver>, training: &Training) -> anyhow::Result<Self> {
        let Training { graph, params, batch, .. } = *training;
        let multiprocessors = driver.device().multiprocessors;
        let layout = training.layout(batch, multiprocessors)?;
        if let Some((free, _)) = driver.memory() {
            room::check(training, &layout, free, multiprocessors)?;
        }
        for module in layout.precision.modules() {
            driver.load(&module)?;
        }
        let device = |bytes: usize| DeviceMemory::new(driver, MemoryKind::Device, bytes);
        let pinned =
            |kind, layer: LayerId| DeviceMemory::new(driver, kind, 4 * batch * graph.layers[layer].shape.len());
        let arena = device(layout.arena).map_err(|error| room::full(training, &layout, error))?;
        let parameters = &layout.parameters;
        let values = DeviceMemory::holding(driver, &bytes_of(&parameters.values(params)))?;
        let gradients = DeviceMemory::holding(driver, &vec![0; 4 * parameters.trainable])?;
        let loss_scale = LossScale::new(layout.precision);
        let at_rest = Step { loss_scale: loss_scale.get(), ..Step::default() };
        let step = DeviceMemory::holding(driver, &at_rest.bytes())?;
        let mut step_host = DeviceMemory::new(driver, MemoryKind::Upload, size_of::<Step>())?;
        at_rest.write(step_host.as_mut_slice());
        let input = pinned(MemoryKind::Upload, 0)?;
        let bases = Bases {
            arena: arena.device(),
            values: values.device(),
            gradients: gradients.device(),
            step: step.device(),
        };
        let plan = Plan { graph, layout: &layout, bases };
        let clear = instantiate(driver, &plan.clear())?;
        Ok(Self {
            graphs: Graphs::default(),
            teacher: None,
            forward: BTreeMap::new(),
            clear,
            update: None,
            graph: graph.clone(),
            layout,
            arena,
            values,
            gradients,
            step,
            step_host,
            input,
            pictures: None,
            outputs: Vec::new(),
            loss_scale,
            has_gradients: false,
            driver: Arc::clone(driver),
        })
    }

    /// Has the inputs of trainings, as `input` says, rendered here from now on: they are
    /// [shown](Self::show), and no longer given as pixels. `pixels`: of each image that there is; a batch
    /// shows up to `shown` of them. Returns the images that stay on the device.
    ///
    /// # Errors
    /// As [`Pictures::new`]; it then takes pixels as before.
    pub fn render(
        &mut self,
        input: &Input,
        pixels: impl IntoIterator<Item = usize>,
        shown: usize,
    ) -> anyhow::Result<Arc<Staying>> {
        let (need, room) = (ImageBytes::new(pixels, shown), room::for_images(self.driver.as_ref()));
        let pictures = Pictures::new(&self.driver, input, self.layout.batch, need, room)?;
        let staying = Arc::clone(pictures.staying());
        // Graphs so far take pixels.
        self.graphs = Graphs::default();
        self.forward.clear();
        self.pictures = Some(pictures);
        Ok(staying)
    }

    /// Makes `pictures` the input of the next step, or forward pass in training.
    ///
    /// # Errors
    /// As [`Pictures::show`].
    ///
    /// # Panics
    /// When inputs are not [rendered](Self::render) here.
    pub fn show(&mut self, pictures: &[Picture]) -> anyhow::Result<()> {
        self.pictures.as_mut().expect("inputs are rendered on the device").show(pictures)
    }

    /// Makes `pixels` the input of the next pass, unless that shows pictures.
    pub(super) fn take_pixels(&mut self, pixels: &[f32], mode: Mode) {
        if mode == Mode::Evaluate || self.pictures.is_none() {
            write_values(&mut self.input, pixels);
        }
    }

    /// What makes the planar input.
    pub(super) fn input_nodes(&self, mode: Mode) -> Vec<Node> {
        let plan = self.plan();
        match &self.pictures {
            Some(pictures) if mode == Mode::Train => {
                pictures.nodes(&plan.buffer(self.layout.planar_input), self.layout.precision).to_vec()
            }
            _ => vec![plan.upload_input(self.input.host())],
        }
    }

    /// The forward pass alone, over `input` (`[batch, channels, height, width]`), in training over the
    /// pictures instead if there are any. In training the running statistics follow the batch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&mut self, params: &NetParams, input: &[f32], mode: Mode) -> anyhow::Result<()> {
        self.take_pixels(input, mode);
        if self.outputs.is_empty() {
            let bytes = |layer: LayerId| 4 * self.layout.batch * self.graph.layers[layer].shape.len();
            let pinned =
                |&(layer, _): &(LayerId, _)| DeviceMemory::new(&self.driver, MemoryKind::Download, bytes(layer));
            self.outputs = self.layout.planar_outputs.iter().map(pinned).collect::<Result<_, _>>()?;
        }
        let in_training = mode == Mode::Train;
        if !self.forward.contains_key(&in_training) {
            let hosts: Vec<u64> = self.outputs.iter().map(DeviceMemory::host).collect();
            let mut nodes = self.input_nodes(mode);
            nodes.extend(self.plan().forward(params, mode));
            nodes.extend(self.plan().fetch(&hosts));
            self.forward.insert(in_training, instantiate(&self.driver, &nodes)?);
        }
        run(self.forward.get_mut(&in_training).expect("just made"))
    }

    /// The layer of the first of the tensors that losses may read.
    #[cfg(test)]
    pub fn first_output(&self) -> LayerId {
        self.layout.planar_outputs[0].0
    }

    /// The number of a layer's tensor among those that losses may read.
    pub fn output(&self, layer: LayerId) -> Option<usize> {
        self.layout.planar_outputs.iter().position(|&(of, _)| of == layer)
    }

    /// The tensor of such a layer: `[batch, channels, height, width]`, of the last forward pass
    /// [alone](Self::forward); `None` for others.
    pub fn value(&self, layer: LayerId) -> Option<Vec<f32>> {
        Some(values_of(self.outputs.get(self.output(layer)?)?.as_slice()))
    }

    /// The backward pass alone, after a forward pass alone, from gradients of layers' tensors (of
    /// those that are missing they are zero); adds to the parameters' gradients.
    ///
    /// # Errors
    /// When the device fails.
    pub fn backward<'a>(
        &mut self,
        params: &NetParams,
        seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>,
    ) -> anyhow::Result<()> {
        // That of Σ seed · value.
        let mut total = Tensor::scalar(0.0);
        for (layer, seed) in seeds {
            let Some(leaf) = self.output(layer) else { continue };
            let leaf = Tensor::from(Operation::Leaf(leaf).of(&[seed.len()]));
            total = (total + (leaf * Tensor::from_slice(seed, &[seed.len()])?)?.sum_all()?)?;
        }
        self.differentiate(params, &total, &[], Parts { forward: false, update: false })?;
        Ok(())
    }

    /// Sets the gradients of all parameters to zero.
    ///
    /// # Errors
    /// When the device fails.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.has_gradients) {
            run(&mut self.clear)?;
        }
        Ok(())
    }

    /// Copies parameters and running statistics to the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn put(&mut self, params: &NetParams) -> anyhow::Result<()> {
        Ok(self.driver.upload(self.values.device(), &bytes_of(&self.layout.parameters.values(params)))?)
    }

    /// Copies parameters and running statistics from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take(&self, params: &mut NetParams) -> anyhow::Result<()> {
        self.layout.parameters.take_values(&self.download(&self.values)?, params);
        Ok(())
    }

    /// Copies the gradients of the parameters from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take_gradients(&self, params: &mut NetParams) -> anyhow::Result<()> {
        let mut gradients = self.download(&self.gradients)?;
        gradients.iter_mut().for_each(|g| *g /= self.loss_scale.get());
        self.layout.parameters.take_gradients(&gradients, params);
        Ok(())
    }

    /// Copies the gradients of the parameters to the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn put_gradients(&mut self, params: &mut NetParams) -> anyhow::Result<()> {
        let tensors = params.trainable();
        let mut gradients = self.layout.parameters.gather(tensors.iter().map(|of| &of.param.gradient[..]));
        gradients.iter_mut().for_each(|g| *g *= self.loss_scale.get());
        Ok(self.driver.upload(self.gradients.device(), &bytes_of(&gradients))?)
    }

    /// Has [`update`](Self::update) follow `rule`, from the memory `slots` of each trainable tensor
    /// (none: zeros) and the `average`.
    ///
    /// # Errors
    /// When the device fails, or has too little memory.
    pub fn optimize(&mut self, rule: Rule, slots: &[Vec<&[f32]>], average: &NetParams) -> anyhow::Result<()> {
        let parameters = &self.layout.parameters;
        let slot = |i: usize| {
            let of = slots.get(i).map_or(&[][..], |slot| &slot[..]);
            DeviceMemory::holding(&self.driver, &bytes_of(&parameters.gather(of.iter().copied())))
        };
        let slots = (0..rule.slots()).map(slot).collect::<Result<Vec<_>, _>>()?;
        let average = DeviceMemory::holding(&self.driver, &bytes_of(&parameters.values(average)))?;
        let groups: Vec<u8> = parameters.groups.iter().flat_map(Plain::bytes).collect();
        let groups = DeviceMemory::holding(&self.driver, &groups)?;
        let bytes = UpdateMemory::partial_bytes(parameters.trainable);
        let partial = DeviceMemory::new(&self.driver, MemoryKind::Device, bytes)?;
        let on_device = DeviceMemory::new(&self.driver, MemoryKind::Device, size_of::<Outcome>())?;
        let outcome = DeviceMemory::new(&self.driver, MemoryKind::Download, size_of::<Outcome>())?;
        let memory = UpdateMemory {
            rule,
            slots: slots.iter().map(whole).collect(),
            average: whole(&average),
            groups: whole(&groups),
            partial: whole(&partial),
            outcome: whole(&on_device),
            loss: None,
        };
        let mut nodes = vec![upload_step(&self.step_host, &self.step)];
        nodes.extend(update_nodes(&self.plan(), &memory, &outcome));
        let instance = instantiate(&self.driver, &nodes)?;
        let device = [groups, partial, on_device];
        let (is_announced, is_done) = (false, false);
        let update = Update { instance, memory, is_announced, is_done, slots, average, outcome, _device: device };
        self.update = Some(update);
        Ok(())
    }

    /// Has the next [`step`](Self::step) end with the update that [`update`](Self::update) then tells of.
    pub fn announce(&mut self, step: Step) {
        if let Some(update) = &mut self.update {
            update.is_announced = true;
            Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        }
    }

    pub(super) fn is_announced(&self) -> bool {
        self.update.as_ref().is_some_and(|update| update.is_announced)
    }

    /// The launches of the update, and the copy of what came of it; none if the `loss` there is not
    /// finite.
    pub(super) fn update_nodes(&self, loss: Option<Span>) -> Vec<Node> {
        let update = self.update.as_ref().expect("it was announced");
        update_nodes(&self.plan(), &UpdateMemory { loss, ..update.memory.clone() }, &update.outcome)
    }

    /// Where the moving average is on the device.
    pub(super) fn average(&self) -> Option<u64> {
        self.update.as_ref().map(|update| update.average.device())
    }

    /// A graph of losses has run.
    pub(super) fn ran(&mut self, parts: Parts) {
        self.has_gradients = !parts.update;
        if let Some(update) = self.update.as_mut().filter(|_| parts.update) {
            (update.is_announced, update.is_done) = (false, true);
        }
    }

    /// Updates all parameters and the average by their gradients, which are zero then. Returns the
    /// norm of the gradient before clipping; where that is not finite, nothing is updated. In half
    /// precision `None` is for gradients that overflowed, so that the step was left out: the next has a
    /// smaller factor.
    ///
    /// # Errors
    /// When the device fails.
    ///
    /// # Panics
    /// When [`optimize`](Self::optimize) was not called before.
    pub fn update(&mut self, step: Step) -> anyhow::Result<Option<f32>> {
        Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        let update = self.update.as_mut().expect("an optimizer was set");
        if !std::mem::take(&mut update.is_done) {
            run(&mut update.instance)?;
        }
        self.has_gradients = false;
        let norm = Outcome::read(update.outcome.as_slice()).norm;
        let goes_on = self.loss_scale.follow(norm.is_finite());
        // The next backward pass begins with it.
        Step { loss_scale: self.loss_scale.get(), ..step }.write(self.step_host.as_mut_slice());
        Ok((norm.is_finite() || !goes_on).then_some(norm))
    }

    /// Updates that were left out, since gradients overflowed in half precision.
    pub fn overflows(&self) -> u64 {
        self.loss_scale.overflows()
    }

    /// Copies the moving average from the device.
    ///
    /// # Errors
    /// When the device fails.
    pub fn take_average(&self, average: &mut NetParams) -> anyhow::Result<()> {
        if let Some(update) = &self.update {
            self.layout.parameters.take_values(&self.download(&update.average)?, average);
        }
        Ok(())
    }

    /// The optimizer's memory: for each slot the values of each trainable tensor, in the order of
    /// [`NetParams::trainable`].
    ///
    /// # Errors
    /// When the device fails.
    pub fn slots(&self) -> anyhow::Result<Vec<Vec<Vec<f32>>>> {
        let slots = self.update.iter().flat_map(|update| &update.slots);
        slots.map(|slot| Ok(self.layout.parameters.scatter(&self.download(slot)?))).collect()
    }

    pub(super) fn plan(&self) -> Plan<'_> {
        let bases = Bases {
            arena: self.arena.device(),
            values: self.values.device(),
            gradients: self.gradients.device(),
            step: self.step.device(),
        };
        Plan { graph: &self.graph, layout: &self.layout, bases }
    }

    fn download(&self, from: &DeviceMemory) -> anyhow::Result<Vec<f32>> {
        let mut bytes = vec![0; from.len()];
        self.driver.download(from.device(), &mut bytes)?;
        Ok(values_of(&bytes))
    }
}

pub(super) fn instantiate(driver: &Arc<dyn Driver>, nodes: &[Node]) -> Result<Box<dyn Instance>, CudaError> {
    driver.prepare(nodes)?;
    driver.instantiate(nodes, &dependencies(nodes), Wait::Block, 0)
}

pub(super) fn run(instance: &mut Box<dyn Instance>) -> anyhow::Result<()> {
    instance.launch()?;
    Ok(instance.wait(Duration::MAX)?)
}

pub(super) fn whole(memory: &DeviceMemory) -> Span {
    span(memory.device(), memory.len())
}

fn update_nodes(plan: &Plan, memory: &UpdateMemory, outcome: &DeviceMemory) -> Vec<Node> {
    let mut nodes = plan.update(memory);
    nodes.push(Node {
        name: "outcome download".into(),
        work: NodeWork::Download { device: memory.outcome.start, host: outcome.host(), bytes: size_of::<Outcome>() },
        reads: vec![memory.outcome.clone()],
        writes: vec![],
    });
    nodes
}

pub(super) fn upload_step(host: &DeviceMemory, device: &DeviceMemory) -> Node {
    let work = NodeWork::Upload { host: host.host(), device: device.device(), bytes: size_of::<Step>() };
    Node { name: "step upload".into(), work, reads: vec![], writes: vec![whole(device)] }
}

pub(super) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

pub(super) fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// # Panics
/// When there are more or fewer values than the memory holds.
pub(super) fn write_values(memory: &mut DeviceMemory, values: &[f32]) {
    let bytes = memory.as_mut_slice();
    assert_eq!(bytes.len(), 4 * values.len());
    bytes.chunks_exact_mut(4).zip(values).for_each(|(to, v)| to.copy_from_slice(&v.to_ne_bytes()));
}
