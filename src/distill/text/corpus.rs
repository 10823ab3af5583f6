//! Labelled sentences: what is wanted (the intent) and which words carry the details (the slots).
//!
//! A corpus is a TOML description beside text files with a sentence a line, written `intent: words [slot: words] words`.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Why a corpus could not be read.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{path}: {why}")]
    Description { path: PathBuf, why: String },
    #[error("{path}:{line}: {why}")]
    Line { path: PathBuf, line: usize, why: String },
}

/// What the labels of a corpus may be, and where its sentences are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Description {
    pub name: String,
    pub intents: Vec<String>,
    pub slots: Vec<String>,
    /// Longest sentence, in word pieces.
    pub max_tokens: usize,
    /// Labelled sentences to learn from, relative to the description.
    pub train: PathBuf,
    /// Labelled sentences to judge by.
    pub val: PathBuf,
}

/// A sentence and, where it is labelled, what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentence {
    pub text: String,
    pub intent: Option<usize>,
    /// Bytes of the text, and the slot that they fill; in order, without overlap.
    pub slots: Vec<(Range<usize>, usize)>,
}

/// A corpus in memory.
#[derive(Debug, Clone)]
pub struct Corpus {
    pub description: Description,
    pub train: Vec<Sentence>,
    pub val: Vec<Sentence>,
}

impl Corpus {
    /// Reads the description at `path` and the sentences that it names.
    ///
    /// # Errors
    /// Names the file, and the line at fault.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let wrong = |why: String| CorpusError::Description { path: path.to_owned(), why };
        let description: Description = toml::from_str(&read(path)?).map_err(|e| wrong(e.to_string()))?;
        if description.intents.len() < 2 || description.slots.is_empty() {
            return Err(wrong("names fewer than two intents, or no slot".into()));
        }
        if !(4..=512).contains(&description.max_tokens) {
            return Err(wrong(format!("max_tokens is {}; it must be 4 to 512", description.max_tokens)));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let sentences = |file: &Path| labelled(&folder.join(file), &description);
        let (train, val) = (sentences(&description.train)?, sentences(&description.val)?);
        Ok(Self { description, train, val })
    }
}

/// Reads sentences without labels, one a line.
///
/// # Errors
/// When the file cannot be read or has none.
pub fn unlabelled(path: &Path) -> Result<Vec<Sentence>, CorpusError> {
    let text = read(path)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let sentence = |line: &str| Sentence { text: line.to_owned(), intent: None, slots: Vec::new() };
    some(path, lines.map(sentence).collect())
}

fn labelled(path: &Path, description: &Description) -> Result<Vec<Sentence>, CorpusError> {
    let mut sentences = Vec::new();
    for (number, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |why| CorpusError::Line { path: path.to_owned(), line: number + 1, why };
        sentences.push(parse(line.trim(), description).map_err(at)?);
    }
    some(path, sentences)
}

fn some(path: &Path, sentences: Vec<Sentence>) -> Result<Vec<Sentence>, CorpusError> {
    if sentences.is_empty() {
        return Err(CorpusError::Description { path: path.to_owned(), why: "holds no sentence".into() });
    }
    Ok(sentences)
}

fn read(path: &Path) -> Result<String, CorpusError> {
    std::fs::read_to_string(path).map_err(|source| CorpusError::Io { path: path.to_owned(), source })
}

fn parse(line: &str, description: &Description) -> Result<Sentence, String> {
    let find = |kind: &str, names: &[String], name: &str| {
        let position = names.iter().position(|n| n == name);
        position.ok_or_else(|| format!("{kind} {name:?} is none of {}", names.join(", ")))
    };
    let (intent, mut rest) = line.split_once(": ").ok_or("write \"intent: sentence\"")?;
    let intent = find("intent", &description.intents, intent)?;
    let (mut text, mut slots) = (String::new(), Vec::new());
    while let Some((before, marked)) = rest.split_once('[') {
        let (marked, after) = marked.split_once(']').ok_or("a [ has no ]")?;
        let (slot, words) = marked.split_once(": ").ok_or("write \"[slot: words]\"")?;
        text.push_str(before);
        let start = text.len();
        text.push_str(words);
        slots.push((start..text.len(), find("slot", &description.slots, slot)?));
        rest = after;
    }
    text.push_str(rest);
    Ok(Sentence { text, intent: Some(intent), slots })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> Description {
        Description {
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
        let sentence = parse("go: follow [object: the bus] to [place: the gate]", &description()).unwrap();
        assert_eq!(sentence.text, "follow the bus to the gate");
        assert_eq!(sentence.intent, Some(1));
        let words: Vec<_> = sentence.slots.iter().map(|(bytes, slot)| (&sentence.text[bytes.clone()], *slot)).collect();
        assert_eq!(words, [("the bus", 1), ("the gate", 0)]);
    }

    #[test]
    fn a_wrong_label_is_refused_with_file_and_line() {
        for (line, expected) in [
            ("halt: now", "train.txt:2: intent \"halt\" is none of stop, go"),
            ("go: to [where: the gate]", "train.txt:2: slot \"where\" is none of place, object"),
            ("go: to [place: the gate", "train.txt:2: a [ has no ]"),
            ("just words", "train.txt:2: write \"intent: sentence\""),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let toml = folder.path().join("corpus.toml");
            std::fs::write(&toml, toml::to_string(&description()).unwrap()).unwrap();
            std::fs::write(folder.path().join("val.txt"), "stop: now").unwrap();
            std::fs::write(folder.path().join("train.txt"), format!("stop: now\n{line}\n")).unwrap();
            let error = Corpus::open(&toml).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn the_shipped_corpus_is_valid_and_its_halves_share_no_sentence() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/commands/commands.toml");
        let corpus = Corpus::open(&path).unwrap();
        assert!(corpus.val.iter().all(|v| corpus.train.iter().all(|t| t.text != v.text)));
    }
}
