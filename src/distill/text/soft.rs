//! A text teacher's soft targets on disk: one safetensors file with its sentences in the metadata.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{ensure, Context};
use half::f16;
use peregrine_core::files::write_atomically;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::Outputs;

/// The file's metadata under the key `soft`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// SHA-256 of the teacher's encoder and heads.
    pub teacher: [String; 2],
    /// SHA-256 of the teacher's tokenizer, which the student must use too.
    pub tokenizer_sha256: String,
    pub intents: usize,
    pub slots: usize,
    pub sentences: Vec<String>,
}

/// Soft targets in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftTargets {
    pub header: Header,
    /// One per sentence.
    pub outputs: Vec<Outputs>,
}

impl SoftTargets {
    /// Writes the file: raw logits in f16.
    ///
    /// # Errors
    /// When the file cannot be written; an older one then stays intact.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let halves = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
            values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect()
        };
        let intent = halves(&mut self.outputs.iter().flat_map(|o| o.intent.iter().copied()));
        let slots = halves(&mut self.outputs.iter().flat_map(|o| o.slots.iter().flatten().copied()));
        let mut end = 0u32;
        let mut ends = Vec::new();
        for outputs in &self.outputs {
            end += outputs.slots.len() as u32;
            ends.extend(end.to_le_bytes());
        }
        let n = self.outputs.len();
        let tensors = [
            ("intent", TensorView::new(Dtype::F16, vec![n, self.header.intents], &intent)?),
            ("slots", TensorView::new(Dtype::F16, vec![end as usize, self.header.slots + 1], &slots)?),
            ("ends", TensorView::new(Dtype::U32, vec![n], &ends)?),
        ];
        let metadata = HashMap::from([("soft".to_owned(), serde_json::to_string(&self.header)?)]);
        Ok(write_atomically(path, &safetensors::serialize(tensors, Some(metadata))?)?)
    }

    /// Reads a file that [`SoftTargets::write`] wrote.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        parse(&bytes).with_context(|| format!("{}: invalid soft targets of `distill text soften`", path.display()))
    }
}

fn parse(bytes: &[u8]) -> anyhow::Result<SoftTargets> {
    let file = SafeTensors::deserialize(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get("soft")).context("its metadata has no sentences")?;
    let header: Header = serde_json::from_str(header)?;
    let n = header.sentences.len();
    let halves = |name: &str, columns: usize| -> anyhow::Result<Vec<Vec<f32>>> {
        let tensor = file.tensor(name)?;
        ensure!(
            tensor.dtype() == Dtype::F16 && tensor.shape().len() == 2 && tensor.shape()[1] == columns && columns > 0,
            "{name} is {:?} {:?}",
            tensor.dtype(),
            tensor.shape()
        );
        let values: Vec<f32> =
            tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
        Ok(values.chunks_exact(columns).map(<[f32]>::to_vec).collect())
    };
    let intent = halves("intent", header.intents)?;
    let slots = halves("slots", header.slots + 1)?;
    let ends = file.tensor("ends")?;
    let ends: Vec<usize> =
        ends.data().chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize).collect();
    ensure!(
        intent.len() == n && ends.len() == n && ends.is_sorted() && ends.last().copied().unwrap_or(0) == slots.len(),
        "its tensors are inconsistent"
    );
    let mut start = 0;
    let outputs = intent.into_iter().zip(ends).map(|(intent, end)| {
        let slots = slots[std::mem::replace(&mut start, end)..end].to_vec();
        Outputs { intent, slots }
    });
    Ok(SoftTargets { outputs: outputs.collect(), header })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> SoftTargets {
        let outputs = |x: f32, pieces: usize| Outputs { intent: vec![x, -0.5], slots: vec![vec![0.25, x]; pieces] };
        SoftTargets {
            header: Header {
                teacher: ["a".into(), "b".into()],
                tokenizer_sha256: "c".into(),
                intents: 2,
                slots: 1,
                sentences: vec!["stop".into(), "go on".into()],
            },
            outputs: vec![outputs(1.0, 3), outputs(-2.0, 4)],
        }
    }

    #[test]
    fn soft_targets_survive_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("soft.safetensors");
        targets().write(&path).unwrap();
        assert_eq!(SoftTargets::read(&path).unwrap(), targets());
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("soft.safetensors");
        targets().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let error = SoftTargets::read(&path).unwrap_err().to_string();
        assert!(error.contains("soft.safetensors"), "{error}");
    }
}
