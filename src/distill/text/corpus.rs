//! Sentences labelled with an intent and with slots.
//!
//! A corpus is a TOML file next to text files with one sentence per line, written
//! `intent: words [slot: words] words`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a corpus could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Config { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}")]
    Line { path: PathBuf, line: usize, why: String },
}

/// The TOML file of a corpus: its labels, and the files of its sentences.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorpusConfig {
    pub name: String,
    pub intents: Vec<String>,
    pub slots: Vec<String>,
    /// Longest sentence, in word pieces.
    pub max_tokens: usize,
    /// Labelled sentences for training, relative to the TOML file.
    pub train: PathBuf,
    /// Labelled sentences for evaluation.
    pub val: PathBuf,
}

/// A sentence and its labels, if any.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub text: String,
    pub intent: Option<usize>,
    /// Byte ranges of the text with their slot; in order, without overlap.
    pub slots: Vec<(Range<usize>, usize)>,
}

/// A corpus in memory.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub config: CorpusConfig,
    pub train: Vec<Sentence>,
    pub val: Vec<Sentence>,
}

impl Corpus {
    /// Reads the TOML file at `path` and its sentences.
    ///
    /// # Errors
    /// Names the file, and the invalid line.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let wrong = |why: String| CorpusError::Config { path: path.to_owned(), why };
        let config: CorpusConfig = toml::from_str(&read(path)?).map_err(|e| wrong(e.to_string()))?;
        if config.intents.len() < 2 || config.slots.is_empty() {
            return Err(wrong("must have at least two intents and one slot".into()));
        }
        if !(4..=512).contains(&config.max_tokens) {
            return Err(wrong(format!("max_tokens is {}; it must be 4 to 512", config.max_tokens)));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let sentences = |file: &Path| labelled(&folder.join(file), &config);
        let (train, val) = (sentences(&config.train)?, sentences(&config.val)?);
        Ok(Self { config, train, val })
    }
}

/// Reads unlabelled sentences, one per line.
///
/// # Errors
/// When the file cannot be read or is empty.
pub fn unlabelled(path: &Path) -> Result<Vec<Sentence>, CorpusError> {
    let text = read(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let sentence = |line: &str| Sentence { text: line.to_owned(), intent: None, slots: Vec::new() };
    non_empty(path, "sentences", lines.map(sentence).collect())
}

fn labelled(path: &Path, config: &CorpusConfig) -> Result<Vec<Sentence>, CorpusError> {
    let mut sentences = Vec::new();
    for (number, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |why| CorpusError::Line { path: path.to_owned(), line: number + 1, why };
        sentences.push(parse(line.trim(), config).map_err(at)?);
    }
    non_empty(path, "sentences", sentences)
}

/// `list`, unless it is empty: then the file at `path` has none of `what`.
pub(super) fn non_empty<T>(path: &Path, what: &str, list: Vec<T>) -> Result<Vec<T>, CorpusError> {
    if list.is_empty() {
        return Err(CorpusError::Config { path: path.to_owned(), why: format!("has no {what}") });
    }
    Ok(list)
}

pub(super) fn read(path: &Path) -> Result<String, CorpusError> {
    std::fs::read_to_string(path).map_err(|source| CorpusError::Io { path: path.to_owned(), source })
}

fn parse(line: &str, config: &CorpusConfig) -> Result<Sentence, String> {
    let find = |kind: &str, names: &[String], name: &str| {
        let position = names.iter().position(|n| n == name);
        position.ok_or_else(|| format!("invalid {kind} {name:?}: must be one of {}", names.join(", ")))
    };
    let (intent, mut rest) = line.split_once(": ").ok_or("write \"intent: sentence\"")?;
    let intent = find("intent", &config.intents, intent)?;
    let (mut text, mut slots) = (String::new(), Vec::new());
    while let Some((before, marked)) = rest.split_once('[') {
        let (marked, after) = marked.split_once(']').ok_or("unclosed [")?;
        let (slot, words) = marked.split_once(": ").ok_or("write \"[slot: words]\"")?;
        text.push_str(before);
        let start = text.len();
        text.push_str(words);
        slots.push((start..text.len(), find("slot", &config.slots, slot)?));
        rest = after;
    }
    text.push_str(rest);
    Ok(Sentence { text, intent: Some(intent), slots })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> CorpusConfig {
        CorpusConfig {
            name: "test".into(),
            intents: vec!["stop".into(), "go".into()],
            slots: vec!["place".into(), "object".into()],
            max_tokens: 16,
            train: "train.txt".into(),
            val: "val.txt".into(),
        }
    }

    #[test]
    fn slots_are_the_bytes_of_the_plain_sentence() {
        let sentence = parse("go: follow [object: the bus] to [place: the gate]", &config()).unwrap();
        assert_eq!(sentence.text, "follow the bus to the gate");
        assert_eq!(sentence.intent, Some(1));
        let words: Vec<_> = sentence.slots.iter().map(|(bytes, slot)| (&sentence.text[bytes.clone()], *slot)).collect();
        assert_eq!(words, [("the bus", 1), ("the gate", 0)]);
    }

    #[test]
    fn an_invalid_label_is_refused_with_file_and_line() {
        for (line, expected) in [
            ("halt: now", "train.txt:2: invalid intent \"halt\": must be one of stop, go"),
            ("go: to [where: the gate]", "train.txt:2: invalid slot \"where\": must be one of place, object"),
            ("go: to [place: the gate", "train.txt:2: unclosed ["),
            ("just words", "train.txt:2: write \"intent: sentence\""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let toml = folder.path().join("corpus.toml");
            std::fs::write(&toml, toml::to_string(&config()).unwrap()).unwrap();
            std::fs::write(folder.path().join("val.txt"), "stop: now").unwrap();
            std::fs::write(folder.path().join("train.txt"), format!("stop: now\n{line}\n")).unwrap();
            let error = Corpus::open(&toml).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn the_shipped_corpus_is_valid_and_its_splits_are_disjoint() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/commands/commands.toml");
        let corpus = Corpus::open(&path).unwrap();
        assert!(corpus.val.iter().all(|v| corpus.train.iter().all(|t| t.text != v.text)));
    }
}
