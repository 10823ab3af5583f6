//! A network in training on a CUDA device: its parameters, tensors and gradients stay there, and a
//! [step](super::step) is one graph.

use std::collections::BTreeMap;
use std::sync::Arc;

use peregrine_engine::cuda::driver::{DeviceMemory, Instance, MemoryKind};
use peregrine_engine::cuda::launch::Node;
use peregrine_engine::cuda::plain::Plain;
use peregrine_engine::cuda::Driver;
use peregrine_engine::{Graph, LayerId};
use peregrine_student::architecture::Input;

use super::arguments::Step;
use super::graphs::{Graphs, Parts};
use super::image_store::ImageBytes;
use super::layout::{Layout, Training};
use super::loss_scale::LossScale;
use super::memory::{bytes_of, instantiate, run, values_of, write_values};
use super::nodes::{Bases, Plan};
use super::pictures::Pictures;
use super::room;
use super::teacher::Teacher;
use super::update::Update;
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
    pub(super) update: Option<Update>,
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
    pub(super) loss_scale: LossScale,
    /// Whether the gradients of the parameters may not be zero.
    pub(super) has_gradients: bool,
    pub(super) driver: Arc<dyn Driver>,
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

    pub(super) fn plan(&self) -> Plan<'_> {
        let bases = Bases {
            arena: self.arena.device(),
            values: self.values.device(),
            gradients: self.gradients.device(),
            step: self.step.device(),
        };
        Plan { graph: &self.graph, layout: &self.layout, bases }
    }

    pub(super) fn download(&self, from: &DeviceMemory) -> anyhow::Result<Vec<f32>> {
        let mut bytes = vec![0; from.len()];
        self.driver.download(from.device(), &mut bytes)?;
        Ok(values_of(&bytes))
    }
}
