//! The same distillation for language: operator commands ("stop at the next crossing") to intents and slots.
//!
//! The losses are those of the images ([`super::loss::soft`]); what differs is what is looked at. A teacher is a BERT-like
//! encoder in ONNX with heads fitted on the labelled sentences; the student is a small convolutional network over the
//! same word pieces.
//!
//! - [`corpus`]: sentences on disk; [`pieces`]: their word pieces.
//! - [`teacher`]: the encoder and its heads; [`soft`]: its soft targets on disk.
//! - [`network`]: the student, and its package; [`train`]: how it learns; [`progress`]: what outlives a killed run.
//! - [`score`]: intent accuracy and slot F1; [`command`]: `distill text …`.

pub mod command;
pub mod corpus;
pub mod network;
pub mod pieces;
pub mod progress;
pub mod score;
pub mod soft;
pub mod teacher;
pub mod train;

use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_core::files::sha256;

/// The bytes of the file at `path`, if they have the hash that somebody keeps; `owner` ends "is not the file that …".
fn read_checked(path: &Path, expected_sha256: &str, owner: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    ensure!(sha256(&bytes) == expected_sha256, "{}: is not the file that {owner}", path.display());
    Ok(bytes)
}

/// What a model says of a sentence: temperature-free logits.
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// One an intent.
    pub intent: Vec<f32>,
    /// A row a word piece: no slot, then one a slot.
    pub slots: Vec<Vec<f32>>,
}
