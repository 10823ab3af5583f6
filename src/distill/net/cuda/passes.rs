//! A network in training on a CUDA device: its parameters, tensors and gradients stay there, and each
//! pass is one graph.

use std::sync::Arc;
use std::time::Duration;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::launch::{dependencies, span, Node, NodeWork, Span};
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::cuda::{CudaError, Driver, Wait};
use peregrine_engine::{Graph, LayerId};

use super::arguments::{Outcome, Step};
use super::layout::{Layout, Training};
use super::loss_scale::LossScale;
use super::nodes::{Bases, Plan};
use super::room;
use super::update::{Rule, UpdateMemory};
use crate::net::{Mode, NetParams};

/// See the module.
pub struct CudaNet {
    // Graphs are dropped before the memory that they work on.
    train: Box<dyn Instance>,
    /// Made when it is first asked for.
    evaluate: Option<Box<dyn Instance>>,
    backward: Box<dyn Instance>,
    clear: Box<dyn Instance>,
    update: Option<Update>,
    graph: Graph,
    layout: Layout,
    arena: DeviceMemory,
    values: DeviceMemory,
    gradients: DeviceMemory,
    step: DeviceMemory,
    /// Pinned.
    step_host: DeviceMemory,
    input: DeviceMemory,
    outputs: Vec<DeviceMemory>,
    seeds: Vec<DeviceMemory>,
    loss_scale: LossScale,
    /// Whether the gradients of the parameters may not be zero.
    has_gradients: bool,
    driver: Arc<dyn Driver>,
}

/// The optimizer's graph and memory.
struct Update {
    instance: Box<dyn Instance>,
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
        let of_outputs = layout.planar_outputs.iter().map(|&(layer, _)| pinned(MemoryKind::Download, layer));
        let outputs = of_outputs.collect::<Result<Vec<_>, _>>()?;
        let of_seeds = layout.planar_seeds.iter().map(|&(layer, _)| pinned(MemoryKind::Upload, layer));
        let seeds = of_seeds.collect::<Result<Vec<_>, _>>()?;

        let bases = Bases {
            arena: arena.device(),
            values: values.device(),
            gradients: gradients.device(),
            step: step.device(),
        };
        let plan = Plan { graph, layout: &layout, bases };
        let to_host: Vec<u64> = outputs.iter().map(DeviceMemory::host).collect();
        let from_host: Vec<u64> = seeds.iter().map(DeviceMemory::host).collect();
        let train = instantiate(driver, &plan.forward(params, Mode::Train, input.host(), &to_host))?;
        let mut nodes = vec![upload_step(&step_host, &step)];
        nodes.extend(plan.backward(params, &from_host));
        let backward = instantiate(driver, &nodes)?;
        let clear = instantiate(driver, &plan.clear())?;
        Ok(Self {
            train,
            evaluate: None,
            backward,
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
            outputs,
            seeds,
            loss_scale,
            has_gradients: false,
            driver: Arc::clone(driver),
        })
    }

    /// Runs the network over `input` (`[batch, channels, height, width]`). In training the running
    /// statistics follow the batch.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&mut self, params: &NetParams, input: &[f32], mode: Mode) -> anyhow::Result<()> {
        write_values(&mut self.input, input);
        if mode == Mode::Evaluate && self.evaluate.is_none() {
            let to_host: Vec<u64> = self.outputs.iter().map(DeviceMemory::host).collect();
            let nodes = self.plan().forward(params, mode, self.input.host(), &to_host);
            self.evaluate = Some(instantiate(&self.driver, &nodes)?);
        }
        run(self.evaluate.as_mut().filter(|_| mode == Mode::Evaluate).unwrap_or(&mut self.train))
    }

    /// The tensor of a layer that is fetched: `[batch, channels, height, width]`, of the last forward
    /// pass; `None` for others.
    pub fn value(&self, layer: LayerId) -> Option<Vec<f32>> {
        let at = self.layout.planar_outputs.iter().position(|&(of, _)| of == layer)?;
        Some(values_of(self.outputs[at].as_slice()))
    }

    /// Runs the network backwards from the gradients of fetched layers' tensors (of others and of
    /// those that are missing they are zero), and adds to the parameters' gradients.
    ///
    /// # Errors
    /// When the device fails.
    pub fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) -> anyhow::Result<()> {
        let mut given = vec![false; self.seeds.len()];
        for (layer, seed) in seeds {
            let Some(at) = self.layout.planar_seeds.iter().position(|&(of, _)| of == layer) else { continue };
            if std::mem::replace(&mut given[at], true) {
                // Several losses may look at one layer. Pinned memory for uploads is slow to read, but
                // this is rare.
                let sum: Vec<f32> = values_of(self.seeds[at].as_slice()).iter().zip(seed).map(|(a, b)| a + b).collect();
                write_values(&mut self.seeds[at], &sum);
            } else {
                write_values(&mut self.seeds[at], seed);
            }
        }
        for (seed, _) in self.seeds.iter_mut().zip(given).filter(|(_, given)| !given) {
            seed.as_mut_slice().fill(0);
        }
        self.has_gradients = true;
        run(&mut self.backward)
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
        };
        let mut nodes = vec![upload_step(&self.step_host, &self.step)];
        nodes.extend(self.plan().update(&memory));
        nodes.push(Node {
            name: "outcome download".into(),
            work: NodeWork::Download { device: on_device.device(), host: outcome.host(), bytes: size_of::<Outcome>() },
            reads: vec![whole(&on_device)],
            writes: vec![],
        });
        let instance = instantiate(&self.driver, &nodes)?;
        self.update = Some(Update { instance, slots, average, outcome, _device: [groups, partial, on_device] });
        Ok(())
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
        run(&mut update.instance)?;
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

    fn plan(&self) -> Plan<'_> {
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

fn instantiate(driver: &Arc<dyn Driver>, nodes: &[Node]) -> Result<Box<dyn Instance>, CudaError> {
    driver.prepare(nodes)?;
    driver.instantiate(nodes, &dependencies(nodes), Wait::Block, 0)
}

fn run(instance: &mut Box<dyn Instance>) -> anyhow::Result<()> {
    instance.launch()?;
    Ok(instance.wait(Duration::MAX)?)
}

fn whole(memory: &DeviceMemory) -> Span {
    span(memory.device(), memory.len())
}

fn upload_step(host: &DeviceMemory, device: &DeviceMemory) -> Node {
    let work = NodeWork::Upload { host: host.host(), device: device.device(), bytes: size_of::<Step>() };
    Node { name: "step upload".into(), work, reads: vec![], writes: vec![whole(device)] }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_ne_bytes()).collect()
}

fn values_of(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// # Panics
/// When there are more or fewer values than the memory holds.
fn write_values(memory: &mut DeviceMemory, values: &[f32]) {
    let bytes = memory.as_mut_slice();
    assert_eq!(bytes.len(), 4 * values.len());
    bytes.chunks_exact_mut(4).zip(values).for_each(|(to, v)| to.copy_from_slice(&v.to_ne_bytes()));
}
