//! A training's whole state in one safetensors file, written atomically: killed at any moment, a run goes on from it.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{bail, Context};
use peregrine_core::files::write_atomically;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::optimizer::Optimizer;
use crate::net::NetParams;

/// What a training consists of besides its configuration.
pub struct State<'a> {
    /// Steps done.
    pub step: u64,
    pub params: &'a mut NetParams,
    /// The moving average of `params`.
    pub average: &'a mut NetParams,
    pub optimizer: &'a mut Optimizer,
}

impl State<'_> {
    /// Writes the state to `path`. `config` marks whose state it is.
    ///
    /// # Errors
    /// When the folder cannot be written to; an older checkpoint then stays as it was.
    pub fn save(&mut self, path: &Path, config: &str) -> anyhow::Result<()> {
        let mut tensors: Vec<(String, Vec<u8>)> = Vec::new();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
        for (prefix, params) in [("params", &mut *self.params), ("average", &mut *self.average)] {
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

    /// Takes over the state in `path`, and returns the steps done. With a `config` the checkpoint must be that
    /// configuration's.
    ///
    /// # Errors
    /// When the file is damaged, belongs to another configuration, or does not fit the network.
    pub fn load(&mut self, path: &Path, config: Option<&str>) -> anyhow::Result<u64> {
        let bytes = std::fs::read(path)?;
        let (_, header) = SafeTensors::read_metadata(&bytes)?;
        let metadata = header.metadata().as_ref().context("it has no metadata")?;
        let field = |name: &str| metadata.get(name).with_context(|| format!("it has no field {name:?}"));
        let made_with = field("config")?;
        if config.is_some_and(|config| config != made_with) {
            bail!("it belongs to another configuration; use a new run folder, --reconfigure to go on with the new one, or --fresh to start over");
        }
        let file = SafeTensors::deserialize(&bytes)?;
        let values = |name: &str, len: usize| -> anyhow::Result<Vec<f32>> {
            let tensor = file.tensor(name)?;
            if tensor.dtype() != Dtype::F32 || tensor.data().len() != 4 * len {
                bail!("tensor {name} does not fit the network");
            }
            Ok(tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
        };
        for (prefix, params) in [("params", &mut *self.params), ("average", &mut *self.average)] {
            for (name, target) in params.state() {
                *target = values(&format!("{prefix}/{name}"), target.len())?;
            }
        }
        let mut memory = BTreeMap::new();
        let slots = self.optimizer.rule.slots();
        for trainable in self.params.trainable() {
            let read = |i: usize| values(&format!("moment{i}/{}", trainable.name), trainable.param.value.len());
            memory.insert(trainable.name.clone(), (0..slots).map(read).collect::<anyhow::Result<_>>()?);
        }
        (self.optimizer.memory, self.optimizer.updates) = (memory, field("updates")?.parse()?);
        self.step = field("step")?.parse()?;
        Ok(self.step)
    }
}
