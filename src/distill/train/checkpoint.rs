//! The state of a training, saved whole in one safetensors file, which is written atomically: a run
//! that is killed at any moment resumes from it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{bail, Context};
use peregrine_core::files::{read_at_most, write_atomically, MAX_WEIGHTS_FILE};
use peregrine_engine::LayerId;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::config::StudentConfig;
use super::device::OpenDevice;
use super::optimizer::Optimizer;
use crate::net::{NetParams, TrainNet};
use crate::ranks::Ranks;

/// What the steps of a training change.
pub struct TrainState {
    /// Steps done.
    pub step: u64,
    pub net: TrainNet,
    /// The moving average of the network's parameters.
    pub average: NetParams,
    pub optimizer: Optimizer,
}

impl TrainState {
    /// The state before the first step.
    pub fn new(net: TrainNet, config: &StudentConfig) -> Self {
        let average = net.params.clone();
        Self { step: 0, net, average, optimizer: Optimizer::new(config.optimizer, config.momentum) }
    }

    /// The same on a device, from which the host sees the tensors of the graph's outputs and of the
    /// layers `fetched`.
    ///
    /// # Errors
    /// When the device has too little memory, or fails.
    #[cfg(feature = "cuda")]
    pub fn on(mut self, device: OpenDevice, fetched: &[LayerId]) -> anyhow::Result<Self> {
        let OpenDevice::Cuda(driver, precision) = device;
        self.net = self.net.on_cuda(&driver, fetched, precision)?;
        self.optimizer.move_to(&mut self.net, &self.average)?;
        Ok(self)
    }

    /// There is no such device in this build.
    ///
    /// # Errors
    /// None.
    #[cfg(not(feature = "cuda"))]
    pub fn on(self, device: OpenDevice, _: &[LayerId]) -> anyhow::Result<Self> {
        match device {}
    }

    /// Gives all `ranks` the state of rank 0, which may have been loaded from a checkpoint.
    pub fn take_from_first(&mut self, ranks: &Ranks) {
        if ranks.is_alone() {
            return;
        }
        self.step = ranks.number_of_first(self.step);
        self.optimizer.updates = ranks.number_of_first(self.optimizer.updates);
        for params in [&mut self.net.params, &mut self.average] {
            params.state().into_values().for_each(|values| ranks.broadcast(values));
        }
        if ranks.number_of_first(self.optimizer.memory.len() as u64) > 0 {
            self.optimizer.remember(&mut self.net.params);
            self.optimizer.memory.values_mut().flatten().for_each(|slot| ranks.broadcast(slot));
        }
    }

    /// Says what the next [`update`](Self::update) will be: a step on a GPU ends with it.
    pub fn announce(&mut self, rate: f64, decay: f64, clip: f32, ema: f64) {
        #[cfg(feature = "cuda")]
        {
            let keep = self.average_decay(ema);
            if let Some((cuda, _)) = self.net.cuda() {
                cuda.announce(self.optimizer.constants(rate, decay, clip, keep));
            }
        }
        let _ = (rate, decay, clip, ema);
    }

    /// Updates the parameters by their gradients, and moves the average by one step. Returns the norm
    /// of the gradient before clipping to `clip`; where that is not finite, nothing changes. In half
    /// precision it is 0 where gradients overflowed and the step was left out. Call it before
    /// [`step`](Self::step) counts the step.
    ///
    /// # Errors
    /// When a device other than the CPU fails.
    pub fn update(&mut self, rate: f64, decay: f64, clip: f32, ema: f64) -> anyhow::Result<f32> {
        #[cfg(feature = "cuda")]
        {
            let keep = self.average_decay(ema);
            if let Some((cuda, _)) = self.net.cuda() {
                let Some(norm) = cuda.update(self.optimizer.constants(rate, decay, clip, keep))? else {
                    tracing::debug!("step {}: gradients overflowed, {} so far", self.step, cuda.overflows());
                    return Ok(0.0);
                };
                self.optimizer.updates += u64::from(norm.is_finite());
                return Ok(norm);
            }
        }
        let norm = self.optimizer.update(&mut self.net.params, rate, decay, clip);
        if norm.is_finite() {
            self.update_average(ema);
        }
        Ok(norm)
    }

    /// Moves the average by one step.
    fn update_average(&mut self, ema: f64) {
        let decay = self.average_decay(ema);
        self.average.move_towards(&mut self.net.params, decay);
    }

    /// How much of the average a step keeps: `ema`, and less at the beginning of the training.
    fn average_decay(&self, ema: f64) -> f64 {
        ema.min((self.step + 1) as f64 / (self.step + 10) as f64)
    }

    /// Copies the average from the device that has it, if that is not the CPU.
    ///
    /// # Errors
    /// When the device fails.
    pub fn fetch_average(&mut self) -> anyhow::Result<()> {
        #[cfg(feature = "cuda")]
        if let Some((cuda, _)) = self.net.cuda() {
            cuda.take_average(&mut self.average)?;
        }
        Ok(())
    }

    /// Copies all that a checkpoint holds from the device that has it, if that is not the CPU.
    fn fetch(&mut self) -> anyhow::Result<()> {
        self.fetch_average()?;
        #[cfg(feature = "cuda")]
        if let Some((cuda, params)) = self.net.cuda() {
            cuda.take(params)?;
            self.optimizer.fetch(cuda, params)?;
        }
        Ok(())
    }

    /// Writes the state to `path`, with the text of its `config`.
    ///
    /// # Errors
    /// When the folder cannot be written to, or a device fails; an older checkpoint then stays as it
    /// was.
    pub fn save(&mut self, path: &Path, config: &str) -> anyhow::Result<()> {
        self.fetch()?;
        let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        for (prefix, params) in [("params", &mut self.net.params), ("average", &mut self.average)] {
            tensors.extend(params.state().iter().map(|(name, v)| (format!("{prefix}/{name}"), bytes(v))));
        }
        for (name, slots) in &self.optimizer.memory {
            tensors.extend(slots.iter().enumerate().map(|(i, slot)| (format!("moment{i}/{name}"), bytes(slot))));
        }
        let views = tensors.iter().map(|(name, data)| {
            (name, TensorView::new(Dtype::F32, vec![data.len() / 4], data).expect("four bytes a value"))
        });
        let metadata = HashMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("updates".to_owned(), self.optimizer.updates.to_string()),
            ("config".to_owned(), config.to_owned()),
        ]);
        let file = safetensors::serialize(views, Some(metadata)).context("the checkpoint cannot be serialised")?;
        Ok(write_atomically(path, &file)?)
    }

    /// Loads the state in `path`. If `config` is given, the checkpoint must have been saved with
    /// the same text.
    ///
    /// # Errors
    /// When the file is damaged, belongs to another configuration, or does not fit the network.
    pub fn load(&mut self, path: &Path, config: Option<&str>) -> anyhow::Result<()> {
        let bytes = read_at_most(path, MAX_WEIGHTS_FILE)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let metadata = header.metadata().as_ref().context("it has no metadata")?;
        let field = |name: &str| metadata.get(name).with_context(|| format!("it has no field {name:?}"));
        let made_with = field("config")?;
        if config.is_some_and(|config| config != made_with) {
            bail!(
                "it belongs to another configuration; use a new run folder, --reconfigure to resume with the new one, or \
                 --fresh to start over"
            );
        }
        let file = SafeTensors::deserialize(&bytes)?;
        let values = |name: &str, len: usize| -> anyhow::Result<Vec<f32>> {
            let tensor = file.tensor(name)?;
            if tensor.dtype() != Dtype::F32 || tensor.data().len() != 4 * len {
                bail!("tensor {name} does not fit the network");
            }
            Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        for (prefix, params) in [("params", &mut self.net.params), ("average", &mut self.average)] {
            for (name, target) in params.state() {
                *target = values(&format!("{prefix}/{name}"), target.len())?;
            }
        }
        let mut memory = BTreeMap::new();
        let slots = self.optimizer.kind.slots();
        for trainable in self.net.params.trainable() {
            let read = |i: usize| values(&format!("moment{i}/{}", trainable.name), trainable.param.value.len());
            memory.insert(trainable.name.clone(), (0..slots).map(read).collect::<anyhow::Result<_>>()?);
        }
        (self.optimizer.memory, self.optimizer.updates) = (memory, field("updates")?.parse()?);
        self.step = field("step")?.parse()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ranks::threads::on_ranks;
    use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};

    #[test]
    fn the_average_moves_by_its_decay_running_statistics_included() {
        let mut graph = Graph::new(Shape::new(1, 1, 1));
        let conv =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let out = graph.conv("out", 0, 1, conv);
        graph.outputs.push(out);
        let params = NetParams::random(&graph, 0);
        let mut state = TrainState::new(TrainNet::new(graph, params, 1), &StudentConfig::default());
        // Late enough in a training for the whole decay.
        state.step = 1000;
        let fill = |params: &mut NetParams, v: f32| params.state().into_iter().for_each(|(_, values)| values.fill(v));
        fill(&mut state.average, 1.0);
        for step in 1..=3i32 {
            fill(&mut state.net.params, 5.0);
            state.update_average(0.9);
            let expected = 5.0 - 4.0 * 0.9f32.powi(step);
            assert!(state.average.state().values().flat_map(|v| v.iter()).all(|v| (v - expected).abs() < 1e-5));
        }
    }

    #[test]
    fn ranks_go_on_from_the_state_of_rank_0() {
        let of = |ranks: &Ranks| {
            let mut graph = Graph::new(Shape::new(1, 1, 1));
            let conv =
                Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Relu, padding: Padding::Same };
            let hidden = graph.conv("hidden", 0, 2, conv);
            let out = graph.conv("out", hidden, 1, conv);
            graph.outputs.push(out);
            let params = NetParams::random(&graph, ranks.rank() as u64);
            let mut state = TrainState::new(TrainNet::new(graph, params, 1), &StudentConfig::default());
            if ranks.is_first() {
                (state.step, state.optimizer.updates) = (7, 5);
                state.optimizer.remember(&mut state.net.params);
                state.optimizer.memory.values_mut().flatten().for_each(|slot| slot.fill(3.0));
            }
            state.take_from_first(ranks);
            let values =
                |params: &mut NetParams| params.state().into_values().flat_map(|v| v.clone()).collect::<Vec<_>>();
            (state.step, values(&mut state.net.params), values(&mut state.average), state.optimizer)
        };
        let found = on_ranks(3, |ranks| of(&ranks));
        assert!(found.iter().all(|of_rank| *of_rank == found[0]));
        assert_eq!((found[0].0, &found[0].3.memory["hidden.gamma"][1]), (7, &vec![3.0; 2]));
    }
}
