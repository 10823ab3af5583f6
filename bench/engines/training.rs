//! A training step of the student, ours and PyTorch's: forward, backward from ½ Σ output², AdamW.
//!
//! Both start from the same random weights with batch-norm, on the same batch; the gradients of
//! their first step are compared.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use peregrine_distill::net::norm::EPSILON;
use peregrine_distill::net::{Mode, NetParams, TrainNet};
use peregrine_distill::train::optimizer::{Optimizer, OptimizerKind};
use rayon::{ThreadPool, ThreadPoolBuilder};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;

use crate::contender::{timed, Contender, Time};
use crate::export::bytes;
use crate::networks::Network;

const SEED: u64 = 6;
// So small that the weights hardly change; the time does not depend on it.
const RATE: f64 = 1e-6;
const WEIGHT_DECAY: f64 = 0.02;
// Far above any norm: computed, without effect.
const CLIP: f32 = 1e9;

/// The training engine of this crate.
pub struct OursTraining {
    net: TrainNet,
    optimizer: Optimizer,
    input: Vec<f32>,
    threads: ThreadPool,
    /// Gradients of the first step; later steps have other weights.
    gradients: Option<Vec<f32>>,
}

impl OursTraining {
    /// For batches as long as `input` `[images, 3, height, width]`.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(network: &Network, input: &[f32], threads: usize) -> Result<Self> {
        let params = NetParams::random(&network.graph, SEED);
        let images = input.len() / network.graph.input_shape().len();
        Ok(Self {
            net: TrainNet::new(network.graph.clone(), params, images),
            optimizer: Optimizer::new(OptimizerKind::AdamW, 0.0),
            input: input.to_vec(),
            threads: ThreadPoolBuilder::new().num_threads(threads).build().context("cannot start threads")?,
            gradients: None,
        })
    }

    /// Writes what PyTorch needs besides the graph: `training.safetensors` and `training.json`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn export(network: &Network, folder: &Path) -> Result<()> {
        let mut params = NetParams::random(&network.graph, SEED);
        let shapes: HashMap<_, _> = network.graph.convs().map(|(l, _, s)| (format!("{}.weight", l.name), s)).collect();
        let state = params.state();
        let tensors: Vec<_> = state.iter().map(|(name, values)| (name.clone(), bytes(values))).collect();
        let views = tensors.iter().map(|(name, data)| {
            let shape = shapes.get(name).map_or(vec![data.len() / 4], |s| s.to_vec());
            (name, TensorView::new(Dtype::F32, shape, data).expect("sizes come from the graph"))
        });
        std::fs::write(folder.join("training.safetensors"), safetensors::serialize(views, None)?)?;
        let trainable: Vec<_> = params.trainable().into_iter().map(|t| t.name).collect();
        let settings = json!({
            "trainable": trainable, "epsilon": EPSILON, "rate": RATE, "weight_decay": WEIGHT_DECAY, "clip": CLIP,
        });
        std::fs::write(folder.join("training.json"), settings.to_string())?;
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        let Self { net, optimizer, input, threads, .. } = self;
        threads.install(|| {
            net.params.zero_gradients();
            net.input().copy_from_slice(input);
            net.forward(Mode::Train)?;
            let seeds: Vec<_> = net.graph.outputs.iter().map(|&id| (id, net.value(id).to_vec())).collect();
            net.backward(seeds.iter().map(|(id, seed)| (*id, &seed[..])))?;
            optimizer.update(&mut net.params, RATE, WEIGHT_DECAY, CLIP);
            Ok(())
        })
    }
}

impl Contender for OursTraining {
    fn name(&self) -> &str {
        "ours"
    }

    fn run(&mut self) -> Result<Time> {
        timed(|| self.step())
    }

    fn outputs(&mut self) -> Result<Vec<f32>> {
        if self.gradients.is_none() {
            self.step()?;
            let trainable = self.net.params.trainable();
            self.gradients = Some(trainable.into_iter().flat_map(|t| t.param.gradient.clone()).collect());
        }
        Ok(self.gradients.clone().expect("made above"))
    }
}
