//! The trainable parameters: convolution weights, biases and batch-norm, with their gradients.

use std::collections::BTreeMap;

use peregrine_engine::{ConvWeights, Graph, LayerId, Weights};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::norm::{BatchStatistics, EPSILON};
use crate::ranks::Ranks;

/// The logit of 1 %: −ln 99.
const RARE: f32 = -4.595_12;

/// Values and their gradient, of one length.
#[derive(Debug, Clone)]
pub struct Param {
    pub value: Vec<f32>,
    pub gradient: Vec<f32>,
}

impl Param {
    fn new(value: Vec<f32>) -> Self {
        Self { gradient: vec![0.0; value.len()], value }
    }
}

/// Batch normalisation after a convolution; the convolution's bias is its β.
#[derive(Debug, Clone)]
pub struct Norm {
    pub gamma: Param,
    pub running: BatchStatistics,
}

/// The parameters of one convolution.
#[derive(Debug, Clone)]
pub struct ConvParams {
    pub name: String,
    pub layer: LayerId,
    /// `[out, in per group, kernel, kernel]`.
    pub weight: Param,
    /// `[out]`: the bias, or β if there is a [`norm`](Self::norm).
    pub bias: Param,
    pub norm: Option<Norm>,
    /// Whether it is neither trained nor differentiated.
    pub frozen: bool,
    /// Factor on the learning rate.
    pub rate: f32,
}

/// The parameters of a network, in the order of its convolutions.
#[derive(Debug, Clone)]
pub struct NetParams {
    pub convs: Vec<ConvParams>,
}

/// One trainable tensor, for the optimizer and checkpoints.
pub struct Trainable<'a> {
    pub name: String,
    pub param: &'a mut Param,
    pub rate: f32,
    /// Whether weight decay applies: to weights, not to biases or norms.
    pub decay: bool,
}

impl NetParams {
    /// Initial parameters: He-normal weights (He et al. 2015, eq. 10), batch-norm after each hidden
    /// convolution, and class outputs at an initial probability of 1 % (Lin et al. 2017, section
    /// 4.1). Channelwise convolutions, which represent an activation without weights, are frozen at
    /// a weight of 1.
    pub fn random(graph: &Graph, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let convs = graph
            .layers
            .iter()
            .enumerate()
            .filter(|(_, layer)| matches!(layer.op, peregrine_engine::Op::Conv(_)))
            .zip(graph.convs())
            .map(|((id, _), (layer, conv, shape))| {
                let output = graph.outputs.contains(&id);
                let activation_alone = conv.is_channelwise();
                let fan_in = shape[1..].iter().product::<usize>() as f32;
                let deviation = if output { 0.01 } else { (2.0 / fan_in).sqrt() };
                let normal = Normal::new(0.0, deviation).expect("the deviation is positive");
                let count = shape.iter().product();
                let weight = if activation_alone {
                    vec![1.0; count]
                } else {
                    (0..count).map(|_| normal.sample(&mut rng)).collect()
                };
                let detects_class = output && layer.name.starts_with("detect") && layer.name.ends_with("class");
                let bias = if detects_class { RARE } else { 0.0 };
                let running = BatchStatistics { mean: vec![0.0; shape[0]], variance: vec![1.0; shape[0]] };
                ConvParams {
                    name: layer.name.clone(),
                    layer: id,
                    weight: Param::new(weight),
                    bias: Param::new(vec![bias; shape[0]]),
                    norm: (!output && !activation_alone)
                        .then(|| Norm { gamma: Param::new(vec![1.0; shape[0]]), running }),
                    frozen: activation_alone,
                    rate: 1.0,
                }
            })
            .collect();
        Self { convs }
    }

    /// Sets the outputs of `layers` to an initial probability of 1 % (Lin et al. 2017, section 4.1).
    pub fn expect_few(&mut self, layers: impl Iterator<Item = LayerId>) {
        for layer in layers {
            self.convs.iter_mut().filter(|conv| conv.layer == layer).for_each(|conv| conv.bias.value.fill(RARE));
        }
    }

    /// Copies every layer that `weights` holds in this network's shape, without batch-norm (it is
    /// folded in already, as is usual when fine-tuning with frozen statistics). Returns the number
    /// of layers copied.
    pub fn adopt(&mut self, weights: &Weights) -> usize {
        let mut taken = 0;
        for conv in &mut self.convs {
            let Some(from) = weights.0.get(&conv.name) else { continue };
            if from.weight.len() == conv.weight.value.len() && from.bias.len() == conv.bias.value.len() {
                conv.weight.value.clone_from(&from.weight);
                conv.bias.value.clone_from(&from.bias);
                conv.norm = None;
                taken += 1;
            }
        }
        taken
    }

    /// The trainable tensors, in a fixed order.
    pub fn trainable(&mut self) -> Vec<Trainable<'_>> {
        let mut list = Vec::new();
        for conv in self.convs.iter_mut().filter(|c| !c.frozen) {
            let (name, rate) = (&conv.name, conv.rate);
            let mut push = |part: &str, param, decay| {
                list.push(Trainable { name: format!("{name}.{part}"), param, rate, decay });
            };
            push("weight", &mut conv.weight, true);
            push("bias", &mut conv.bias, false);
            if let Some(norm) = &mut conv.norm {
                push("gamma", &mut norm.gamma, false);
            }
        }
        list
    }

    /// All that a checkpoint holds, by name: values and running statistics.
    pub fn state(&mut self) -> BTreeMap<String, &mut Vec<f32>> {
        let mut state = BTreeMap::new();
        for conv in &mut self.convs {
            state.insert(format!("{}.weight", conv.name), &mut conv.weight.value);
            state.insert(format!("{}.bias", conv.name), &mut conv.bias.value);
            if let Some(norm) = &mut conv.norm {
                state.insert(format!("{}.gamma", conv.name), &mut norm.gamma.value);
                state.insert(format!("{}.mean", conv.name), &mut norm.running.mean);
                state.insert(format!("{}.variance", conv.name), &mut norm.running.variance);
            }
        }
        state
    }

    /// The weights to deploy: batch-norm folded, w′ = w·γ/√(σ²+ε), b′ = β − μ·γ/√(σ²+ε).
    pub fn fold(&self) -> Weights {
        let fold = |conv: &ConvParams| {
            let mut folded = ConvWeights { weight: conv.weight.value.clone(), bias: conv.bias.value.clone() };
            if let Some(norm) = &conv.norm {
                let per_channel = folded.weight.len() / folded.bias.len();
                for (c, filter) in folded.weight.chunks_mut(per_channel).enumerate() {
                    let scale = norm.gamma.value[c] / (norm.running.variance[c] + EPSILON).sqrt();
                    filter.iter_mut().for_each(|w| *w *= scale);
                    folded.bias[c] -= norm.running.mean[c] * scale;
                }
            }
            (conv.name.clone(), folded)
        };
        Weights(self.convs.iter().map(fold).collect())
    }

    /// `self = decay · self + (1 − decay) · params`, running statistics included.
    pub fn move_towards(&mut self, params: &mut Self, decay: f64) {
        let share = 1.0 - decay as f32;
        for ((_, average), (_, now)) in self.state().into_iter().zip(params.state()) {
            // So that an average of what does not change stays that to the last bit.
            average.iter_mut().zip(now).for_each(|(a, n)| *a += share * (*n - *a));
        }
    }

    /// Adds up the gradients of all `ranks`, and gives the running statistics that their means have.
    pub fn unite(&mut self, ranks: &Ranks) {
        if ranks.is_alone() {
            return;
        }
        let mut parts: Vec<&mut Vec<f32>> = Vec::new();
        for conv in &mut self.convs {
            if !conv.frozen {
                parts.extend([&mut conv.weight.gradient, &mut conv.bias.gradient]);
            }
            if let Some(norm) = &mut conv.norm {
                let running = &mut norm.running;
                running.mean.iter_mut().chain(&mut running.variance).for_each(|v| *v *= ranks.share() as f32);
                parts.extend([&mut norm.gamma.gradient, &mut running.mean, &mut running.variance]);
            }
        }
        // In one message: each costs a delay.
        let mut all = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
        parts.iter().for_each(|part| all.extend_from_slice(part));
        ranks.sum_many(&mut all);
        let mut rest = &all[..];
        for part in parts {
            let (own, others) = rest.split_at(part.len());
            part.copy_from_slice(own);
            rest = others;
        }
    }

    /// Sets every gradient to zero.
    pub fn zero_gradients(&mut self) {
        for trainable in self.trainable() {
            trainable.param.gradient.fill(0.0);
        }
    }
}
