//! A text teacher's soft targets on disk: one safetensors file with its sentences in the metadata.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{ensure, Context};
use half::f16;
use peregrine_core::files::write_atomically;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::Outputs;
use crate::tensor_file::{TensorReader, TensorWriter};

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
pub struct TextSoftTargets {
    pub header: Header,
    /// One per sentence.
    pub outputs: Vec<Outputs>,
}

impl TextSoftTargets {
    /// Writes the file: raw logits in f16.
    ///
    /// # Errors
    /// When the file cannot be written; an older one then stays intact.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        Ok(write_atomically(path, &self.to_bytes()?)?)
    }

    /// The bytes of the file.
    ///
    /// # Errors
    /// When the outputs do not fit the header.
    pub fn to_bytes(&self) -> anyhow::Result<Vec<u8>> {
        let header = &self.header;
        let (n, pieces) = (self.outputs.len(), self.outputs.iter().map(|outputs| outputs.slots.len()).sum());
        let intent = self.outputs.iter().flat_map(|outputs| &outputs.intent);
        let slots = self.outputs.iter().flat_map(|outputs| outputs.slots.iter().flatten());
        let ends = self.outputs.iter().scan(0u32, |end, outputs| {
            *end += outputs.slots.len() as u32;
            Some(*end)
        });
        let mut tensors = TensorWriter::default();
        tensors.push("intent", &[n, header.intents], intent.map(|&logit| f16::from_f32(logit)));
        tensors.push("slots", &[pieces, header.slots + 1], slots.map(|&logit| f16::from_f32(logit)));
        tensors.push("ends", &[n], ends);
        let metadata = HashMap::from([("soft".to_owned(), serde_json::to_string(header)?)]);
        tensors.into_bytes(Some(metadata))
    }

    /// Reads a file that [`TextSoftTargets::write`] wrote.
    ///
    /// # Errors
    /// When the file is missing or damaged.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
        parse(&bytes).with_context(|| format!("{}: invalid soft targets of `distill text soften`", path.display()))
    }
}

/// What [`TextSoftTargets::to_bytes`] made.
///
/// # Errors
/// When the bytes are damaged.
pub fn parse(bytes: &[u8]) -> anyhow::Result<TextSoftTargets> {
    let file = TensorReader::new(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let header = metadata.metadata().as_ref().and_then(|m| m.get("soft")).context("its metadata has no sentences")?;
    let header: Header = serde_json::from_str(header)?;
    let n = header.sentences.len();
    let rows = |name: &str, rows: Option<usize>, columns: usize| -> anyhow::Result<Vec<Vec<f32>>> {
        ensure!(columns > 0, "{name} has no columns");
        let values = file.read::<f16>(name, &[rows, Some(columns)])?.values;
        Ok(values.chunks_exact(columns).map(|row| row.iter().map(|logit| logit.to_f32()).collect()).collect())
    };
    let intent = rows("intent", Some(n), header.intents)?;
    let slots = rows("slots", None, header.slots + 1)?;
    let ends = file.read::<u32>("ends", &[Some(n)])?.values;
    let ends: Vec<usize> = ends.into_iter().map(|end| end as usize).collect();
    ensure!(ends.is_sorted() && ends.last().copied().unwrap_or(0) == slots.len(), "its tensors are inconsistent");
    let mut start = 0;
    let outputs = intent.into_iter().zip(ends).map(|(intent, end)| {
        let slots = slots[std::mem::replace(&mut start, end)..end].to_vec();
        Outputs { intent, slots }
    });
    Ok(TextSoftTargets { outputs: outputs.collect(), header })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets() -> TextSoftTargets {
        let outputs = |x: f32, pieces: usize| Outputs { intent: vec![x, -0.5], slots: vec![vec![0.25, x]; pieces] };
        TextSoftTargets {
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
        assert_eq!(TextSoftTargets::read(&path).unwrap(), targets());
    }

    #[test]
    fn a_truncated_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("soft.safetensors");
        targets().write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 3]).unwrap();
        let error = TextSoftTargets::read(&path).unwrap_err().to_string();
        assert!(error.contains("soft.safetensors"), "{error}");
    }
}
