//! A language teacher's soft targets on disk: for each position of a reply the likeliest tokens
//! with their log-probabilities (logits, less their log-sum-exp), and the rest's, in 16 bits.
//!
//! A folder has shards, each named by the hash of all that it was made of, so that what was
//! finished is found again after an interruption; `index.json`, written last, names those that
//! belong to it.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{ensure, Context};
use half::f16;
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};

use super::super::read_checked;
use super::generate::log_sum_exp;
use super::tokens::{Text, Tokens};
use crate::tensor_file::{TensorReader, TensorWriter};

pub const INDEX: &str = "index.json";
pub const TOKENIZER: &str = "tokenizer.json";

/// `index.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// [`ModelManifest::identity`](super::package::ModelManifest::identity) of the teacher.
    pub teacher: String,
    pub tokenizer_sha256: String,
    pub vocabulary: usize,
    /// Tokens kept of each position.
    pub top_k: usize,
    /// Commands without a label whose reply by the teacher had no end.
    pub without_reply: usize,
    pub shards: Vec<ShardEntry>,
}

/// A shard of an index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    pub file: String,
    pub sha256: String,
    pub texts: usize,
}

/// Soft targets of one text's [`taught`](Text::taught) positions.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftText {
    pub text: Text,
    /// The likeliest tokens of each position, `[positions][k]`.
    pub tokens: Vec<u32>,
    /// Their log-probabilities, `[positions][k]`.
    pub log_probabilities: Vec<f32>,
    /// Log-probability of all others, `[positions]`.
    pub rest: Vec<f32>,
}

impl SoftText {
    /// Of the logits of all tokens of `text`, `[tokens][vocabulary]`.
    pub fn of(text: Text, logits: &[f32], vocabulary: usize, top_k: usize) -> Self {
        let mut soft = Self { tokens: Vec::new(), log_probabilities: Vec::new(), rest: Vec::new(), text };
        for position in soft.text.taught() {
            let (best, rest) = top(&logits[position * vocabulary..(position + 1) * vocabulary], top_k);
            soft.tokens.extend(best.iter().map(|&(token, _)| token));
            soft.log_probabilities.extend(best.iter().map(|&(_, p)| p));
            soft.rest.push(rest);
        }
        soft
    }
}

/// The `k` likeliest tokens of a row of logits with their log-probabilities, likeliest first, and
/// the log-probability of all others. `k` must be less than the row has.
pub fn top(logits: &[f32], k: usize) -> (Vec<(u32, f32)>, f32) {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit = |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    order.select_nth_unstable_by(k, by_logit);
    order[..k].sort_by(by_logit);
    let all = log_sum_exp(logits);
    let best = order[..k].iter().map(|&token| (token, (f64::from(logits[token as usize]) - all) as f32));
    let others: Vec<f32> = order[k..].iter().map(|&token| logits[token as usize]).collect();
    (best.collect(), (log_sum_exp(&others) - all) as f32)
}

/// Soft targets in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct VocabularySoftTargets {
    pub index: Index,
    pub texts: Vec<SoftText>,
}

impl VocabularySoftTargets {
    /// Reads the folder of `distill text soften`, with the tokenizer in it.
    ///
    /// # Errors
    /// When a file is missing, damaged, or of another run.
    pub fn open(folder: &Path) -> anyhow::Result<(Self, Tokens)> {
        let path = folder.join(INDEX);
        let text = std::fs::read(&path).with_context(|| {
            format!("{}: no soft targets here, or not all yet; `distill text soften` makes them", path.display())
        })?;
        let index: Index =
            serde_json::from_slice(&text).with_context(|| format!("{}: invalid index", path.display()))?;
        let tokenizer = folder.join(TOKENIZER);
        let tokens = read_checked(&tokenizer, &index.tokenizer_sha256, "index.json names; run soften again")?;
        let mut texts = Vec::new();
        for shard in &index.shards {
            let path = folder.join(&shard.file);
            let bytes = read_checked(&path, &shard.sha256, "index.json names; run soften again")?;
            texts.extend(parse(&bytes, index.top_k).with_context(|| path.display().to_string())?.texts);
        }
        Ok((Self { index, texts }, Tokens::of(tokens, &tokenizer)?))
    }
}

/// What a shard holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    pub texts: Vec<SoftText>,
    /// Commands whose reply had no end.
    pub without_reply: usize,
}

/// The bytes of a shard.
///
/// # Errors
/// When a token's id has more than 16 bits.
pub fn serialize(shard: &Shard, top_k: usize) -> anyhow::Result<Vec<u8>> {
    let texts = &shard.texts;
    let ends = |each: &dyn Fn(&SoftText) -> usize| {
        let mut end = 0;
        texts
            .iter()
            .map(|soft| {
                end += each(soft);
                end as u32
            })
            .collect::<Vec<u32>>()
    };
    let narrow = |token: u32| u16::try_from(token).with_context(|| format!("token {token} has more than 16 bits"));
    let all: Vec<u16> = texts.iter().flat_map(|s| &s.text.tokens).map(|&t| narrow(t)).collect::<anyhow::Result<_>>()?;
    let best: Vec<u16> = texts.iter().flat_map(|s| &s.tokens).map(|&t| narrow(t)).collect::<anyhow::Result<_>>()?;
    let positions = best.len() / top_k;
    let half = |value: &f32| f16::from_f32(value.max(f16::MIN.to_f32()));
    let mut tensors = TensorWriter::default();
    tensors.push("text", &[all.len()], all);
    tensors.push("text_ends", &[texts.len()], ends(&|soft| soft.text.tokens.len()));
    tensors.push("replies", &[texts.len()], texts.iter().map(|soft| soft.text.reply as u32));
    tensors.push("tokens", &[positions, top_k], best);
    tensors.push("log_probabilities", &[positions, top_k], texts.iter().flat_map(|s| &s.log_probabilities).map(half));
    tensors.push("rest", &[positions], texts.iter().flat_map(|soft| &soft.rest).map(half));
    tensors.into_bytes(Some(HashMap::from([("without_reply".to_owned(), shard.without_reply.to_string())])))
}

/// Reads what [`serialize`] made.
///
/// # Errors
/// When the bytes are damaged or are not a shard.
pub fn parse(bytes: &[u8], top_k: usize) -> anyhow::Result<Shard> {
    ensure!(top_k > 0, "no tokens are kept");
    let file = TensorReader::new(bytes)?;
    let (_, metadata) = SafeTensors::read_metadata(bytes)?;
    let without_reply = metadata.metadata().as_ref().and_then(|m| m.get("without_reply"));
    let without_reply = without_reply.context("its metadata has no without_reply")?.parse()?;
    let wide = |values: Vec<u16>| values.into_iter().map(u32::from).collect::<Vec<u32>>();
    let floats = |values: Vec<f16>| values.into_iter().map(f16::to_f32).collect::<Vec<f32>>();
    let all = wide(file.read("text", &[None])?.values);
    let ends: Vec<u32> = file.read("text_ends", &[None])?.values;
    let replies: Vec<u32> = file.read("replies", &[Some(ends.len())])?.values;
    let rest = floats(file.read("rest", &[None])?.values);
    let tokens = wide(file.read("tokens", &[Some(rest.len()), Some(top_k)])?.values);
    let log_probabilities = floats(file.read("log_probabilities", &[Some(rest.len()), Some(top_k)])?.values);
    let (mut texts, mut start, mut from) = (Vec::new(), 0, 0);
    for (end, reply) in ends.into_iter().zip(replies) {
        let (end, reply) = (end as usize, reply as usize);
        ensure!(start < end && end <= all.len() && reply > 0 && reply < end - start, "its texts are inconsistent");
        let text = Text { tokens: all[start..end].to_vec(), reply };
        let to = from + text.taught().len();
        ensure!(to <= rest.len(), "its texts are inconsistent");
        let kept = from * top_k..to * top_k;
        texts.push(SoftText {
            tokens: tokens[kept.clone()].to_vec(),
            log_probabilities: log_probabilities[kept].to_vec(),
            rest: rest[from..to].to_vec(),
            text,
        });
        (start, from) = (end, to);
    }
    ensure!(start == all.len() && from == rest.len(), "its texts are inconsistent");
    Ok(Shard { texts, without_reply })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard() -> Shard {
        let soft = |tokens: Vec<u32>, reply| {
            let logits: Vec<f32> = (0..tokens.len() * 6).map(|i| ((i * 7) % 11) as f32 * 0.5).collect();
            SoftText::of(Text { tokens, reply }, &logits, 6, 2)
        };
        Shard { texts: vec![soft(vec![1, 2, 3, 0], 1), soft(vec![5, 4, 3, 2, 1], 3)], without_reply: 2 }
    }

    #[test]
    fn the_likeliest_and_the_rest_have_all_of_the_mass() {
        let logits = [0.5f32, 3.0, -1.0, 3.0, 2.0];
        for k in 1..5 {
            let (best, rest) = top(&logits, k);
            assert_eq!(best.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 3, 4, 0][..k], "of equals the smaller first");
            let mass: f32 = best.iter().map(|b| b.1.exp()).sum::<f32>() + rest.exp();
            assert!((mass - 1.0).abs() < 1e-6, "{mass}");
        }
    }

    #[test]
    fn a_shard_is_read_as_it_was_written_to_half_precision() {
        let shard = shard();
        let read = parse(&serialize(&shard, 2).unwrap(), 2).unwrap();
        assert_eq!(read.without_reply, 2);
        for (read, written) in read.texts.iter().zip(&shard.texts) {
            assert_eq!((&read.text, &read.tokens), (&written.text, &written.tokens));
            let pairs = read.log_probabilities.iter().zip(&written.log_probabilities);
            assert!(pairs.chain(read.rest.iter().zip(&written.rest)).all(|(a, b)| (a - b).abs() < 4e-3));
        }
    }

    #[test]
    fn a_damaged_shard_is_refused() {
        let bytes = serialize(&shard(), 2).unwrap();
        assert!(parse(&bytes[..bytes.len() - 1], 2).is_err());
        assert!(parse(&bytes, 3).is_err());
        let mut shard = shard();
        shard.texts[0].text.reply = 9;
        shard.texts[0].text.tokens.push(1);
        assert!(serialize(&shard, 2).and_then(|bytes| parse(&bytes, 2)).is_err());
        shard.texts[0].tokens[0] = 70_000;
        assert_eq!(serialize(&shard, 2).unwrap_err().to_string(), "token 70000 has more than 16 bits");
    }
}
