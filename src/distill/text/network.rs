//! The language student: word-piece embeddings, two residual convolutions of width three, and two
//! heads.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{ensure, Context};
use candle_core::{DType, Device, Result, Tensor, Var};
use peregrine_core::files::sha256;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};

use super::corpus::Sentence;
use super::pieces::{Pieces, Splitter};
use super::{package, Outputs};

const MANIFEST: &str = "manifest.json";
const WEIGHTS: &str = "weights.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const BLOCKS: usize = 2;

/// A student's labels, size and provenance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextStudentManifest {
    pub name: String,
    pub intents: Vec<String>,
    pub slots: Vec<String>,
    pub max_tokens: usize,
    /// Features per word piece.
    pub width: usize,
    /// Token ids of the student's vocabulary, ascending; the embedding's row i + 1 is the i-th, row
    /// 0 all other tokens.
    pub vocabulary: Vec<u32>,
    pub tokenizer_sha256: String,
    /// Set when the package is written.
    pub weights_sha256: String,
    /// SHA-256 of the teacher's encoder and heads; `None` if trained on labels only.
    pub teacher: Option<[String; 2]>,
    pub seed: u64,
}

/// The student's weights and its forward pass.
#[derive(Debug, Clone)]
pub struct TextNetwork {
    pub manifest: TextStudentManifest,
    params: BTreeMap<String, Var>,
}

/// Sentences of a batch, padded to the longest: ids `[batch, pieces]`, and a mask `[batch, pieces,
/// 1]` that is 1 for a piece and 0 for padding.
pub struct TextBatch {
    pub ids: Tensor,
    pub mask: Tensor,
}

impl TextNetwork {
    /// A student with random weights (He et al. 2015 for the layers before a ReLU).
    pub fn random(manifest: TextStudentManifest, chance: &mut ChaCha8Rng) -> Result<Self> {
        let mut params = BTreeMap::new();
        for (name, [rows, columns]) in shapes(&manifest) {
            let scale = match name {
                _ if name.ends_with("bias") => 0.0,
                "embedding" => 0.1,
                _ => (2.0 / rows as f32).sqrt(),
            };
            let normal = Normal::new(0.0, scale).expect("a scale is finite");
            let values: Vec<f32> = (0..rows * columns).map(|_| normal.sample(chance)).collect();
            params.insert(name.to_owned(), Var::from_slice(&values, (rows, columns), &Device::Cpu)?);
        }
        Ok(Self { manifest, params })
    }

    /// All weights by name, for the optimizer.
    pub fn params(&self) -> &BTreeMap<String, Var> {
        &self.params
    }

    /// Number of weights.
    pub fn parameters(&self) -> usize {
        self.params.values().map(|v| v.elem_count()).sum()
    }

    /// The embedding's row of a token id; 0 for one outside of the vocabulary.
    pub fn row(&self, id: u32) -> u32 {
        self.manifest.vocabulary.binary_search(&id).map_or(0, |i| i as u32 + 1)
    }

    /// Pads sentences (rows of the embedding) to a batch.
    pub fn batch(sentences: &[Vec<u32>]) -> Result<TextBatch> {
        let longest = sentences.iter().map(Vec::len).max().unwrap_or(0);
        let padded = |value: &dyn Fn(&[u32], usize) -> f32| {
            let values: Vec<f32> = sentences.iter().flat_map(|s| (0..longest).map(|i| value(s, i))).collect();
            Tensor::from_vec(values, (sentences.len(), longest), &Device::Cpu)
        };
        let ids = padded(&|s, i| s.get(i).map_or(0.0, |&row| row as f32))?.to_dtype(DType::U32)?;
        let mask = padded(&|s, i| if i < s.len() { 1.0 } else { 0.0 })?.unsqueeze(2)?;
        Ok(TextBatch { ids, mask })
    }

    /// Logits of the intents `[batch, intents]` and of the slots `[batch · pieces, slots + 1]`.
    pub fn forward(&self, batch: &TextBatch) -> Result<(Tensor, Tensor)> {
        let (sentences, pieces) = batch.ids.dims2()?;
        let width = self.manifest.width;
        let rows = self.params["embedding"].index_select(&batch.ids.flatten_all()?, 0)?;
        let mut x = rows.reshape((sentences, pieces, width))?.broadcast_mul(&batch.mask)?;
        for convolution in CONVOLUTIONS {
            // A convolution of width three as one matrix product: each piece with its two
            // neighbours.
            let zero = Tensor::zeros((sentences, 1, width), DType::F32, &Device::Cpu)?;
            let before = Tensor::cat(&[&zero, &x.narrow(1, 0, pieces - 1)?], 1)?;
            let after = Tensor::cat(&[&x.narrow(1, 1, pieces - 1)?, &zero], 1)?;
            let window = Tensor::cat(&[&before, &x, &after], 2)?.reshape((sentences * pieces, 3 * width))?;
            let y = self.linear(&window, convolution)?.relu()?.reshape((sentences, pieces, width))?;
            x = (x + y)?.broadcast_mul(&batch.mask)?;
        }
        let slots = self.linear(&x.reshape((sentences * pieces, width))?, ["slots.weight", "slots.bias"])?;
        let mean = x.sum(1)?.broadcast_div(&batch.mask.sum(1)?)?;
        let padding = ((&batch.mask - 1.0)? * 1e9)?;
        let most = x.broadcast_add(&padding)?.max(1)?;
        let intent = self.linear(&Tensor::cat(&[mean, most], 1)?, ["intent.weight", "intent.bias"])?;
        Ok((intent, slots))
    }

    fn linear(&self, x: &Tensor, [weight, bias]: [&str; 2]) -> Result<Tensor> {
        x.matmul(&self.params[weight])?.broadcast_add(&self.params[bias])
    }

    /// Runs the student on one sentence.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn infer_pieces(&self, pieces: &Pieces) -> Result<Outputs> {
        let rows = pieces.ids.iter().map(|&id| self.row(id)).collect();
        let (intent, slots) = self.forward(&Self::batch(&[rows])?)?;
        Ok(Outputs { intent: intent.flatten_all()?.to_vec1()?, slots: slots.to_vec2()? })
    }

    /// Writes the package.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path, tokenizer: &[u8]) -> anyhow::Result<()> {
        let weights = safetensors::serialize(self.params.iter().map(|(name, var)| (name, var.as_tensor())), None)?;
        let manifest = TextStudentManifest { weights_sha256: sha256(&weights), ..self.manifest.clone() };
        let manifest = serde_json::to_vec_pretty(&manifest)?;
        package::write(folder, (MANIFEST, &manifest), &[(WEIGHTS, &weights), (TOKENIZER, tokenizer)])
    }

    /// Reads a package, with the tokenizer in it.
    ///
    /// # Errors
    /// When a file is missing, damaged, or does not fit the manifest.
    pub fn load(folder: &Path) -> anyhow::Result<(Self, Splitter)> {
        let path = folder.join(MANIFEST);
        let text = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let manifest: TextStudentManifest = serde_json::from_slice(&text)
            .with_context(|| format!("{}: invalid manifest of a text student", path.display()))?;
        ensure!(
            manifest.vocabulary.is_sorted() && (1..=4096).contains(&manifest.width) && !manifest.intents.is_empty(),
            "{}: invalid vocabulary, width or intents",
            path.display()
        );
        let (_, tokenizer) = package::read(folder, TOKENIZER, &manifest.tokenizer_sha256)?;
        let (weights, _) = package::read(folder, WEIGHTS, &manifest.weights_sha256)?;
        let weights = candle_core::safetensors::load_buffer(&weights, &Device::Cpu)?;
        let mut params = BTreeMap::new();
        for (name, shape) in shapes(&manifest) {
            let tensor = weights.get(name).with_context(|| format!("{WEIGHTS}: has no {name}"))?;
            ensure!(tensor.dims() == shape, "{WEIGHTS}: {name} is {:?} instead of {shape:?}", tensor.dims());
            params.insert(name.to_owned(), Var::from_tensor(&tensor.to_dtype(DType::F32)?)?);
        }
        let splitter = Splitter::open(&tokenizer, manifest.max_tokens)?;
        Ok((Self { manifest, params }, splitter))
    }

    /// Tokenizes a sentence and runs the student on it.
    ///
    /// # Errors
    /// When it cannot be tokenized.
    pub fn infer(&self, splitter: &Splitter, sentence: &Sentence) -> anyhow::Result<(Pieces, Outputs)> {
        let pieces = splitter.split(sentence)?;
        let outputs = self.infer_pieces(&pieces)?;
        Ok((pieces, outputs))
    }
}

const CONVOLUTIONS: [[&str; 2]; BLOCKS] =
    [["convolution0.weight", "convolution0.bias"], ["convolution1.weight", "convolution1.bias"]];

fn shapes(manifest: &TextStudentManifest) -> Vec<(&'static str, [usize; 2])> {
    let (width, intents, slots) = (manifest.width, manifest.intents.len(), manifest.slots.len() + 1);
    let mut shapes = vec![("embedding", [manifest.vocabulary.len() + 1, width])];
    for [weight, bias] in CONVOLUTIONS {
        shapes.extend([(weight, [3 * width, width]), (bias, [1, width])]);
    }
    shapes.extend([("slots.weight", [width, slots]), ("slots.bias", [1, slots])]);
    shapes.extend([("intent.weight", [2 * width, intents]), ("intent.bias", [1, intents])]);
    shapes
}

#[cfg(test)]
mod tests {
    use super::super::pieces::tests::tokenizer;
    use super::*;
    use rand::SeedableRng;

    pub fn network() -> TextNetwork {
        let manifest = TextStudentManifest {
            name: "test".into(),
            intents: vec!["stop".into(), "go".into()],
            slots: vec!["place".into()],
            max_tokens: 8,
            width: 4,
            vocabulary: vec![1, 2, 3, 5],
            tokenizer_sha256: String::new(),
            weights_sha256: String::new(),
            teacher: None,
            seed: 1,
        };
        TextNetwork::random(manifest, &mut ChaCha8Rng::seed_from_u64(1)).unwrap()
    }

    #[test]
    fn padding_does_not_change_a_sentences_outputs() {
        let network = network();
        let (alone, slots_alone) = network.forward(&TextNetwork::batch(&[vec![1, 3, 2]]).unwrap()).unwrap();
        let batch = TextNetwork::batch(&[vec![1, 3, 2], vec![1, 4, 4, 3, 2]]).unwrap();
        let (both, slots_both) = network.forward(&batch).unwrap();
        let close = |a: Tensor, b: Tensor| {
            let difference = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(difference < 1e-6, "{difference}");
        };
        close(alone, both.narrow(0, 0, 1).unwrap());
        close(slots_alone, slots_both.narrow(0, 0, 3).unwrap());
    }

    #[test]
    fn a_package_survives_an_interrupted_save_a_damaged_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut network = network();
        let tokenizer = std::fs::read(tokenizer(folder.path(), &["stop", "now"])).unwrap();
        network.manifest.tokenizer_sha256 = sha256(&tokenizer);
        let package = folder.path().join("student");
        network.save(&package, &tokenizer).unwrap();
        let sentence = Sentence { text: "stop now".into(), intent: None, slots: vec![] };
        let (loaded, splitter) = TextNetwork::load(&package).unwrap();
        let (pieces, outputs) = loaded.infer(&splitter, &sentence).unwrap();
        assert_eq!(outputs, network.infer_pieces(&pieces).unwrap());

        // Killed after writing the manifest: its files still have the other names.
        for file in [WEIGHTS, TOKENIZER] {
            std::fs::rename(package.join(file), package.join(format!("next-{file}"))).unwrap();
            std::fs::write(package.join(file), b"of the package before").unwrap();
        }
        assert_eq!(TextNetwork::load(&package).unwrap().0.infer_pieces(&pieces).unwrap(), outputs);
        network.save(&package, &tokenizer).unwrap();
        // Killed before writing the manifest: the new files are ignored.
        for file in [WEIGHTS, TOKENIZER] {
            std::fs::write(package.join(format!("next-{file}")), b"of the package to come").unwrap();
        }
        assert_eq!(TextNetwork::load(&package).unwrap().0.infer_pieces(&pieces).unwrap(), outputs);

        std::fs::write(package.join(WEIGHTS), b"not these").unwrap();
        let error = TextNetwork::load(&package).err().expect("must be refused").to_string();
        assert!(error.contains(WEIGHTS), "{error}");
    }
}
