//! The making of a language teacher's soft targets, shard by shard; interrupted, it goes on with
//! the first shard that is not finished.

use std::collections::HashSet;
use std::path::Path;

use anyhow::{ensure, Context};
use peregrine_core::files::{sha256, write_atomically};
use tracing::warn;

use super::super::parts::{Part, Parts};
use super::generate::reply;
use super::package::OpenedModel;
use super::soft::{parse, serialize, Index, Shard, ShardEntry, SoftText, INDEX, TOKENIZER};
use super::task::ReplyCorpus;
use super::tokens::Text;
use crate::lock::lock;

/// Texts of a shard.
const SHARD: usize = 64;
/// Part of each shard's hash; another one when a shard of the same inputs would be another.
const VERSION: &str = "top-k 1";

/// What soft targets are made of.
#[derive(Debug, Clone)]
enum Item {
    /// A pair of the corpus.
    Pair(Text),
    /// A command without a reply; the teacher gives one.
    Command(String),
}

/// Writes the teacher's soft targets of the corpus' training pairs, and of the `unlabelled`
/// commands with the teacher's own (greedy) replies, into the folder `out`. `on_text` is told of
/// each text that is done, and may end the run with an error.
///
/// # Errors
/// When the teacher does not fit the corpus, a file cannot be written, or the folder is in use.
pub fn soften(
    corpus: &ReplyCorpus,
    teacher: &mut OpenedModel,
    unlabelled: &[String],
    out: &Path,
    top_k: usize,
    mut on_text: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Index> {
    let (vocabulary, longest) = (teacher.model.vocabulary(), teacher.manifest.max_tokens);
    ensure!((1..vocabulary).contains(&top_k), "--top-k is {top_k}; it must be 1 to {}", vocabulary - 1);
    ensure!(vocabulary <= 1 << 16, "the teacher knows {vocabulary} tokens; soft targets in 16 bits name at most 65536");
    let most = corpus.config.max_tokens;
    ensure!(
        most <= longest,
        "the teacher was made for texts of {longest} tokens, but max_tokens is {most}; make it again"
    );
    let mut items: Vec<Item> = teacher.tokens.texts(&corpus.train, most)?.into_iter().map(Item::Pair).collect();
    items.extend(without_labels(corpus, unlabelled).into_iter().map(Item::Command));
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let _lock = lock(out, "another soften")?;
    let (identity, parts) = (teacher.manifest.identity(), Parts(out));
    let (mut shards, mut done, mut without_reply) = (Vec::new(), 0, 0);
    for items in items.chunks(SHARD) {
        let inputs = format!("{VERSION} {identity} {top_k} {most} {items:?}");
        let make = || serialize(&shard(teacher, items, most, top_k, |n| on_text(done + n))?, top_k);
        let Part { file, bytes, value: shard } = parts.part(&inputs, |bytes| parse(bytes, top_k), make)?;
        done += items.len();
        without_reply += shard.without_reply;
        shards.push(ShardEntry { file, sha256: sha256(&bytes), texts: shard.texts.len() });
    }
    let tokenizer_sha256 = teacher.tokens.sha256();
    let index = Index { teacher: identity, tokenizer_sha256, vocabulary, top_k, without_reply, shards };
    write_atomically(&out.join(TOKENIZER), &teacher.tokens.bytes)?;
    write_atomically(&out.join(INDEX), &serde_json::to_vec_pretty(&index)?)?;
    parts.remove_others(&index.shards.iter().map(|shard| shard.file.as_str()).collect::<Vec<_>>())?;
    Ok(index)
}

/// Number of texts that [`soften`] will make soft targets of.
pub fn count(corpus: &ReplyCorpus, unlabelled: &[String]) -> usize {
    corpus.train.len() + without_labels(corpus, unlabelled).len()
}

/// The commands that are in neither part of the corpus, each once.
fn without_labels(corpus: &ReplyCorpus, unlabelled: &[String]) -> Vec<String> {
    let val: HashSet<&str> = corpus.val.iter().map(|pair| pair.command.as_str()).collect();
    let mut known: HashSet<&str> = corpus.train.iter().map(|pair| pair.command.as_str()).collect();
    let judged = unlabelled.iter().filter(|command| val.contains(command.as_str())).count();
    if judged > 0 {
        warn!("{judged} of the unlabelled commands are left out: they are of {}", corpus.config.val.display());
    }
    let new = unlabelled.iter().filter(|command| !val.contains(command.as_str()) && known.insert(command));
    new.cloned().collect()
}

fn shard(
    teacher: &mut OpenedModel,
    items: &[Item],
    most: usize,
    top_k: usize,
    mut on_text: impl FnMut(usize) -> anyhow::Result<()>,
) -> anyhow::Result<Shard> {
    let vocabulary = teacher.model.vocabulary();
    let mut shard = Shard { texts: Vec::new(), without_reply: 0 };
    for (i, item) in items.iter().enumerate() {
        let text = match item {
            Item::Pair(text) => Some(text.clone()),
            Item::Command(command) => answered(teacher, command, most)?,
        };
        match text {
            Some(text) => {
                let logits = teacher.model.logits(&text.tokens)?;
                shard.texts.push(SoftText::of(text, &logits, vocabulary, top_k));
            }
            None => shard.without_reply += 1,
        }
        on_text(i + 1)?;
    }
    Ok(shard)
}

/// A command with the teacher's greedy reply; `None` if that has no end within `most` tokens.
fn answered(teacher: &mut OpenedModel, command: &str, most: usize) -> anyhow::Result<Option<Text>> {
    let mut tokens = teacher.tokens.prompt(command)?;
    let (end, start) = (teacher.tokens.end(), tokens.len());
    // One token less, for the end.
    let reply = reply(teacher.model.as_mut(), &tokens, end, most - 1, 1)?;
    tokens.extend(reply.tokens);
    tokens.push(end);
    Ok(reply.complete.then_some(Text { tokens, reply: start }))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::bail;

    use super::super::cached::CachedNetwork;
    use super::super::network::NetworkSize;
    use super::super::package::{ModelManifest, Source};
    use super::super::soft::VocabularySoftTargets;
    use super::super::tokens::tests::small;
    use super::*;

    fn teacher() -> (ReplyCorpus, OpenedModel) {
        let (corpus, tokens) = small();
        let size = NetworkSize { vocabulary: tokens.vocabulary(), positions: 48, width: 8, layers: 1, heads: 2 };
        let network = Source::Weights { size, weights_sha256: "w".into(), teacher: None, seed: 1 };
        let manifest = ModelManifest { name: "t".into(), max_tokens: 48, tokenizer_sha256: tokens.sha256(), network };
        let model = Box::new(CachedNetwork::new(super::super::network::tests::network(size)));
        (corpus, OpenedModel { manifest, tokens, model, parameters: None })
    }

    /// The files of a folder with their contents, but for the lock.
    fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let named =
            entries.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()));
        let mut files: Vec<_> = named.filter(|(name, _)| name != ".lock").collect();
        files.sort();
        files
    }

    #[test]
    fn an_interrupted_run_keeps_its_shards_and_goes_on() {
        let (corpus, mut teacher) = teacher();
        let more: Vec<String> = (0..100).map(|i| format!("stop at the gate number {i}")).collect();
        let folder = tempfile::tempdir().unwrap();
        let [whole, broken] = ["whole", "broken"].map(|name| folder.path().join(name));
        soften(&corpus, &mut teacher, &more, &whole, 4, |_| Ok(())).unwrap();
        let all = count(&corpus, &more);
        assert_eq!(all, corpus.train.len() + 100);
        let mut computed = 0;
        for stop in [30, 100] {
            let stopped = soften(&corpus, &mut teacher, &more, &broken, 4, |done| {
                computed += 1;
                if done >= stop {
                    bail!("killed")
                } else {
                    Ok(())
                }
            });
            assert!(stopped.is_err());
            assert!(VocabularySoftTargets::open(&broken).is_err(), "no index before all shards");
        }
        soften(&corpus, &mut teacher, &more, &broken, 4, |_| {
            computed += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(files(&whole), files(&broken));
        // Only what had not been finished was computed again.
        assert!(computed <= all + 30 + (100 - 64), "{computed} for {all}");
    }

    #[test]
    fn other_inputs_make_other_shards_and_remove_the_old() {
        let (corpus, mut teacher) = teacher();
        let folder = tempfile::tempdir().unwrap();
        let made = |k: usize, teacher: &mut OpenedModel| {
            let mut computed = 0;
            let index = soften(&corpus, teacher, &[], folder.path(), k, |_| {
                computed += 1;
                Ok(())
            })
            .unwrap();
            (computed, index)
        };
        let (first, _) = made(4, &mut teacher);
        assert_eq!(first, corpus.train.len());
        assert_eq!(made(4, &mut teacher).0, 0, "nothing has changed");
        assert_eq!(made(5, &mut teacher).0, first);
        if let Source::Weights { weights_sha256, .. } = &mut teacher.manifest.network {
            *weights_sha256 = "others".into();
        }
        let (computed, index) = made(5, &mut teacher);
        assert_eq!(computed, first);
        let (read, _) = VocabularySoftTargets::open(folder.path()).unwrap();
        assert_eq!((read.index.top_k, read.texts.len()), (5, first));
        assert_eq!(files(folder.path()).len(), 2 + index.shards.len());
        // A damaged one is made again.
        fs::write(folder.path().join(&index.shards[0].file), "damaged").unwrap();
        assert!(VocabularySoftTargets::open(folder.path()).is_err());
        assert_eq!(made(5, &mut teacher).0, first);
        VocabularySoftTargets::open(folder.path()).unwrap();
    }

    #[test]
    fn commands_of_val_and_those_that_have_labels_are_left_out() {
        let (corpus, _) = teacher();
        let more = [&corpus.val[0].command, &corpus.train[0].command, "fly", "fly"].map(|c: &str| c.to_owned());
        assert_eq!(without_labels(&corpus, &more), ["fly"]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (mut corpus, mut teacher) = teacher();
        let folder = tempfile::tempdir().unwrap();
        let n = teacher.model.vocabulary();
        let error = soften(&corpus, &mut teacher, &[], folder.path(), n, |_| Ok(())).unwrap_err();
        assert_eq!(error.to_string(), format!("--top-k is {n}; it must be 1 to {}", n - 1));
        corpus.config.max_tokens = 64;
        let error = soften(&corpus, &mut teacher, &[], folder.path(), 4, |_| Ok(())).unwrap_err();
        assert!(error.to_string().starts_with("the teacher was made for texts of 48 tokens"), "{error}");
    }
}
