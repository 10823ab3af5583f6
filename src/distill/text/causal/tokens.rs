//! Byte-pair tokens (Sennrich et al. 2016, over bytes as in GPT-2) of commands and replies.

use std::path::Path;

use anyhow::{anyhow, ensure, Context};
use peregrine_core::files::sha256;
use tokenizers::models::bpe::{BpeTrainer, BPE};
use tokenizers::models::TrainerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::task::{Pair, ReplyCorpus};

/// The token that ends a reply, GPT-2's.
pub const END: &str = "<|endoftext|>";
/// Between a command and its reply.
const SEPARATOR: char = '\n';
/// Fewest tokens of a vocabulary: every byte, and the end.
pub const LEAST_VOCABULARY: usize = 257;

/// A command and its reply as tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text {
    /// The command, the separator, the reply and the end.
    pub tokens: Vec<u32>,
    /// Where the reply begins; at least 1.
    pub reply: usize,
}

impl Text {
    /// Positions whose next token is one of the reply's or its end: what a model is taught and
    /// judged on.
    pub fn taught(&self) -> std::ops::Range<usize> {
        self.reply - 1..self.tokens.len() - 1
    }
}

/// A byte-pair tokenizer.
pub struct Tokens {
    tokenizer: Tokenizer,
    end: u32,
    /// The tokenizer.json.
    pub bytes: Vec<u8>,
}

impl Tokens {
    /// Makes a vocabulary of at most `vocabulary` tokens from a corpus' training pairs.
    ///
    /// # Errors
    /// When `vocabulary` has no room for all bytes.
    pub fn learn(corpus: &ReplyCorpus, vocabulary: usize) -> anyhow::Result<Self> {
        ensure!(
            (LEAST_VOCABULARY..=65_536).contains(&vocabulary),
            "--vocabulary is {vocabulary}; it must be {LEAST_VOCABULARY} to 65536"
        );
        let mut tokenizer = Tokenizer::new(BPE::default());
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        let trainer = BpeTrainer::builder()
            .show_progress(false)
            .vocab_size(vocabulary)
            .min_frequency(2)
            .special_tokens(vec![AddedToken::from(END, true)])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let texts: Vec<String> =
            corpus.train.iter().map(|pair| format!("{}{SEPARATOR}{}", pair.command, pair.reply)).collect();
        let wrong = |e| anyhow!("{}: no vocabulary can be made: {e}", corpus.config.train.display());
        tokenizer.train(&mut TrainerWrapper::from(trainer), texts.into_iter()).map_err(wrong)?;
        let json = tokenizer.to_string(false).map_err(wrong)?;
        Self::of(json.into_bytes(), &corpus.config.train)
    }

    /// Reads a `tokenizer.json`.
    ///
    /// # Errors
    /// When the file is missing or invalid, or has no token for the end.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        ensure!(path.is_file(), "{}: no such tokenizer (tokenizer.json comes with the model)", path.display());
        Self::of(std::fs::read(path).with_context(|| path.display().to_string())?, path)
    }

    /// The tokenizer of these bytes, which `path` names in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn of(bytes: Vec<u8>, path: &Path) -> anyhow::Result<Self> {
        let wrong = |e| anyhow!("{}: invalid tokenizer: {e}", path.display());
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(wrong)?;
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(wrong)?;
        let end = tokenizer.token_to_id(END);
        let end = end.with_context(|| {
            format!("{}: has no token {END}, with which a reply ends; give the tokenizer of a GPT-2", path.display())
        })?;
        Ok(Self { tokenizer, end, bytes })
    }

    /// Number of tokens in the vocabulary, the added ones included.
    pub fn vocabulary(&self) -> usize {
        // Ids may have gaps; a network has a row for each up to the last.
        self.tokenizer.get_vocab(true).values().max().map_or(0, |&last| last as usize + 1)
    }

    /// The token that ends a reply.
    pub fn end(&self) -> u32 {
        self.end
    }

    /// SHA-256 of the tokenizer.json.
    pub fn sha256(&self) -> String {
        sha256(&self.bytes)
    }

    /// The tokens of a command, up to where its reply begins.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn prompt(&self, command: &str) -> anyhow::Result<Vec<u32>> {
        self.encode(&format!("{command}{SEPARATOR}"))
    }

    /// A pair's tokens, at most `most`.
    ///
    /// # Errors
    /// Names the pair that is longer.
    pub fn text(&self, pair: &Pair, most: usize) -> anyhow::Result<Text> {
        let mut tokens = self.prompt(&pair.command)?;
        let reply = tokens.len();
        tokens.extend(self.encode(&pair.reply)?);
        tokens.push(self.end);
        ensure!(
            tokens.len() <= most,
            "{}: has {} tokens with its reply, more than max_tokens = {most}; shorten it, or raise max_tokens",
            pair.place,
            tokens.len()
        );
        Ok(Text { tokens, reply })
    }

    /// All pairs' tokens.
    ///
    /// # Errors
    /// As [`text`](Self::text).
    pub fn texts(&self, pairs: &[Pair], most: usize) -> anyhow::Result<Vec<Text>> {
        pairs.iter().map(|pair| self.text(pair, most)).collect()
    }

    /// The text of a reply's tokens.
    ///
    /// # Errors
    /// When a token is not of this vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> anyhow::Result<String> {
        self.tokenizer.decode(tokens, true).map_err(|e| anyhow!("the tokens {tokens:?} cannot be read: {e}"))
    }

    fn encode(&self, text: &str) -> anyhow::Result<Vec<u32>> {
        let encoding = self.tokenizer.encode(text, false).map_err(|e| anyhow!("{text:?} cannot be tokenized: {e}"))?;
        Ok(encoding.get_ids().to_vec())
    }
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::super::task::tests::corpus;
    use super::*;

    pub fn small() -> (ReplyCorpus, Tokens) {
        let folder = tempfile::tempdir().unwrap();
        let corpus = ReplyCorpus::open(&corpus(folder.path())).unwrap();
        let tokens = Tokens::learn(&corpus, 300).unwrap();
        (corpus, tokens)
    }

    #[test]
    fn any_text_is_read_back_from_its_tokens() {
        let (corpus, tokens) = small();
        assert!(tokens.vocabulary() <= 300, "{}", tokens.vocabulary());
        for reply in [corpus.val[0].reply.as_str(), r#"{"place":"Łódź, 北京 🚦"}"#, " \t x"] {
            let pair = Pair { command: "Stopp an der Brücke!".into(), reply: reply.into(), place: String::new() };
            let text = tokens.text(&pair, 200).unwrap();
            assert_eq!(tokens.decode(&text.tokens[text.reply..]).unwrap(), reply);
            assert_eq!(text.tokens.last(), Some(&tokens.end()));
            assert_eq!(text.taught().len(), text.tokens.len() - text.reply);
        }
    }

    #[test]
    fn the_same_corpus_gives_the_same_vocabulary() {
        let (corpus, tokens) = small();
        assert_eq!(Tokens::learn(&corpus, 300).unwrap().bytes, tokens.bytes);
        let error = Tokens::learn(&corpus, 100).err().unwrap().to_string();
        assert_eq!(error, "--vocabulary is 100; it must be 257 to 65536");
    }

    #[test]
    fn a_text_that_is_too_long_is_named() {
        let (corpus, tokens) = small();
        let error = tokens.texts(&corpus.train, 8).unwrap_err().to_string();
        assert!(error.contains("train.tsv:1: has ") && error.contains("max_tokens = 8"), "{error}");
    }

    #[test]
    fn a_tokenizer_without_an_end_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = super::super::super::pieces::tests::tokenizer(folder.path(), &["stop"]);
        let error = Tokens::open(&path).err().unwrap().to_string();
        assert!(error.contains("tokenizer.json: has no token <|endoftext|>"), "{error}");
    }
}
