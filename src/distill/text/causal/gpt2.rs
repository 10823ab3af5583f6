//! A causal network in ONNX, with the inputs and the output of GPT-2's exports: `input_ids`, and
//! where it has them `attention_mask` and `position_ids`, all `[batch, positions]` of i64; `logits`
//! `[batch, positions, vocabulary]`.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use half::f16;
use ort::session::{Session, SessionInputValue};
use ort::value::{DynValue, Tensor as OrtTensor, TensorElementType, ValueType};

use super::LanguageModel;
use crate::teacher::Runtime;

const IDS: &str = "input_ids";
const MASK: &str = "attention_mask";
const POSITIONS: &str = "position_ids";
const LOGITS: &str = "logits";
/// Tokens of the first trial: few enough for any network.
const FEW: usize = 2;

/// A network of GPT-2's layout, run by ONNX Runtime.
///
/// It keeps no keys and values: each token of a reply costs a pass over the whole text.
pub struct Gpt2 {
    path: PathBuf,
    session: Session,
    vocabulary: usize,
    positions: usize,
    /// Those that are being continued; all of one length.
    texts: Vec<Vec<u32>>,
}

impl Gpt2 {
    /// Loads the ONNX file at `path`.
    ///
    /// # Errors
    /// When the file is not a network, or has not these inputs and this output.
    pub fn open(runtime: &Runtime, path: &Path, threads: usize) -> anyhow::Result<Self> {
        let session = runtime.session(path, threads)?;
        let at = path.display();
        for input in session.inputs() {
            let name = input.name();
            ensure!(
                [IDS, MASK, POSITIONS].contains(&name),
                "{at}: wants the input {name:?}; a teacher needs a network exported without past keys and values \
                 (use_cache=False), with input_ids and at most attention_mask and position_ids"
            );
            ensure!(
                matches!(input.dtype(), ValueType::Tensor { ty: TensorElementType::Int64, .. }),
                "{at}: its input {name:?} is {}, not a tensor of 64-bit integers",
                input.dtype()
            );
        }
        ensure!(
            session.inputs().iter().any(|input| input.name() == IDS),
            "{at}: has no input {IDS:?}, so that it is not a network of GPT-2's layout"
        );
        let outputs = session.outputs();
        let names: Vec<&str> = outputs.iter().map(|output| output.name()).collect();
        ensure!(
            names.contains(&LOGITS),
            "{at}: has no output {LOGITS:?} but {}; export the network with its head for language modelling",
            names.join(", ")
        );
        Ok(Self { path: path.to_owned(), session, vocabulary: 0, positions: usize::MAX, texts: Vec::new() })
    }

    /// With what an earlier [`probe`](Self::probe) found.
    #[must_use]
    pub fn with_size(self, vocabulary: usize, positions: usize) -> Self {
        Self { vocabulary, positions, ..self }
    }

    /// Finds by trial how many tokens it knows, and whether it takes texts of `longest` tokens; it
    /// gives the longest text that was tried.
    ///
    /// # Errors
    /// When it does not know `tokens` tokens, or its positions end before `longest`.
    pub fn probe(&mut self, longest: usize, tokens: usize) -> anyhow::Result<usize> {
        let text = |length: usize| vec![vec![0u32; length]];
        self.vocabulary = self.run(&text(FEW))?.1;
        ensure!(
            self.vocabulary == tokens,
            "{}: gives logits for {} tokens, but the tokenizer has {tokens}; give the tokenizer.json that the network was \
             trained with (--tokenizer)",
            self.path.display(),
            self.vocabulary
        );
        let Err(error) = self.run(&text(longest)) else {
            self.positions = longest;
            return Ok(longest);
        };
        let (mut fits, mut fails) = (FEW, longest);
        while fails - fits > 1 {
            let length = (fits + fails) / 2;
            *(if self.run(&text(length)).is_ok() { &mut fits } else { &mut fails }) = length;
        }
        bail!(
            "{}: its positions end at {fits} tokens, before the {longest} of the corpus' max_tokens; lower max_tokens, or \
             take a network with more positions ({})",
            self.path.display(),
            error.to_string().lines().next().unwrap_or_default()
        );
    }

    /// Logits of `texts`, all of one length, row by row, and the size of a row.
    fn run(&mut self, texts: &[Vec<u32>]) -> anyhow::Result<(Vec<f32>, usize)> {
        let shape = [texts.len(), texts[0].len()];
        let tensor = |value: &dyn Fn(usize, u32) -> i64| -> anyhow::Result<DynValue> {
            let row = |text: &Vec<u32>| text.iter().enumerate().map(|(i, &id)| value(i, id)).collect::<Vec<_>>();
            Ok(OrtTensor::from_array((shape, texts.iter().flat_map(row).collect::<Vec<i64>>()))?.into_dyn())
        };
        let mut inputs: Vec<(String, SessionInputValue)> = Vec::new();
        for input in self.session.inputs() {
            let value = match input.name() {
                MASK => tensor(&|_, _| 1)?,
                POSITIONS => tensor(&|i, _| i as i64)?,
                _ => tensor(&|_, id| i64::from(id))?,
            };
            inputs.push((input.name().to_owned(), value.into()));
        }
        let at = || self.path.display().to_string();
        let outputs = self.session.run(inputs).with_context(at)?;
        let logits = &outputs[LOGITS];
        let (dims, values) = match logits.dtype() {
            ValueType::Tensor { ty: TensorElementType::Float16, .. } => {
                let (dims, values) = logits.try_extract_tensor::<f16>()?;
                (dims, values.iter().map(|logit| logit.to_f32()).collect())
            }
            _ => {
                let (dims, values) = logits.try_extract_tensor::<f32>().with_context(at)?;
                (dims, values.to_vec())
            }
        };
        let vocabulary = *dims.last().unwrap_or(&0) as usize;
        ensure!(
            dims.len() == 3 && dims[..2] == shape.map(|n| n as i64) && vocabulary > 1,
            "{}: its logits are {dims:?} instead of [{}, {}, vocabulary]",
            self.path.display(),
            shape[0],
            shape[1]
        );
        ensure!(
            values.iter().all(|logit| logit.is_finite()),
            "{}: gives logits that are not finite",
            self.path.display()
        );
        Ok((values, vocabulary))
    }

    /// Logits after the last token of each of the texts.
    fn last(&mut self) -> anyhow::Result<Vec<Vec<f32>>> {
        let texts = std::mem::take(&mut self.texts);
        let (logits, vocabulary) = self.run(&texts)?;
        let length = texts[0].len();
        self.texts = texts;
        let rows = logits.chunks_exact(vocabulary).skip(length - 1).step_by(length);
        Ok(rows.map(<[f32]>::to_vec).collect())
    }
}

impl LanguageModel for Gpt2 {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn positions(&self) -> usize {
        self.positions
    }

    fn logits(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
        Ok(self.run(&[text.to_vec()])?.0)
    }

    fn begin(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
        self.texts = vec![text.to_vec()];
        Ok(self.last()?.remove(0))
    }

    fn advance(&mut self, texts: &[(usize, u32)]) -> anyhow::Result<Vec<Vec<f32>>> {
        let continued = texts.iter().map(|&(row, token)| [self.texts[row].as_slice(), &[token]].concat());
        self.texts = continued.collect();
        self.last()
    }
}

#[cfg(test)]
pub(in super::super) mod tests {
    use prost::Message;

    use super::super::cached::CachedNetwork;
    use super::super::export;
    use super::super::network::tests::{network, SIZE};
    use super::super::network::NetworkSize;
    use super::*;
    use crate::export::messages::Model;

    /// ONNX Runtime, where the environment names one.
    pub fn runtime() -> Option<Runtime> {
        let path = std::env::var_os("ORT_DYLIB_PATH").filter(|path| Path::new(path).is_file());
        if path.is_none() {
            peregrine_support::skip("onnxruntime", "ORT_DYLIB_PATH names no ONNX Runtime; `make test` sets it");
        }
        path.map(|path| Runtime::open(Path::new(&path)).unwrap())
    }

    /// The message of an ONNX file of our own, changed.
    fn refused(runtime: &Runtime, change: impl Fn(&mut Model)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpt2.onnx");
        let mut model = export::model(&network(SIZE)).unwrap();
        change(&mut model);
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        let opened = Gpt2::open(runtime, &path, 1).and_then(|mut model| model.probe(9, SIZE.vocabulary));
        format!("{:#}", opened.unwrap_err())
    }

    #[test]
    fn onnx_runtime_gives_the_logits_of_the_network() {
        let Some(runtime) = runtime() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpt2.onnx");
        let ours = network(NetworkSize { vocabulary: 23, positions: 12, width: 12, layers: 3, heads: 3 });
        std::fs::write(&path, export::model(&ours).unwrap().encode_to_vec()).unwrap();
        let mut ours = CachedNetwork::new(ours);
        let mut theirs = Gpt2::open(&runtime, &path, 1).unwrap();
        assert_eq!(theirs.probe(12, 23).unwrap(), 12);
        let close = |a: &[f32], b: &[f32]| {
            assert_eq!(a.len(), b.len());
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-4, "{worst}");
        };
        let text = [3, 1, 4, 1, 5, 9, 2, 6, 22, 0];
        close(&ours.logits(&text).unwrap(), &theirs.logits(&text).unwrap());
        close(&ours.begin(&text[..4]).unwrap(), &theirs.begin(&text[..4]).unwrap());
        for texts in [vec![(0, 7), (0, 8)], vec![(1, 2), (1, 3), (0, 4)], vec![(2, 1), (1, 9)], vec![(0, 5)]] {
            let (a, b) = (ours.advance(&texts).unwrap(), theirs.advance(&texts).unwrap());
            a.iter().zip(&b).for_each(|(a, b)| close(a, b));
            assert_eq!((a.len(), b.len()), (texts.len(), texts.len()));
        }
    }

    #[test]
    fn a_vocabulary_that_is_not_the_tokenizers_is_refused() {
        let Some(runtime) = runtime() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpt2.onnx");
        std::fs::write(&path, export::model(&network(SIZE)).unwrap().encode_to_vec()).unwrap();
        let error = Gpt2::open(&runtime, &path, 1).unwrap().probe(9, 12).unwrap_err().to_string();
        let expected = "gpt2.onnx: gives logits for 11 tokens, but the tokenizer has 12; give the tokenizer.json";
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn positions_that_end_before_the_text_are_refused() {
        let Some(runtime) = runtime() else { return };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpt2.onnx");
        std::fs::write(&path, export::model(&network(SIZE)).unwrap().encode_to_vec()).unwrap();
        let error = Gpt2::open(&runtime, &path, 1).unwrap().probe(40, 11).unwrap_err().to_string();
        let expected = "gpt2.onnx: its positions end at 9 tokens, before the 40 of the corpus' max_tokens";
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_network_of_another_layout_is_refused_in_a_sentence() {
        let Some(runtime) = runtime() else { return };
        let renamed = |from: &str, to: &str, model: &mut Model| {
            let graph = model.graph.as_mut().unwrap();
            let rename = |name: &mut String| {
                if name == from {
                    *name = to.to_owned();
                }
            };
            graph.input.iter_mut().chain(&mut graph.output).for_each(|value| rename(&mut value.name));
            graph.node.iter_mut().flat_map(|node| node.input.iter_mut().chain(&mut node.output)).for_each(rename);
        };
        let error = refused(&runtime, |model| renamed(POSITIONS, "past_key_values.0.key", model));
        assert!(error.contains("wants the input \"past_key_values.0.key\""), "{error}");
        let error = refused(&runtime, |model| renamed(LOGITS, "last_hidden_state", model));
        assert!(error.contains("has no output \"logits\" but last_hidden_state; export"), "{error}");
    }
}
