//! The folder of a language model: `language-model.json` with the tokenizer beside it, and either
//! the weights of a network trained here, or where the ONNX file of another one is.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use candle_core::Device;
use peregrine_core::files::sha256;
use serde::{Deserialize, Serialize};

use super::super::package;
use super::cached::CachedNetwork;
use super::gpt2::Gpt2;
use super::network::{CausalNetwork, NetworkSize};
use super::tokens::Tokens;
use super::LanguageModel;
use crate::teacher::{external, Runtime};

/// The manifest's file.
pub const MANIFEST: &str = "language-model.json";
const WEIGHTS: &str = "weights.safetensors";
const TOKENIZER: &str = "tokenizer.json";

/// What a language model is, and where it comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelManifest {
    /// Of the corpus.
    pub name: String,
    /// Longest command with its reply, in tokens.
    pub max_tokens: usize,
    pub tokenizer_sha256: String,
    pub network: Source,
}

/// Where a model's network is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// Trained here.
    Weights {
        size: NetworkSize,
        /// Set when the package is written.
        weights_sha256: String,
        /// [`identity`](ModelManifest::identity) of the teacher; `None` if trained on labels only.
        teacher: Option<String>,
        seed: u64,
    },
    /// An ONNX file, with the files that it loads.
    Onnx { path: PathBuf, sha256: String, vocabulary: usize, positions: usize },
}

impl ModelManifest {
    /// The hash of what determines the model's outputs.
    pub fn identity(&self) -> String {
        let network = match &self.network {
            Source::Weights { weights_sha256, .. } => weights_sha256,
            Source::Onnx { sha256, .. } => sha256,
        };
        sha256(format!("{network} {} {}", self.tokenizer_sha256, self.max_tokens).as_bytes())
    }
}

/// A model that was opened.
pub struct OpenedModel {
    pub manifest: ModelManifest,
    pub tokens: Tokens,
    pub model: Box<dyn LanguageModel>,
    /// Number of weights; `None` if they are not ours.
    pub parameters: Option<usize>,
}

/// Writes the package of a network trained here.
///
/// # Errors
/// When a file cannot be written.
pub fn save(folder: &Path, network: &CausalNetwork, manifest: &ModelManifest, tokens: &Tokens) -> anyhow::Result<()> {
    let weights = safetensors::serialize(network.params().iter().map(|(name, var)| (name, var.as_tensor())), None)?;
    let mut manifest = manifest.clone();
    if let Source::Weights { weights_sha256, .. } = &mut manifest.network {
        *weights_sha256 = sha256(&weights);
    }
    let manifest = serde_json::to_vec_pretty(&manifest)?;
    package::write(folder, (MANIFEST, &manifest), &[(WEIGHTS, &weights), (TOKENIZER, &tokens.bytes)])
}

/// Writes the package of a network that is an ONNX file: it stays where it is.
///
/// # Errors
/// When the network does not fit the tokenizer or ends before `max_tokens`, or a file cannot be
/// written.
pub fn save_onnx(
    folder: &Path,
    name: &str,
    max_tokens: usize,
    path: &Path,
    (tokens, runtime): (&Tokens, &Runtime),
) -> anyhow::Result<()> {
    let mut network = Gpt2::open(runtime, path, 2)?;
    let positions = network.probe(max_tokens, tokens.vocabulary())?;
    let at = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(at)?;
    let source = Source::Onnx {
        path: path.canonicalize().with_context(at)?,
        sha256: external::hash(path, &bytes).with_context(at)?,
        vocabulary: network.vocabulary(),
        positions,
    };
    let manifest =
        ModelManifest { name: name.to_owned(), max_tokens, tokenizer_sha256: tokens.sha256(), network: source };
    package::write(folder, (MANIFEST, &serde_json::to_vec_pretty(&manifest)?), &[(TOKENIZER, &tokens.bytes)])
}

/// Reads a package's manifest and its tokenizer.
///
/// # Errors
/// When a file is missing or damaged.
pub fn manifest(folder: &Path) -> anyhow::Result<(ModelManifest, Tokens)> {
    let path = folder.join(MANIFEST);
    let text = std::fs::read(&path)
        .with_context(|| format!("{}: no language model here; `distill text teacher` makes one", path.display()))?;
    let manifest: ModelManifest = serde_json::from_slice(&text)
        .with_context(|| format!("{}: invalid manifest of a language model", path.display()))?;
    let (bytes, tokenizer) = package::read(folder, TOKENIZER, &manifest.tokenizer_sha256)?;
    Ok((manifest, Tokens::of(bytes, &tokenizer)?))
}

/// Reads the package of a network trained here.
///
/// # Errors
/// When a file is missing, damaged, or does not fit the manifest.
pub fn load(folder: &Path) -> anyhow::Result<(CausalNetwork, ModelManifest, Tokens)> {
    let (manifest, tokens) = manifest(folder)?;
    let path = folder.join(MANIFEST);
    let Source::Weights { size, weights_sha256, .. } = &manifest.network else {
        anyhow::bail!("{}: its network is an ONNX file, which has no weights here", path.display());
    };
    size.check().with_context(|| path.display().to_string())?;
    ensure!(
        size.vocabulary == tokens.vocabulary(),
        "{}: its network knows {} tokens, but {TOKENIZER} has {}; the two are not of one model",
        path.display(),
        size.vocabulary,
        tokens.vocabulary()
    );
    let (bytes, at) = package::read(folder, WEIGHTS, weights_sha256)?;
    let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu);
    let network = tensors.map_err(anyhow::Error::from).and_then(|t| CausalNetwork::from_tensors(*size, &t));
    Ok((network.with_context(|| at.display().to_string())?, manifest, tokens))
}

/// Opens a model of either kind. `runtime` opens ONNX Runtime where it is needed.
///
/// # Errors
/// When a file is missing, damaged, or has changed since.
pub fn open(
    folder: &Path,
    runtime: impl FnOnce() -> anyhow::Result<Runtime>,
    threads: usize,
) -> anyhow::Result<OpenedModel> {
    let (manifest, tokens) = manifest(folder)?;
    let Source::Onnx { path, sha256, vocabulary, positions } = &manifest.network else {
        let (network, manifest, tokens) = load(folder)?;
        let parameters = Some(network.parameters());
        return Ok(OpenedModel { manifest, tokens, model: Box::new(CachedNetwork::new(network)), parameters });
    };
    let at = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(at)?;
    ensure!(
        external::hash(path, &bytes).with_context(at)? == *sha256,
        "{}: it or a file that it loads has changed; run `distill text teacher` again",
        path.display()
    );
    let model = Gpt2::open(&runtime()?, path, threads)?.with_size(*vocabulary, *positions);
    Ok(OpenedModel { manifest, tokens, model: Box::new(model), parameters: None })
}
