//! The steps of a text model's training, and its checkpoints: the complete state, so that a resumed
//! run is identical to an uninterrupted one.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{bail, ensure, Context};
use candle_core::backprop::GradStore;
use candle_core::{Device, Result, Tensor, Var};
use peregrine_core::files::write_atomically;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use safetensors::tensor::SafeTensors;
use serde::{Deserialize, Serialize};

const BETA: [f64; 2] = [0.9, 0.999];
const EPSILON: f64 = 1e-8;
const DECAY: f64 = 0.01;

/// Examples of a step.
const BATCH: usize = 32;

/// Weights by name.
type Params = BTreeMap<String, Var>;

/// Training state besides the student's weights.
struct TrainingState {
    /// Steps done.
    step: usize,
    /// Remaining examples of the epoch.
    order: Vec<usize>,
    chance: ChaCha8Rng,
    /// AdamW's first and second moments.
    moments: BTreeMap<String, [Tensor; 2]>,
}

/// How long a training is, and where its state is kept.
pub struct Schedule<'a> {
    pub steps: usize,
    /// Learning rate of a step.
    pub rate: &'a dyn Fn(usize) -> f64,
    /// From which an interrupted training is resumed.
    pub checkpoint: &'a Path,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Hash of the training's inputs.
    pub training: &'a str,
}

impl Schedule<'_> {
    /// Trains `params`, which `chance` has initialised, on batches of 32 of as many `examples`, every
    /// one once in each epoch. `loss` is given the batch's examples; `on_step` is called after each
    /// step with its number and loss.
    ///
    /// # Errors
    /// When the checkpoint belongs to another training, or the loss is not finite.
    pub fn run(
        &self,
        params: &Params,
        chance: ChaCha8Rng,
        examples: usize,
        mut loss: impl FnMut(&[usize], &mut ChaCha8Rng) -> Result<Tensor>,
        mut on_step: impl FnMut(usize, f32),
    ) -> anyhow::Result<()> {
        let mut state = TrainingState::new(params, chance)?;
        if self.checkpoint.exists() {
            let at = || self.checkpoint.display().to_string();
            state.load(params, self.checkpoint, self.training).with_context(at)?;
        }
        let batch = BATCH.min(examples);
        for step in state.step..self.steps {
            while state.order.len() < batch {
                let mut again: Vec<usize> = (0..examples).collect();
                again.shuffle(&mut state.chance);
                state.order.extend(again);
            }
            let drawn: Vec<usize> = state.order.drain(..batch).collect();
            let loss = loss(&drawn, &mut state.chance)?;
            let value = loss.to_scalar::<f32>()?;
            if !value.is_finite() {
                bail!("the loss of step {step} is not finite; lower the learning rate");
            }
            state.update(params, &loss.backward()?, (self.rate)(step))?;
            if state.step % self.checkpoint_every == 0 {
                state.save(params, self.checkpoint, self.training)?;
            }
            on_step(step + 1, value);
        }
        Ok(())
    }
}

/// A checkpoint's metadata under the key `progress`.
#[derive(Serialize, Deserialize)]
struct Header {
    /// Hash of the training's inputs; a checkpoint with another one is refused.
    training: String,
    step: usize,
    order: Vec<usize>,
    /// Position of the random number generator.
    word: u128,
}

impl TrainingState {
    /// The initial state; `chance` has initialised the weights.
    ///
    /// # Errors
    /// When a tensor cannot be made.
    fn new(params: &Params, chance: ChaCha8Rng) -> Result<Self> {
        let zeros = |(name, var): (&String, &Var)| Ok((name.clone(), [var.zeros_like()?, var.zeros_like()?]));
        let moments = params.iter().map(zeros).collect::<Result<_>>()?;
        Ok(Self { step: 0, order: Vec::new(), chance, moments })
    }

    /// One step of AdamW (Loshchilov & Hutter 2019, algorithm 2), equal to candle_nn's, whose state
    /// cannot be saved.
    ///
    /// # Errors
    /// When a tensor operation fails.
    fn update(&mut self, params: &Params, gradients: &GradStore, rate: f64) -> Result<()> {
        self.step += 1;
        let scale = BETA.map(|beta| 1.0 / (1.0 - beta.powi(self.step as i32)));
        for (name, var) in params {
            let (Some(gradient), Some([first, second])) = (gradients.get(var), self.moments.get_mut(name)) else {
                continue;
            };
            // Candle's gradients refer to the forward pass, which the moments would keep alive for ever.
            let gradient = &gradient.detach();
            *first = ((&*first * BETA[0])? + (gradient * (1.0 - BETA[0]))?)?;
            *second = ((&*second * BETA[1])? + (gradient.sqr()? * (1.0 - BETA[1]))?)?;
            let change = ((&*first * scale[0])? / ((&*second * scale[1])?.sqrt()? + EPSILON)?)?;
            var.set(&((var.as_tensor() * (1.0 - rate * DECAY))? - (change * rate)?)?)?;
        }
        Ok(())
    }

    /// Writes the state and the weights to `path`. `training` is the hash of the training's inputs.
    ///
    /// # Errors
    /// When the file cannot be written; an older one then stays intact.
    fn save(&self, params: &Params, path: &Path, training: &str) -> anyhow::Result<()> {
        let mut tensors: Vec<(String, &Tensor)> = Vec::new();
        for (name, var) in params {
            let [first, second] = &self.moments[name];
            let named = [("weight", var.as_tensor()), ("moment0", first), ("moment1", second)];
            tensors.extend(named.map(|(kind, tensor)| (format!("{kind}/{name}"), tensor)));
        }
        let header = Header {
            training: training.to_owned(),
            step: self.step,
            order: self.order.clone(),
            word: self.chance.get_word_pos(),
        };
        let metadata = HashMap::from([("progress".to_owned(), serde_json::to_string(&header)?)]);
        Ok(write_atomically(path, &safetensors::serialize(tensors, Some(metadata))?)?)
    }

    /// Restores the state and the weights that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// When the file is damaged or of another training.
    fn load(&mut self, params: &Params, path: &Path, training: &str) -> anyhow::Result<()> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let header = header.metadata().as_ref().and_then(|m| m.get("progress")).context("it has no progress")?;
        let header: Header = serde_json::from_str(header)?;
        ensure!(
            header.training == training,
            "it was written with other settings, sentences or soft targets; use another folder, or --fresh to start over"
        );
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)?;
        let tensor = |kind: &str, name: &str, var: &Var| {
            let found = tensors.get(&format!("{kind}/{name}")).filter(|tensor| tensor.dims() == var.dims());
            found.cloned().with_context(|| format!("its {kind}/{name} does not fit the network"))
        };
        for (name, var) in params {
            self.moments.insert(name.clone(), [tensor("moment0", name, var)?, tensor("moment1", name, var)?]);
            var.set(&tensor("weight", name, var)?)?;
        }
        (self.step, self.order) = (header.step, header.order);
        self.chance.set_word_pos(header.word);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use candle_nn::{AdamW, Optimizer, ParamsAdamW};
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn an_update_equals_candles_adamw() {
        let var = || Var::from_slice(&[1.0f32, -2.0, 0.5], (1, 3), &Device::Cpu).unwrap();
        let (ours, theirs) = (var(), var());
        let params = Params::from([("w".to_owned(), ours.clone())]);
        let mut progress = TrainingState::new(&params, ChaCha8Rng::seed_from_u64(1)).unwrap();
        let settings = ParamsAdamW { lr: 0.1, weight_decay: DECAY, ..Default::default() };
        let mut adam = AdamW::new(vec![theirs.clone()], settings).unwrap();
        for _ in 0..5 {
            let loss = |var: &Var| (var.sqr().unwrap() * 1.5).unwrap().exp().unwrap().sum_all().unwrap();
            progress.update(&params, &loss(&ours).backward().unwrap(), 0.1).unwrap();
            adam.backward_step(&loss(&theirs)).unwrap();
            assert_eq!(ours.to_vec2::<f32>().unwrap(), theirs.to_vec2::<f32>().unwrap());
        }
    }

    #[test]
    fn the_moments_do_not_keep_the_forward_pass_alive() {
        let var = Var::from_slice(&[1.0f32, -2.0, 0.5], (1, 3), &Device::Cpu).unwrap();
        let params = Params::from([("w".to_owned(), var.clone())]);
        let mut progress = TrainingState::new(&params, ChaCha8Rng::seed_from_u64(1)).unwrap();
        let loss = var.sqr().unwrap().exp().unwrap().sum_all().unwrap();
        progress.update(&params, &loss.backward().unwrap(), 0.1).unwrap();
        for moment in &progress.moments["w"] {
            let gradients = moment.sum_all().unwrap().backward().unwrap();
            assert!(gradients.get(&var).is_none(), "a moment refers to the weights that it was computed from");
        }
    }
}
