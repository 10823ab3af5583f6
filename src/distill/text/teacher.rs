//! A BERT-like encoder run by ONNX Runtime, with two linear heads fitted on the labelled sentences.
//!
//! The encoder is frozen: fine-tuning it on a hundred sentences would overfit, and its features are
//! computed only once per sentence.

use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use candle_core::{Device, Tensor, Var};
use candle_nn::{loss::cross_entropy, AdamW, Optimizer, ParamsAdamW};
use ort::session::Session;
use ort::value::Tensor as OrtTensor;
use peregrine_core::files::{sha256, write_atomically};
use serde::{Deserialize, Serialize};

use super::corpus::{Corpus, Sentence};
use super::parts::Parts;
use super::pieces::{Pieces, Splitter};
use super::{read_checked, Outputs};
use crate::lock::lock;
use crate::teacher::Runtime;
use crate::tensor_file::{TensorReader, TensorWriter};

const MANIFEST: &str = "teacher.json";
const HEADS: &str = "heads.safetensors";
/// In the teacher's folder while it is fitted: the features so far.
const PARTS: &str = "parts";
/// Sentences whose features are computed before they are written.
const PART: usize = 16;
const FIT_STEPS: usize = 400;
/// L2 penalty of the heads. With it and the neighbours as features, the slot F1 on the shipped
/// corpus is 0.64; without neighbours 0.47.
const SHRINKAGE: f64 = 0.01;

/// `teacher.json` in a fitted teacher's folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TextTeacherManifest {
    pub encoder: PathBuf,
    pub encoder_sha256: String,
    pub tokenizer: PathBuf,
    pub tokenizer_sha256: String,
    pub heads_sha256: String,
    pub intents: Vec<String>,
    pub slots: Vec<String>,
    pub max_tokens: usize,
}

/// The encoder alone.
struct Encoder(Session);

impl Encoder {
    fn open(runtime: &Runtime, path: &Path, threads: usize) -> anyhow::Result<Self> {
        let session = runtime.session(path, threads)?;
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            let has = session.inputs().iter().any(|input| input.name() == name);
            ensure!(
                has,
                "{}: has no input {name:?}, so that it is not a BERT encoder (models/commands/export_bert.py makes one)",
                path.display()
            );
        }
        Ok(Self(session))
    }

    /// The last hidden state, one row per piece.
    fn features(&mut self, ids: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
        let row = |value: &dyn Fn(u32) -> i64| {
            OrtTensor::from_array(([1, ids.len()], ids.iter().map(|&id| value(id)).collect::<Vec<_>>()))
        };
        let (pieces, ones, zeros) = (row(&i64::from)?, row(&|_| 1)?, row(&|_| 0)?);
        let inputs = ort::inputs!["input_ids" => pieces, "attention_mask" => ones, "token_type_ids" => zeros];
        let outputs = self.0.run(inputs)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>()?;
        ensure!(
            shape.len() == 3 && shape[0] == 1 && shape[1] == ids.len() as i64 && shape[2] > 0,
            "the encoder's output is {shape:?} instead of [1, {}, hidden]",
            ids.len()
        );
        Ok(values.chunks_exact(shape[2] as usize).map(<[f32]>::to_vec).collect())
    }
}

/// A fitted teacher.
pub struct Teacher {
    pub manifest: TextTeacherManifest,
    pub splitter: Splitter,
    encoder: Encoder,
    /// `[classes][hidden + 1]`, the bias last; over a sentence's mean.
    intent: Vec<Vec<f32>>,
    /// `[classes][3 · hidden + 1]`; over [`windows`].
    slots: Vec<Vec<f32>>,
}

impl Teacher {
    /// Fits the heads on the corpus' labelled sentences and writes the teacher's folder.
    /// Interrupted, it goes on with the sentences whose features it does not have yet.
    ///
    /// # Errors
    /// When a file cannot be read or written, or is invalid.
    pub fn fit(corpus: &Corpus, encoder: &Path, tokenizer: &Path, runtime: &Runtime, out: &Path) -> anyhow::Result<()> {
        let splitter = Splitter::open(tokenizer, corpus.config.max_tokens)?;
        let mut network = Encoder::open(runtime, encoder, 2)?;
        let hash = |path: &Path| -> anyhow::Result<String> { Ok(sha256(&std::fs::read(path)?)) };
        let (encoder_sha256, tokenizer_sha256) = (hash(encoder)?, hash(tokenizer)?);
        let parts = out.join(PARTS);
        std::fs::create_dir_all(&parts).with_context(|| parts.display().to_string())?;
        let _lock = lock(out, "another fit")?;
        let (mut sentences, mut pieces) = (Examples::default(), Examples::default());
        for some in corpus.train.chunks(PART) {
            let splits = some.iter().map(|sentence| splitter.split(sentence)).collect::<anyhow::Result<Vec<_>>>()?;
            let ids: Vec<&[u32]> = splits.iter().map(|split| split.ids.as_slice()).collect();
            let make = || features_to_bytes(&mut network, &ids);
            let inputs = format!("{encoder_sha256} {ids:?}");
            let features = Parts(&parts).part(&inputs, |bytes| features_of_bytes(bytes, &ids), make)?.value;
            for ((sentence, split), features) in some.iter().zip(&splits).zip(features) {
                sentences.push(&mean(&features), sentence.intent.context("a training sentence has no intent")?);
                windows(&features).iter().zip(&split.labels).for_each(|(f, &label)| pieces.push(f, label));
            }
        }
        let intent = sentences.fit(corpus.config.intents.len())?;
        let slots = pieces.fit(corpus.config.slots.len() + 1)?;
        let heads = safetensors::serialize([("intent", &intent), ("slots", &slots)], None)?;
        write_atomically(&out.join(HEADS), &heads)?;
        let manifest = TextTeacherManifest {
            encoder: encoder.canonicalize()?,
            encoder_sha256,
            tokenizer: tokenizer.canonicalize()?,
            tokenizer_sha256,
            heads_sha256: sha256(&heads),
            intents: corpus.config.intents.clone(),
            slots: corpus.config.slots.clone(),
            max_tokens: corpus.config.max_tokens,
        };
        write_atomically(&out.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        // The teacher is complete, so that the features are no longer needed.
        std::fs::remove_dir_all(&parts).with_context(|| parts.display().to_string())
    }

    /// Opens a folder that [`Teacher::fit`] wrote.
    ///
    /// # Errors
    /// When a file is missing, or has changed since.
    pub fn open(folder: &Path, runtime: &Runtime, threads: usize) -> anyhow::Result<Self> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path)
            .with_context(|| format!("{}: no such teacher; `distill text teacher` makes one", path.display()))?;
        let manifest: TextTeacherManifest =
            serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let checked = |path: &Path, expected: &str| read_checked(path, expected, "the teacher was fitted with");
        checked(&manifest.encoder, &manifest.encoder_sha256)?;
        checked(&manifest.tokenizer, &manifest.tokenizer_sha256)?;
        let heads_path = folder.join(HEADS);
        let heads =
            candle_core::safetensors::load_buffer(&checked(&heads_path, &manifest.heads_sha256)?, &Device::Cpu)?;
        let head = |name: &str, classes: usize| -> anyhow::Result<Vec<Vec<f32>>> {
            let rows =
                heads.get(name).with_context(|| format!("{}: has no {name}", heads_path.display()))?.to_vec2()?;
            ensure!(rows.len() == classes, "{}: {name} is for {} classes", heads_path.display(), rows.len());
            Ok(rows)
        };
        Ok(Self {
            splitter: Splitter::open(&manifest.tokenizer, manifest.max_tokens)?,
            encoder: Encoder::open(runtime, &manifest.encoder, threads)?,
            intent: head("intent", manifest.intents.len())?,
            slots: head("slots", manifest.slots.len() + 1)?,
            manifest,
        })
    }

    /// Tokenizes a sentence and runs the teacher on it.
    ///
    /// # Errors
    /// When the encoder fails or its width does not fit the heads.
    pub fn infer(&mut self, sentence: &Sentence) -> anyhow::Result<(Pieces, Outputs)> {
        let pieces = self.splitter.split(sentence)?;
        let features = self.encoder.features(&pieces.ids)?;
        let (widths, hidden) = ([self.intent[0].len(), self.slots[0].len()], features[0].len());
        ensure!(widths == [hidden + 1, 3 * hidden + 1], "the heads were fitted for another encoder; fit them again");
        let slots = windows(&features).iter().map(|f| apply(&self.slots, f)).collect();
        Ok((pieces, Outputs { intent: apply(&self.intent, &mean(&features)), slots }))
    }
}

/// The encoder's features of some sentences, as bytes.
fn features_to_bytes(network: &mut Encoder, sentences: &[&[u32]]) -> anyhow::Result<Vec<u8>> {
    let rows = sentences.iter().map(|ids| network.features(ids)).collect::<anyhow::Result<Vec<_>>>()?.concat();
    let mut tensors = TensorWriter::default();
    tensors.push("features", &[rows.len(), rows.first().map_or(0, Vec::len)], rows.concat());
    tensors.into_bytes(None)
}

/// What [`features_to_bytes`] made: for each sentence a row for each of its pieces.
fn features_of_bytes(bytes: &[u8], sentences: &[&[u32]]) -> anyhow::Result<Vec<Vec<Vec<f32>>>> {
    let pieces = sentences.iter().map(|ids| ids.len()).sum();
    let tensor = TensorReader::new(bytes)?.read::<f32>("features", &[Some(pieces), None])?;
    ensure!(tensor.shape[1] > 0, "the features have no values");
    let mut rows = tensor.values.chunks_exact(tensor.shape[1]).map(<[f32]>::to_vec);
    Ok(sentences.iter().map(|ids| rows.by_ref().take(ids.len()).collect()).collect())
}

fn apply(head: &[Vec<f32>], features: &[f32]) -> Vec<f32> {
    let row = |weights: &Vec<f32>| {
        let (weights, bias) = weights.split_at(features.len());
        weights.iter().zip(features).map(|(w, f)| w * f).sum::<f32>() + bias[0]
    };
    head.iter().map(row).collect()
}

/// Each piece's features with those of the previous and of the next one (zero at the ends).
fn windows(rows: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let zero = vec![0.0; rows[0].len()];
    let at = |i: usize| rows.get(i).unwrap_or(&zero).as_slice();
    (0..rows.len()).map(|i| [at(i), at(i.wrapping_sub(1)), at(i + 1)].concat()).collect()
}

fn mean(rows: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = vec![0.0; rows[0].len()];
    for row in rows {
        mean.iter_mut().zip(row).for_each(|(m, v)| *m += v / rows.len() as f32);
    }
    mean
}

/// Features with their classes, for a linear head.
#[derive(Default)]
struct Examples {
    features: Vec<f32>,
    classes: Vec<u32>,
}

impl Examples {
    fn push(&mut self, features: &[f32], class: usize) {
        self.features.extend_from_slice(features);
        self.features.push(1.0);
        self.classes.push(class as u32);
    }

    /// Multinomial logistic regression with an L2 penalty, initialised with zero, hence
    /// deterministic. `[classes, features + 1]`.
    fn fit(&self, classes: usize) -> anyhow::Result<Tensor> {
        let device = &Device::Cpu;
        let rows = self.classes.len();
        let features = Tensor::from_slice(&self.features, (rows, self.features.len() / rows), device)?;
        let targets = Tensor::from_slice(&self.classes, rows, device)?;
        let weights = Var::zeros((classes, features.dim(1)?), candle_core::DType::F32, device)?;
        let params = ParamsAdamW { lr: 0.02, weight_decay: 0.0, ..Default::default() };
        let mut optimizer = AdamW::new(vec![weights.clone()], params)?;
        for _ in 0..FIT_STEPS {
            let fit = cross_entropy(&features.matmul(&weights.t()?)?, &targets)?;
            let shrinkage = (weights.sqr()?.sum_all()? * (0.5 * SHRINKAGE))?;
            optimizer.backward_step(&(fit + shrinkage)?)?;
        }
        Ok(weights.as_tensor().clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_separates_linearly_separable_classes() {
        let mut examples = Examples::default();
        let points = [([2.0, 0.1], 0), ([1.5, -0.3], 0), ([-1.0, 2.0], 1), ([-0.8, 1.7], 1), ([-1.0, -2.0], 2)];
        points.iter().for_each(|(features, class)| examples.push(features, *class));
        let head: Vec<Vec<f32>> = examples.fit(3).unwrap().to_vec2().unwrap();
        for (features, class) in points {
            let logits = apply(&head, &features);
            assert!((0..3).all(|c| logits[c] <= logits[class]), "{logits:?} for {class}");
        }
    }
}
