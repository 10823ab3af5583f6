//! Distillation of a text model: intent classification and slot filling for operator commands
//! ("stop at the next crossing").
//!
//! The losses are those of the images ([`super::loss::soft`]). A teacher is a BERT-like encoder in
//! ONNX with heads fitted on the labelled sentences; the student is a small convolutional network
//! over the same word pieces.
//!
//! - [`corpus`]: sentences on disk; [`pieces`]: tokenization into word pieces.
//! - [`teacher`]: the encoder and its heads; [`soft`]: its soft targets on disk.
//! - [`network`]: the student; `package`: its folder; `parts`: what an interrupted run finished;
//!   [`train`]: training; [`progress`]: checkpoints.
//! - [`causal`]: language models that reply to a command with JSON, their teachers and students.
//! - [`score`]: intent accuracy and slot F1; [`args`], [`command`]: `distill text …`; [`classify`]:
//!   what it does with intents and slots.

pub mod args;
pub mod causal;
pub mod classify;
pub mod command;
pub mod corpus;
pub mod network;
mod package;
mod parts;
pub mod pieces;
pub mod progress;
pub mod score;
pub mod soft;
pub mod teacher;
pub mod train;

use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_core::files::sha256;

/// The bytes of the file at `path` if its hash is the expected one; `owner` completes the error "is
/// not the file that …".
fn read_checked(path: &Path, expected_sha256: &str, owner: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    ensure!(sha256(&bytes) == expected_sha256, "{}: is not the file that {owner}", path.display());
    Ok(bytes)
}

/// A model's outputs for a sentence: raw logits (temperature 1).
#[derive(Debug, Clone, PartialEq)]
pub struct Outputs {
    /// One per intent.
    pub intent: Vec<f32>,
    /// One row per word piece: no slot, then one logit per slot.
    pub slots: Vec<Vec<f32>>,
}
