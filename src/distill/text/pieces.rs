//! Tokenization into word pieces (WordPiece, Wu et al. 2016), by the BERT teacher's tokenizer.

use std::path::Path;

use anyhow::{anyhow, ensure};
use tokenizers::{Tokenizer, TruncationParams};

use super::corpus::Sentence;

/// The label of a piece outside of all slots; slot `s` has the label `s + 1`.
pub const NO_SLOT: usize = 0;

/// A sentence's word pieces, including the special tokens at both ends.
#[derive(Debug, Clone, PartialEq)]
pub struct Pieces {
    pub ids: Vec<u32>,
    /// Byte range of each piece in the text; empty for special tokens.
    pub bytes: Vec<std::ops::Range<usize>>,
    /// Label of each piece: [`NO_SLOT`], or 1 + the slot.
    pub labels: Vec<usize>,
}

/// A tokenizer with a maximum sentence length.
pub struct Splitter(Tokenizer);

impl Splitter {
    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing or invalid.
    pub fn open(path: &Path, max_tokens: usize) -> anyhow::Result<Self> {
        ensure!(path.is_file(), "{}: no such tokenizer (tokenizer.json comes with the model)", path.display());
        let wrong = |e| anyhow!("{}: invalid tokenizer: {e}", path.display());
        let mut tokenizer = Tokenizer::from_file(path).map_err(wrong)?;
        tokenizer.with_padding(None);
        let truncation = TruncationParams { max_length: max_tokens, ..Default::default() };
        tokenizer.with_truncation(Some(truncation)).map_err(wrong)?;
        Ok(Self(tokenizer))
    }

    /// The pieces of a sentence with their slot labels.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn split(&self, sentence: &Sentence) -> anyhow::Result<Pieces> {
        let text = sentence.text.as_str();
        let encoding = self.0.encode(text, true).map_err(|e| anyhow!("{text:?} cannot be tokenized: {e}"))?;
        let bytes: Vec<_> = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        let label = |piece: &std::ops::Range<usize>| {
            let filled = sentence.slots.iter().find(|(slot, _)| !piece.is_empty() && slot.contains(&piece.start));
            filled.map_or(NO_SLOT, |(_, slot)| slot + 1)
        };
        Ok(Pieces { ids: encoding.get_ids().to_vec(), labels: bytes.iter().map(label).collect(), bytes })
    }
}

/// Runs of pieces with the same slot label, as (first piece, end, label): the slots as scored and
/// shown.
pub fn runs(labels: &[usize]) -> Vec<(usize, usize, usize)> {
    let mut runs: Vec<(usize, usize, usize)> = Vec::new();
    for (i, &label) in labels.iter().enumerate().filter(|(_, &label)| label != NO_SLOT) {
        match runs.last_mut() {
            Some(run) if run.1 == i && run.2 == label => run.1 = i + 1,
            _ => runs.push((i, i + 1, label)),
        }
    }
    runs
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A tokenizer of whole words between two marks, written to `folder`; ids: 0 unknown, 1 and 2
    /// the marks.
    pub fn tokenizer(folder: &Path, words: &[&str]) -> std::path::PathBuf {
        let marks = ["[UNK]", "[CLS]", "[SEP]"];
        let vocabulary: serde_json::Map<String, serde_json::Value> =
            marks.iter().chain(words).enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "normalizer": { "type": "Lowercase" },
            "pre_tokenizer": { "type": "Whitespace" },
            "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1] },
            "model": { "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                       "max_input_chars_per_word": 100, "vocab": vocabulary },
        });
        let path = folder.join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        path
    }

    fn split(max_tokens: usize) -> Pieces {
        let folder = tempfile::tempdir().unwrap();
        let path = tokenizer(folder.path(), &["stop", "at", "the", "cross", "##ing"]);
        let sentence = Sentence { text: "Stop at the crossing".into(), intent: None, slots: vec![(8..20, 0)] };
        Splitter::open(&path, max_tokens).unwrap().split(&sentence).unwrap()
    }

    #[test]
    fn every_piece_of_a_slot_has_its_label() {
        let pieces = split(16);
        assert_eq!(pieces.ids, [1, 3, 4, 5, 6, 7, 2]);
        assert_eq!(pieces.labels, [0, 0, 0, 1, 1, 1, 0]);
        assert_eq!(runs(&pieces.labels), [(3, 6, 1)]);
    }

    #[test]
    fn a_long_sentence_is_truncated_and_keeps_its_end_token() {
        assert_eq!(split(5).ids, [1, 3, 4, 5, 2]);
    }

    #[test]
    fn runs_end_where_the_label_changes() {
        assert_eq!(runs(&[0, 1, 1, 2, 0, 2]), [(1, 3, 1), (3, 4, 2), (5, 6, 2)]);
    }
}
