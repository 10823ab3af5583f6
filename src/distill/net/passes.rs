//! Forward and backward over the graph, for a whole batch.

use std::mem::take;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
#[cfg(feature = "cuda")]
use peregrine_engine::cuda::Driver;
use peregrine_engine::{Graph, LayerId, Op};
use peregrine_student::architecture::Input;

use super::conv_block::ConvBlock;
#[cfg(feature = "cuda")]
use super::cuda::{kernels::Precision, CudaNet, Training};
use super::fake::{FakePass, FakeQuantization};
use super::gradients::{add_or_copy, Gradients};
use super::norm::Mode;
use super::operation::Operation;
use super::NetParams;
use crate::picture::{Picture, Staying};
use crate::ranks::Ranks;
#[cfg(feature = "cuda")]
use crate::tensor::record;
use crate::tensor::Tensor;

/// A network in training: its parameters and a buffer for each tensor of a batch.
pub struct TrainNet {
    pub graph: Graph,
    pub params: NetParams,
    /// What each layer has taken on the CPU so far.
    pub times: Vec<LayerTimes>,
    batch: usize,
    /// How each layer is computed, in the graph's order.
    layers: Vec<LayerPass>,
    /// `[batch, channels, height, width]` for each layer.
    pub(super) values: Vec<Vec<f32>>,
    pub(super) gradients: Gradients,
    /// In quantization-aware training, the grids to round to.
    fake: Option<FakePass>,
    /// The passes on CUDA; `None` on the CPU.
    #[cfg(feature = "cuda")]
    cuda: Option<OnCuda>,
}

/// The time of a layer's passes, all of them together.
#[derive(Debug, Clone, Copy, Default)]
pub struct LayerTimes {
    pub forward: Duration,
    pub backward: Duration,
}

/// The computation of one layer.
enum LayerPass {
    Input,
    Conv(Box<ConvBlock>),
    Plain(Operation),
}

/// Passes on CUDA. The parameters are on the device, and those here as old as they were last fetched.
#[cfg(feature = "cuda")]
struct OnCuda {
    passes: Box<CudaNet>,
    /// Layers whose tensors are fetched after each forward pass.
    fetched: Vec<LayerId>,
}

impl TrainNet {
    /// A network for batches of `batch` images of the graph's input size.
    pub fn new(graph: Graph, params: NetParams, batch: usize) -> Self {
        let computation = |id: LayerId| {
            let index = params.convs.iter().position(|conv| conv.layer == id);
            match (graph.layers[id].op, index) {
                (Op::Input, _) => LayerPass::Input,
                (_, Some(i)) => LayerPass::Conv(Box::new(ConvBlock::new(&graph, id, i, &params.convs[i], batch))),
                (_, None) => LayerPass::Plain(Operation::of(&graph, id)),
            }
        };
        let layers: Vec<LayerPass> = (0..graph.layers.len()).map(computation).collect();
        let mut needed: Vec<bool> = Vec::with_capacity(layers.len());
        for (layer, of) in graph.layers.iter().zip(&layers) {
            let trained = matches!(of, LayerPass::Conv(block) if !params.convs[block.index].frozen);
            needed.push(trained || layer.inputs.iter().any(|&i| needed[i]));
        }
        let lengths = || graph.layers.iter().map(|layer| batch * layer.shape.len());
        let values = lengths().map(|len| vec![0.0; len]).collect();
        let gradients = Gradients::new(needed, lengths());
        let times = vec![LayerTimes::default(); layers.len()];
        Self {
            batch,
            layers,
            values,
            gradients,
            graph,
            params,
            times,
            fake: None,
            #[cfg(feature = "cuda")]
            cuda: None,
        }
    }

    /// The same on a CUDA device, with parameters and gradients. Only the graph's outputs and the layers
    /// `fetched` then have a [`value`](Self::value) and may be given a gradient.
    ///
    /// # Errors
    /// As [`CudaNet::new`].
    ///
    /// # Panics
    /// When it is to compute as an integer engine.
    #[cfg(feature = "cuda")]
    pub fn on_cuda(mut self, driver: &Arc<dyn Driver>, fetched: &[LayerId], precision: Precision) -> Result<Self> {
        let fetched = self.leave(fetched);
        let training = Training {
            graph: &self.graph,
            params: &self.params,
            needed: &self.gradients.needed,
            batch: self.batch,
            fetched: &fetched,
            precision,
        };
        let passes = Box::new(CudaNet::new(driver, &training)?);
        self.cuda = Some(OnCuda { passes, fetched });
        Ok(self)
    }

    /// The passes on CUDA, if that is where they run, and the parameters on the host.
    #[cfg(feature = "cuda")]
    pub fn cuda(&mut self) -> Option<(&mut CudaNet, &mut NetParams)> {
        self.cuda.as_mut().map(|cuda| (&mut *cuda.passes, &mut self.params))
    }

    /// Frees what only the passes on the CPU need, and returns the layers that are fetched.
    #[cfg(feature = "cuda")]
    fn leave(&mut self, fetched: &[LayerId]) -> Vec<LayerId> {
        assert!(self.fake.is_none(), "fake quantization runs on the CPU only");
        let fetched: Vec<LayerId> = self.graph.outputs.iter().chain(fetched).copied().collect();
        let kept = |id: &usize| *id == 0 || fetched.contains(id);
        (0..self.values.len()).filter(|id| !kept(id)).for_each(|id| self.values[id] = Vec::new());
        self.gradients.buffers.iter_mut().for_each(|buffer| *buffer = Vec::new());
        for layer in &mut self.layers {
            if let LayerPass::Conv(block) = layer {
                block.free();
            }
        }
        fetched
    }

    /// The same, computing as an integer engine would.
    ///
    /// # Panics
    /// When a layer has a batch-norm: it has to be folded in first.
    pub fn with_fake(mut self, quantization: FakeQuantization) -> Self {
        assert!(self.params.convs.iter().all(|c| c.norm.is_none()), "batch-norm must be folded before quantization");
        self.fake = Some(FakePass::new(quantization, &self.values));
        self
    }

    /// The same, whose batch is one of several parts of a batch: batch-norm is over all of them.
    pub fn normalising_with(mut self, ranks: &Ranks) -> Self {
        for layer in &mut self.layers {
            if let LayerPass::Conv(block) = layer {
                block.normalise_with(ranks);
            }
        }
        self
    }

    /// Whether a step is only recorded, and computed as one graph on a device at its end.
    pub(super) fn records(&self) -> bool {
        #[cfg(feature = "cuda")]
        return self.cuda.is_some();
        #[cfg(not(feature = "cuda"))]
        false
    }

    /// A layer's tensor of such a step, of the shape `dims`; `None` where it has a
    /// [`value`](Self::value).
    pub(super) fn recorded(&self, layer: LayerId, dims: &[usize]) -> Option<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, .. }) = &self.cuda {
            let leaf = record::Operation::Leaf(passes.output(layer).expect("the layer is fetched"));
            return Some(leaf.of(dims).into());
        }
        let _ = (layer, dims);
        None
    }

    /// The tensor of this number of a teacher on the device, in such a step.
    pub(super) fn recorded_teacher(&self, number: usize) -> Option<Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(shape) = self.cuda.as_ref().and_then(|cuda| cuda.passes.teacher_shape(number)) {
            return Some(record::Operation::Given(number).of(&shape).into());
        }
        let _ = number;
        None
    }

    /// Runs such a step: both passes, with the loss `total` and the values of the scalars `terms`
    /// between them.
    pub(super) fn differentiate_on_device(&mut self, total: &Tensor, terms: &[Tensor]) -> Result<Vec<f32>> {
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, .. }) = &mut self.cuda {
            return passes.step(&self.params, &self.values[0], total, terms);
        }
        let _ = (total, terms);
        unreachable!("only a step that is recorded")
    }

    /// Images in a batch.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The input to fill: `[batch, 3, height, width]`.
    pub fn input(&mut self) -> &mut [f32] {
        &mut self.values[0]
    }

    /// Makes a batch the input: its `pixels`, `[batch, 3, height, width]`, or in training where they are
    /// [rendered on the device](Self::render_on_device) its `pictures` (none: it has pixels).
    ///
    /// # Errors
    /// When the device fails, or has no room for the images of the batch.
    ///
    /// # Panics
    /// When there are pictures, and they are not rendered on the device.
    pub fn show(&mut self, pixels: &[f32], pictures: &[Picture]) -> Result<()> {
        if pictures.is_empty() {
            self.values[0].copy_from_slice(pixels);
            return Ok(());
        }
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, .. }) = &mut self.cuda {
            return passes.show(pictures);
        }
        panic!("pictures are rendered where the network is computed by CUDA");
    }

    /// Has the inputs of trainings, as `input` says, rendered by the device from now on, if it does that
    /// and has room for the images; the images that stay there then, and `None` if it does not. `pixels`:
    /// of each image that there is; a batch shows up to `shown` of them.
    pub fn render_on_device(
        &mut self,
        input: &Input,
        pixels: impl IntoIterator<Item = usize>,
        shown: usize,
    ) -> Option<Arc<Staying>> {
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, .. }) = &mut self.cuda {
            let rendered = passes.render(input, pixels, shown);
            return rendered.inspect_err(|e| tracing::warn!("images are augmented on the CPU: {e:#}")).ok();
        }
        let _ = (input, pixels.into_iter(), shown);
        None
    }

    /// The tensor that a layer made in the last forward pass: `[batch, channels, height, width]`.
    pub fn value(&self, layer: LayerId) -> &[f32] {
        &self.values[layer]
    }

    /// Runs the network over the input.
    ///
    /// # Errors
    /// When a device other than the CPU fails, for want of memory for instance.
    pub fn forward(&mut self, mode: Mode) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, fetched }) = &mut self.cuda {
            passes.forward(&self.params, &self.values[0], mode)?;
            for &layer in &*fetched {
                self.values[layer] = passes.value(layer).expect("it is fetched");
            }
            return Ok(());
        }
        if let Some(fake) = &mut self.fake {
            fake.round_weights(&self.params);
        }
        for (id, layer) in self.layers.iter_mut().enumerate() {
            let since = Instant::now();
            let mut output = take(&mut self.values[id]);
            let inputs = &self.graph.layers[id].inputs;
            match layer {
                LayerPass::Input => {}
                LayerPass::Conv(block) => {
                    let conv = &mut self.params.convs[block.index];
                    let rounded = self.fake.as_ref().map(|fake| fake.weight(block.index));
                    block.forward(conv, rounded, &self.values[inputs[0]], &mut output, mode);
                }
                LayerPass::Plain(operation) => {
                    let inputs: Vec<&[f32]> = inputs.iter().map(|&i| &self.values[i][..]).collect();
                    operation.forward(&inputs, &mut output);
                }
            }
            if let Some(fake) = &mut self.fake {
                fake.round(id, &mut output);
            }
            self.values[id] = output;
            self.times[id].forward += since.elapsed();
        }
        Ok(())
    }

    /// Runs the network backwards from the gradients of some layers' tensors (the graph's outputs,
    /// or inner ones for hints), and adds to the parameters' gradients.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn backward<'a>(&mut self, seeds: impl IntoIterator<Item = (LayerId, &'a [f32])>) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(cuda) = &mut self.cuda {
            return cuda.passes.backward(&self.params, seeds);
        }
        self.gradients.start();
        for (layer, seed) in seeds {
            self.gradients.accumulate(layer, |into, keep| add_or_copy(into, seed, keep));
        }
        for (id, layer) in self.layers.iter().enumerate().rev() {
            let Some(mut gradient) = self.gradients.take(id) else { continue };
            let since = Instant::now();
            let inputs = &self.graph.layers[id].inputs;
            if let Some(fake) = &self.fake {
                fake.clip_gradient(id, &mut gradient);
            }
            match layer {
                LayerPass::Input => {}
                LayerPass::Conv(block) => {
                    let conv = &mut self.params.convs[block.index];
                    let output = self.fake.as_ref().and_then(|fake| fake.unrounded(id)).unwrap_or(&self.values[id][..]);
                    block.backward(conv, &self.values[inputs[0]], output, &mut gradient);
                    let weight = self.fake.as_ref().map_or(&conv.weight.value[..], |fake| fake.weight(block.index));
                    let from_output = |into: &mut [f32], keep| block.backward_input(weight, &gradient, into, keep);
                    self.gradients.accumulate(inputs[0], from_output);
                }
                LayerPass::Plain(operation) => {
                    let values: Vec<&[f32]> = inputs.iter().map(|&i| &self.values[i][..]).collect();
                    for (which, &input) in inputs.iter().enumerate() {
                        let of_input =
                            |into: &mut [f32], keep| operation.backward(which, &values, &gradient, into, keep);
                        self.gradients.accumulate(input, of_input);
                    }
                }
            }
            self.gradients.put_back(id, gradient);
            self.times[id].backward += since.elapsed();
        }
        Ok(())
    }

    /// Adds up the gradients of all `ranks`, and gives the running statistics that their means have.
    ///
    /// # Errors
    /// When a device other than the CPU fails.
    pub fn unite(&mut self, ranks: &Ranks) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(OnCuda { passes, .. }) = self.cuda.as_mut().filter(|_| !ranks.is_alone()) {
            passes.take(&mut self.params)?;
            passes.take_gradients(&mut self.params)?;
            self.params.unite(ranks);
            passes.put(&self.params)?;
            return passes.put_gradients(&mut self.params);
        }
        self.params.unite(ranks);
        Ok(())
    }

    /// Sets the gradients of the parameters to zero.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn zero_gradients(&mut self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some(cuda) = &mut self.cuda {
            return cuda.passes.clear();
        }
        self.params.zero_gradients();
        Ok(())
    }
}
