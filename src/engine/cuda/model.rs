//! A network on a device: its plan, the variants of its kernels and its weights, shared by all
//! engines that run it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use super::driver::{DeviceMemory, Driver};
use super::launch::Node;
use super::network::{Bases, Network, PackedWeights, Variant};
use super::{autotune, cache, CudaError};
use crate::{EngineError, Graph, Quantization, Weights};

/// A network on a device: planned, with its weights loaded; shared by all engines that run it.
pub struct Model {
    driver: Arc<dyn Driver>,
    network: Network,
    variants: Vec<Variant>,
    /// Where each step's weights begin; the bytes themselves are on the device.
    packed: PackedWeights,
    weights: DeviceMemory,
}

impl Model {
    /// Plans `graph`, chooses variants ([`autotune::choose`]) and loads `weights`; layers that
    /// `quantization` names are computed in integers.
    ///
    /// # Errors
    /// When `weights` or `quantization` do not fit, a layer is more than the kernels can take, or
    /// the device fails.
    pub fn new(
        driver: &Arc<dyn Driver>,
        graph: &Graph,
        weights: &Weights,
        quantization: Option<&Quantization>,
    ) -> Result<Self, EngineError> {
        weights.check(graph)?;
        let network = match quantization {
            Some(quantization) => Network::quantized(graph, quantization)?,
            None => Network::new(graph)?,
        };
        let variants = autotune::choose(driver, &network, cache::folder().as_deref())?;
        Ok(Self::with_variants(driver, network, weights, variants)?)
    }

    /// As [`new`](Self::new), with a variant for each step.
    ///
    /// # Errors
    /// When the device fails.
    pub fn with_variants(
        driver: &Arc<dyn Driver>,
        network: Network,
        weights: &Weights,
        variants: Vec<Variant>,
    ) -> Result<Self, CudaError> {
        let mut packed = network.pack(weights, &variants);
        let memory = DeviceMemory::holding(driver, &std::mem::take(&mut packed.bytes))?;
        Ok(Self { driver: Arc::clone(driver), network, variants, packed, weights: memory })
    }

    /// The model of these weights and this graph that the process has already, or a new one.
    /// `identity` tells weights apart, as their hash does.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn shared(
        driver: &Arc<dyn Driver>,
        graph: &Graph,
        weights: &Weights,
        quantization: Option<&Quantization>,
        identity: &str,
    ) -> Result<Arc<Self>, EngineError> {
        type Models = Mutex<HashMap<(usize, String, Vec<usize>), Weak<Model>>>;
        static MODELS: OnceLock<Models> = OnceLock::new();
        let input = graph.input_shape();
        let shape = vec![input.width, input.height, graph.layers.len()];
        let key = (Arc::as_ptr(driver).cast::<()>() as usize, identity.to_owned(), shape);
        let mut models = MODELS.get_or_init(Models::default).lock().unwrap_or_else(PoisonError::into_inner);
        models.retain(|_, model| model.strong_count() > 0);
        if let Some(model) = models.get(&key).and_then(Weak::upgrade) {
            return Ok(model);
        }
        let model = Arc::new(Self::new(driver, graph, weights, quantization)?);
        models.insert(key, Arc::downgrade(&model));
        Ok(model)
    }

    /// The device that it is on.
    pub fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }

    /// The network as it was planned.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The variant of each of the plan's steps.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// Bytes of the weights on the device.
    pub fn weight_bytes(&self) -> usize {
        self.weights.len()
    }

    /// The launches of the whole network, with its tensors in `arena`,
    /// [`Layout::arena`](super::layout::Layout::arena) bytes of the device.
    pub fn nodes(&self, arena: &DeviceMemory) -> Vec<Node> {
        self.network.nodes(&self.variants, &self.packed, self.bases(arena))
    }

    /// Where tensors and weights begin, for a network with its tensors in `arena`.
    pub fn bases(&self, arena: &DeviceMemory) -> Bases {
        Bases { arena: arena.device(), weights: self.weights.device() }
    }
}
