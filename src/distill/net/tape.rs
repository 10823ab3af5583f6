//! From a network's forward pass over the losses to its backward pass.

use anyhow::{Context, Result};
use candle_core::{Device, Var};
use peregrine_engine::LayerId;

use super::{Mode, TrainNet};
use crate::ranks::Ranks;
use crate::tensor::Tensor;

/// The tensors that the losses of one step are made of: those of the network's layers, which are
/// differentiated, and constant ones. On a GPU they are only recorded, and computed with the passes.
pub struct Tape {
    layers: Vec<OfLayer>,
    is_on_device: bool,
    /// Whether what is computed of constants alone stays on the host, where ranks add it up.
    shares_constants: bool,
}

struct OfLayer {
    layer: LayerId,
    tensor: Tensor,
    /// On the CPU.
    variable: Option<Var>,
}

impl Tape {
    /// Whether shapes should stay the same from step to step, since a graph on a device is made for
    /// them.
    pub fn is_on_device(&self) -> bool {
        self.is_on_device
    }

    /// A layer's tensor, `[batch, channels, height, width]`.
    ///
    /// # Errors
    /// When candle fails.
    pub fn layer(&mut self, net: &TrainNet, layer: LayerId) -> candle_core::Result<Tensor> {
        if let Some(known) = self.layers.iter().find(|of| of.layer == layer) {
            return Ok(known.tensor.clone());
        }
        let shape = net.graph.layers[layer].shape;
        let dims = [net.batch(), shape.channels, shape.height, shape.width];
        let (tensor, variable) = match net.recorded(layer, &dims) {
            Some(leaf) => (leaf, None),
            None => {
                let variable = Var::from_slice(net.value(layer), &dims, &Device::Cpu)?;
                (Tensor::from(&variable), Some(variable))
            }
        };
        self.layers.push(OfLayer { layer, tensor: tensor.clone(), variable });
        Ok(tensor)
    }

    /// The tensor of this number of a teacher on the device, `[batch, channels, height, width]`; `None`
    /// without one.
    pub fn teacher(&self, net: &TrainNet, number: usize) -> Option<Tensor> {
        net.recorded_teacher(number).filter(|_| self.is_on_device)
    }

    /// A constant tensor, with which the device computes if the losses are computed there.
    ///
    /// # Errors
    /// When there are more or fewer `values` than `shape` says.
    pub fn given(&self, values: &[f32], shape: &[usize]) -> candle_core::Result<Tensor> {
        let tensor = Tensor::from_slice(values, shape)?;
        let records = self.is_on_device && !self.shares_constants;
        Ok(if records { Tensor::Recorded(tensor.recorded()) } else { tensor })
    }
}

impl TrainNet {
    /// Begins a training step over the input, a part of a batch of all `ranks`: on the CPU runs the
    /// forward pass.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn begin(&mut self, ranks: &Ranks) -> Result<Tape> {
        let is_on_device = self.records();
        if !is_on_device {
            self.forward(Mode::Train)?;
        }
        Ok(Tape { layers: Vec::new(), is_on_device, shares_constants: !ranks.is_alone() })
    }

    /// Ends a step: adds the gradients of the loss `total` to those of the parameters, and returns the
    /// values of the scalars `terms`. The layers `also` take part in the backward pass on the CPU even if
    /// no gradient is in them.
    ///
    /// # Errors
    /// When candle or the device fails.
    pub fn differentiate(
        &mut self,
        tape: &Tape,
        total: &Tensor,
        terms: &[Tensor],
        also: &[LayerId],
    ) -> Result<Vec<f32>> {
        if tape.is_on_device {
            return self.differentiate_on_device(total, terms);
        }
        let found = total.on_host().context("a loss of the CPU is on a device")?.backward()?;
        let mut seeds: Vec<(LayerId, Vec<f32>)> = Vec::new();
        for OfLayer { layer, variable, .. } in &tape.layers {
            if let Some(gradient) = variable.as_ref().and_then(|variable| found.get(variable)) {
                seeds.push((*layer, gradient.flatten_all()?.to_vec1()?));
            }
        }
        for &layer in also {
            if seeds.iter().all(|(seeded, _)| *seeded != layer) {
                seeds.push((layer, vec![0.0; self.batch() * self.graph.layers[layer].shape.len()]));
            }
        }
        self.backward(seeds.iter().map(|(layer, seed)| (*layer, &seed[..])))?;
        Ok(terms.iter().map(Tensor::value).collect::<candle_core::Result<_>>()?)
    }
}
