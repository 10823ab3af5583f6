//! Pairs of a command and the structured reply to it.
//!
//! A corpus of replies is a TOML file with `task = "replies"` next to text files of one pair a
//! line: the command, a tab, and the reply as JSON.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::super::corpus::{non_empty, read, CorpusError};

/// What `task` says in the TOML file of a corpus of replies.
pub const TASK: &str = "replies";

/// The TOML file of a corpus of replies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyConfig {
    pub name: String,
    /// [`TASK`].
    pub task: String,
    /// Longest command with its reply, in tokens.
    pub max_tokens: usize,
    /// Pairs for training, relative to the TOML file.
    pub train: PathBuf,
    /// Pairs for evaluation.
    pub val: PathBuf,
}

/// A command and the reply to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    pub command: String,
    /// JSON, as it stands in the file.
    pub reply: String,
    /// Where it stands, for messages: `train.tsv:3`.
    pub place: String,
}

/// A corpus of replies in memory.
#[derive(Debug, Clone)]
pub struct ReplyCorpus {
    pub config: ReplyConfig,
    pub train: Vec<Pair>,
    pub val: Vec<Pair>,
}

impl ReplyCorpus {
    /// Whether the TOML file at `path` is of a corpus of replies.
    ///
    /// # Errors
    /// When the file cannot be read or is not TOML.
    pub fn is_at(path: &Path) -> Result<bool, CorpusError> {
        let wrong = |why: String| CorpusError::Config { path: path.to_owned(), why };
        let table: toml::Table = toml::from_str(&read(path)?).map_err(|e| wrong(e.to_string()))?;
        match table.get("task").map(toml::Value::as_str) {
            None => Ok(false),
            Some(Some(TASK)) => Ok(true),
            Some(_) => Err(wrong(format!("task must be \"{TASK}\"; a corpus of intents and slots has no task"))),
        }
    }

    /// Reads the TOML file at `path` and its pairs.
    ///
    /// # Errors
    /// Names the file, and the invalid line.
    pub fn open(path: &Path) -> Result<Self, CorpusError> {
        let wrong = |why: String| CorpusError::Config { path: path.to_owned(), why };
        let config: ReplyConfig = toml::from_str(&read(path)?).map_err(|e| wrong(e.to_string()))?;
        if !(4..=4096).contains(&config.max_tokens) {
            return Err(wrong(format!("max_tokens is {}; it must be 4 to 4096", config.max_tokens)));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let (train, val) = (pairs(&folder.join(&config.train))?, pairs(&folder.join(&config.val))?);
        let known: HashSet<&str> = train.iter().map(|pair| pair.command.as_str()).collect();
        let leaked = val.iter().filter(|pair| known.contains(pair.command.as_str())).count();
        if leaked > 0 {
            let path = path.display();
            warn!(
                "{path}: {leaked} of {} val commands are in train too: what is measured on them is memory",
                val.len()
            );
        }
        Ok(Self { config, train, val })
    }
}

/// Whether two replies say the same: equal as JSON, in whatever order their keys stand.
pub fn same_reply(one: &str, other: &str) -> bool {
    let json = |text: &str| serde_json::from_str::<Value>(text);
    matches!((json(one), json(other)), (Ok(one), Ok(other)) if one == other)
}

fn pairs(path: &Path) -> Result<Vec<Pair>, CorpusError> {
    let mut pairs = Vec::new();
    for (number, line) in read(path)?.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let at = |why: String| CorpusError::Line { path: path.to_owned(), line: number + 1, why };
        let (command, reply) = line.split_once('\t').ok_or_else(|| at("write \"command<tab>reply\"".into()))?;
        let (command, reply) = (command.trim().to_owned(), reply.trim().to_owned());
        if command.is_empty() {
            return Err(at("has no command before the tab".into()));
        }
        serde_json::from_str::<Value>(&reply).map_err(|e| at(format!("the reply is not JSON: {e}")))?;
        pairs.push(Pair { command, reply, place: format!("{}:{}", path.display(), number + 1) });
    }
    non_empty(path, "pairs of a command and its reply", pairs)
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;

    /// Writes a corpus of replies to `folder`: every place with every action, but for those that
    /// are kept for val.
    pub fn corpus(folder: &Path) -> PathBuf {
        let [mut train, mut val] = [String::new(), String::new()];
        for (i, place) in ["gate", "bridge", "school", "depot", "river", "tunnel"].iter().enumerate() {
            for (j, (action, words)) in
                [("stop", "stop at"), ("go", "drive to"), ("park", "park by")].iter().enumerate()
            {
                let to = if (i + j) % 6 == 0 { &mut val } else { &mut train };
                *to += &format!("{words} the {place}\t{{\"action\":\"{action}\",\"place\":\"{place}\"}}\n");
            }
        }
        write(folder, &train, &val)
    }

    pub fn write(folder: &Path, train: &str, val: &str) -> PathBuf {
        let path = folder.join("replies.toml");
        let text = "name = 'test'\ntask = 'replies'\nmax_tokens = 48\ntrain = 'train.tsv'\nval = 'val.tsv'\n";
        std::fs::write(&path, text).unwrap();
        std::fs::write(folder.join("train.tsv"), train).unwrap();
        std::fs::write(folder.join("val.tsv"), val).unwrap();
        path
    }

    #[test]
    fn an_invalid_pair_is_refused_with_file_and_line() {
        for (train, expected) in [
            ("stop\t{}\nstop now", "train.tsv:2: write \"command<tab>reply\""),
            ("\t{}", "train.tsv:1: has no command before the tab"),
            ("stop\t{\"action\":}", "train.tsv:1: the reply is not JSON: expected value at line 1 column 11"),
            ("\n \n", "train.tsv: has no pairs of a command and its reply"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let error = ReplyCorpus::open(&write(folder.path(), train, "go\t{}")).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
    }

    #[test]
    fn a_corpus_tells_by_its_task_what_is_learnt() {
        let folder = tempfile::tempdir().unwrap();
        assert!(ReplyCorpus::is_at(&corpus(folder.path())).unwrap());
        let path = folder.path().join("other.toml");
        std::fs::write(&path, "name = 'a'").unwrap();
        assert!(!ReplyCorpus::is_at(&path).unwrap());
        std::fs::write(&path, "task = 'poems'").unwrap();
        let error = ReplyCorpus::is_at(&path).unwrap_err().to_string();
        assert!(error.contains("task must be \"replies\""), "{error}");
    }

    #[test]
    fn replies_are_compared_as_json() {
        assert!(same_reply(r#"{"a":1,"b":2}"#, r#"{"b": 2, "a": 1}"#));
        assert!(!same_reply(r#"{"a":1}"#, r#"{"a":"1"}"#));
        assert!(!same_reply("{", "{"), "what is not JSON is no reply");
    }

    #[test]
    fn the_shipped_pairs_are_split_without_leaks() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/commands/replies.toml");
        let corpus = ReplyCorpus::open(&path).unwrap();
        assert!(corpus.train.len() >= 500 && corpus.val.len() >= 200);
        let known: HashSet<&str> = corpus.train.iter().map(|pair| pair.command.as_str()).collect();
        assert!(corpus.val.iter().all(|pair| !known.contains(pair.command.as_str())));
        // Every value of val is in train; only how they stand together is new.
        let values = |pairs: &[Pair]| -> HashSet<String> {
            let steps = pairs.iter().map(|pair| serde_json::from_str::<Value>(&pair.reply).unwrap());
            let steps = steps.flat_map(|reply| match reply {
                Value::Array(steps) => steps,
                step => vec![step],
            });
            steps
                .flat_map(|step| step.as_object().unwrap().values().map(Value::to_string).collect::<Vec<_>>())
                .collect()
        };
        assert!(values(&corpus.val).is_subset(&values(&corpus.train)));
    }
}
