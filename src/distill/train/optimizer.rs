//! AdamW (Loshchilov & Hutter 2019, algorithm 2) and SGD with momentum, both with gradient clipping
//! by global norm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::net::cuda::{arguments::Step, CudaNet, Rule};
use crate::net::params::Trainable;
use crate::net::NetParams;
#[cfg(feature = "cuda")]
use crate::net::TrainNet;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPSILON: f32 = 1e-8;

/// The rule that updates the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    #[default]
    AdamW,
    /// As `torch.optim.SGD`: `v = momentum·v + gradient + decay·w`, `w = w − rate·v`.
    Sgd,
}

impl OptimizerKind {
    /// What `memory` has for a tensor; zeros if it has nothing yet.
    fn memory_of<'a>(self, tensor: &Trainable, memory: &'a mut Memory) -> &'a mut Vec<Vec<f32>> {
        let zeros = || vec![vec![0.0; tensor.param.value.len()]; self.slots()];
        memory.entry(tensor.name.clone()).or_insert_with(zeros)
    }

    /// Values that are kept for each weight.
    pub fn slots(self) -> usize {
        match self {
            Self::AdamW => 2,
            Self::Sgd => 1,
        }
    }
}

/// First and second moments, or the velocity, by the tensor's name.
type Memory = BTreeMap<String, Vec<Vec<f32>>>;

/// An optimizer and its memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Optimizer {
    pub kind: OptimizerKind,
    /// Of SGD, 0 or above and below 1.
    pub momentum: f32,
    /// First and second moments, or the velocity, by the tensor's name.
    pub memory: Memory,
    /// Updates made.
    pub updates: u64,
}

impl Optimizer {
    pub fn new(kind: OptimizerKind, momentum: f64) -> Self {
        Self { kind, momentum: momentum as f32, memory: BTreeMap::new(), updates: 0 }
    }

    /// Makes room for what it keeps of each tensor.
    pub fn remember(&mut self, params: &mut NetParams) {
        for trainable in params.trainable() {
            self.kind.memory_of(&trainable, &mut self.memory);
        }
    }

    /// Scales the gradients down to a global norm of `clip` if they exceed it, then updates every
    /// trainable tensor. Returns the norm before clipping; if that is not finite, nothing is
    /// updated.
    pub fn update(&mut self, params: &mut NetParams, rate: f64, decay: f64, clip: f32) -> f32 {
        let mut list = params.trainable();
        let squares = |g: &[f32]| g.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
        let norm = list.iter().map(|t| squares(&t.param.gradient)).sum::<f64>().sqrt() as f32;
        if !norm.is_finite() {
            return norm;
        }
        self.updates += 1;
        let correction = |beta: f64| 1.0 - beta.powi(self.updates.min(i32::MAX as u64) as i32);
        let (c1, c2) = (correction(BETA1), correction(BETA2));
        let scale = if norm > clip { clip / norm } else { 1.0 };
        for trainable in &mut list {
            let memory = self.kind.memory_of(trainable, &mut self.memory);
            let rate = rate * f64::from(trainable.rate);
            let decay = if trainable.decay { decay } else { 0.0 };
            let values = trainable.param.value.iter_mut().zip(&trainable.param.gradient);
            match &mut memory[..] {
                [m, v] => {
                    let step = (rate / c1) as f32;
                    let shrink = 1.0 - (rate * decay) as f32;
                    let root = (1.0 / c2.sqrt()) as f32;
                    let (b1, b2) = (BETA1 as f32, BETA2 as f32);
                    for ((value, &gradient), (m, v)) in values.zip(m.iter_mut().zip(v)) {
                        let gradient = gradient * scale;
                        *m = b1 * *m + (1.0 - b1) * gradient;
                        *v = b2 * *v + (1.0 - b2) * gradient * gradient;
                        *value = *value * shrink - step * *m / (v.sqrt() * root + EPSILON);
                    }
                }
                [velocity] => {
                    for ((value, &gradient), v) in values.zip(velocity.iter_mut()) {
                        *v = self.momentum * *v + gradient * scale + decay as f32 * *value;
                        *value -= rate as f32 * *v;
                    }
                }
                _ => unreachable!("every optimizer has one or two slots"),
            }
        }
        norm
    }
}

/// On CUDA, where parameters and memory are on the device.
#[cfg(feature = "cuda")]
impl Optimizer {
    /// Has `net`, which is on CUDA, go on from this memory, and from the moving `average`.
    ///
    /// # Errors
    /// When the device fails, or has too little memory.
    pub fn move_to(&self, net: &mut TrainNet, average: &NetParams) -> anyhow::Result<()> {
        let Some((cuda, params)) = net.cuda() else { return Ok(()) };
        let rule = match self.kind {
            OptimizerKind::AdamW => Rule::AdamW,
            OptimizerKind::Sgd => Rule::Sgd,
        };
        let names: Vec<String> = params.trainable().into_iter().map(|trainable| trainable.name).collect();
        let slots = if self.memory.is_empty() { 0 } else { self.kind.slots() };
        let slots: Vec<Vec<&[f32]>> =
            (0..slots).map(|slot| names.iter().map(|name| &self.memory[name][slot][..]).collect()).collect();
        cuda.optimize(rule, &slots, average)
    }

    /// What the device needs for the next update, with `keep` of the moving average.
    pub fn constants(&self, rate: f64, decay: f64, clip: f32, keep: f64) -> Step {
        let correction = |beta: f64| 1.0 - beta.powi((self.updates + 1).min(i32::MAX as u64) as i32);
        let (rate, decay, root) = match self.kind {
            OptimizerKind::AdamW => (rate / correction(BETA1), rate * decay, 1.0 / correction(BETA2).sqrt()),
            OptimizerKind::Sgd => (rate, decay, 0.0),
        };
        Step {
            rate: rate as f32,
            decay: decay as f32,
            root: root as f32,
            momentum: self.momentum,
            clip,
            keep: keep as f32,
            loss_scale: 1.0,
            unused: 0.0,
        }
    }

    /// Copies the memory from the device; `params` give the tensors' names.
    ///
    /// # Errors
    /// When the device fails.
    pub fn fetch(&mut self, cuda: &CudaNet, params: &mut NetParams) -> anyhow::Result<()> {
        let mut slots: Vec<_> = cuda.slots()?.into_iter().map(Vec::into_iter).collect();
        for trainable in params.trainable() {
            let of = slots.iter_mut().map(|slot| slot.next().expect("one for each tensor")).collect();
            self.memory.insert(trainable.name, of);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use peregrine_engine::{Activation, Conv, Graph, Padding, Shape};

    fn params() -> NetParams {
        let mut graph = Graph::new(Shape::new(1, 1, 1));
        let conv =
            Conv { kernel: 1, stride: 1, depthwise: false, activation: Activation::Identity, padding: Padding::Same };
        let out = graph.conv("out", 0, 1, conv);
        graph.outputs.push(out);
        NetParams::random(&graph, 0)
    }

    #[test]
    fn two_updates_equal_those_of_torch_optim() {
        // torch.optim.AdamW and SGD(momentum=0.9) on [tensor(0.5)] with lr=0.1, weight_decay=0.1
        // and gradients 0.3, then -0.2, computed in f64.
        for (kind, expected) in [(OptimizerKind::AdamW, [0.395f64, 0.376598]), (OptimizerKind::Sgd, [0.465, 0.44885])] {
            let mut params = params();
            let mut optimizer = Optimizer::new(kind, 0.9);
            params.convs[0].weight.value[0] = 0.5;
            for (gradient, expected) in [0.3f32, -0.2].into_iter().zip(expected) {
                params.zero_gradients();
                params.convs[0].weight.gradient[0] = gradient;
                optimizer.update(&mut params, 0.1, 0.1, 100.0);
                let value = f64::from(params.convs[0].weight.value[0]);
                assert!((value - expected).abs() < 1e-5, "{kind:?}: {value} instead of {expected}");
            }
        }
    }

    #[test]
    fn a_gradient_above_the_bound_is_scaled_to_it() {
        let mut params = params();
        let mut adam = Optimizer::new(OptimizerKind::AdamW, 0.9);
        params.convs[0].weight.gradient[0] = 30.0;
        params.convs[0].bias.gradient[0] = 40.0;
        assert_eq!(adam.update(&mut params, 0.1, 0.0, 5.0), 50.0);
        assert!((adam.memory["out.weight"][0][0] - 0.1 * 3.0).abs() < 1e-6);
    }

    #[test]
    fn a_gradient_that_is_not_finite_changes_nothing() {
        for gradient in [f32::NAN, f32::INFINITY] {
            let mut params = params();
            let mut optimizer = Optimizer::new(OptimizerKind::AdamW, 0.9);
            let before = params.convs[0].weight.value.clone();
            params.convs[0].weight.gradient[0] = gradient;
            assert!(!optimizer.update(&mut params, 0.1, 0.1, 1.0).is_finite());
            assert_eq!((&params.convs[0].weight.value, optimizer.updates), (&before, 0));
        }
    }
}
