//! What `distill text` does with a corpus of replies.

use std::path::Path;

use anyhow::{ensure, Context};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::write_atomically;
use prost::Message;
use serde_json::json;

use super::super::args::{
    refuse, EvaluateArgs, ExportArgs, NetworkArgs, SayArgs, SoftenArgs, StudentArgs, TeacherArgs,
};
use super::super::args::{RuntimeArgs, TrainingArgs};
use super::super::corpus::unlabelled;
use super::generate::reply;
use super::loss::Divergence;
use super::package::{load, open, save, save_onnx, OpenedModel};
use super::score::judge;
use super::soft::VocabularySoftTargets;
use super::soften::count;
use super::task::ReplyCorpus;
use super::tokens::Tokens;
use super::train::{train, CausalTrainingSettings};
use super::{export, soften as softening};
use crate::lock::lock;
use crate::log::show;

/// In a model's folder during training.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// What the corpus is of, for messages.
const KIND: &str = "replies";
const VOCABULARY: usize = 512;
const HEADS: usize = 4;
const TEACHER: [usize; 2] = [128, 4];
const STUDENT_LAYERS: usize = 2;
const TOP_K: usize = 16;
const BEAMS: usize = 4;

/// Trains a teacher on the corpus' pairs, or takes one in ONNX.
///
/// # Errors
/// When a flag or a file is missing or invalid.
pub fn teacher(args: &TeacherArgs) -> anyhow::Result<()> {
    refuse(&args.corpus, KIND, &[("--encoder", args.encoder.is_some())])?;
    let corpus = ReplyCorpus::open(&args.corpus)?;
    let NetworkArgs { layers, heads, vocabulary } = args.network_size;
    if let Some(network) = &args.network {
        let TrainingArgs { fresh, seed, steps, learning_rate } = &args.training;
        let trains = *fresh || seed.is_some() || steps.is_some() || learning_rate.is_some();
        let sizes = args.width.is_some() || layers.is_some() || heads.is_some() || vocabulary.is_some();
        ensure!(!trains && !sizes, "--network is trained already; --steps and the like are of a network trained here");
        let tokenizer = args.tokenizer.as_deref();
        let tokens =
            Tokens::open(tokenizer.context("--network needs --tokenizer, the tokenizer.json of that network")?)?;
        // Before the network is tried, so that a pair that is too long is named.
        tokens.texts(&corpus.train, corpus.config.max_tokens)?;
        tokens.texts(&corpus.val, corpus.config.max_tokens)?;
        let runtime = args.runtime.open("a network in ONNX")?;
        save_onnx(&args.out, &corpus.config.name, corpus.config.max_tokens, network, (&tokens, &runtime))?;
        println!("{}: a teacher of {} tokens", args.out.display(), tokens.vocabulary());
        return Ok(());
    }
    let tokens = tokens(&corpus, args.tokenizer.as_deref(), vocabulary)?;
    let settings = CausalTrainingSettings {
        alpha: 0.0,
        temperature: 1.0,
        divergence: Divergence::Forward,
        ..settings(&args.training, args.width.unwrap_or(TEACHER[0]), &args.network_size, TEACHER[1])
    };
    fit(&corpus, &tokens, None, (&args.out, args.training.fresh), settings)
}

/// Writes the teacher's soft targets of the pairs and of unlabelled commands.
///
/// # Errors
/// When a file is invalid or does not fit the teacher.
pub fn soften(args: &SoftenArgs) -> anyhow::Result<()> {
    let corpus = ReplyCorpus::open(&args.corpus)?;
    let mut teacher = opened(&args.teacher, &args.runtime, 2)?;
    let more = args.unlabelled.as_deref().map(unlabelled).transpose()?.unwrap_or_default();
    let more: Vec<String> = more.into_iter().map(|sentence| sentence.text).collect();
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} texts, ETA {eta}")?;
    let bar = show(ProgressBar::new(count(&corpus, &more) as u64).with_style(style));
    let top_k = args.top_k.unwrap_or(TOP_K);
    let index = softening::soften(&corpus, &mut teacher, &more, &args.out, top_k, |done| {
        bar.set_position(done as u64);
        Ok(())
    })?;
    bar.finish();
    let texts: usize = index.shards.iter().map(|shard| shard.texts).sum();
    let labelled = corpus.train.len();
    println!("{}: {texts} texts, {labelled} of them of the corpus", args.out.display());
    if index.without_reply > 0 {
        println!("{} commands are left out: the teacher's reply to them has no end", index.without_reply);
    }
    Ok(())
}

/// Trains a student.
///
/// # Errors
/// When a flag or a file is missing or invalid.
pub fn student(args: &StudentArgs) -> anyhow::Result<()> {
    let StudentArgs { alpha, temperature, .. } = *args;
    ensure!((0.0..=1.0).contains(&alpha), "--alpha is {alpha}; it must be 0 to 1");
    ensure!(temperature > 0.0, "--temperature is {temperature}; it must be above 0");
    let corpus = ReplyCorpus::open(&args.corpus)?;
    let soft = args.soft.as_deref().map(VocabularySoftTargets::open).transpose()?;
    let own = args.tokenizer.as_deref();
    let (soft, tokens) = match soft {
        None => (None, tokens(&corpus, own, args.network_size.vocabulary)?),
        Some((soft, tokens)) => {
            ensure!(
                args.network_size.vocabulary.is_none(),
                "with --soft the vocabulary is the teacher's; leave out --vocabulary"
            );
            if let Some(path) = own {
                let same = Tokens::open(path)?.sha256() == tokens.sha256();
                ensure!(same, "{}: is not the tokenizer of the soft targets; leave out --tokenizer", path.display());
            }
            (Some(soft), tokens)
        }
    };
    let settings = CausalTrainingSettings {
        // Without a teacher the labels have the whole weight.
        alpha: if soft.is_some() { alpha } else { 0.0 },
        temperature,
        divergence: args.divergence.unwrap_or(Divergence::Forward),
        ..settings(&args.training, args.width, &args.network_size, STUDENT_LAYERS)
    };
    fit(&corpus, &tokens, soft.as_ref(), (&args.out, args.training.fresh), settings)
}

/// The tokenizer at `path`, or one learnt from the corpus.
fn tokens(corpus: &ReplyCorpus, path: Option<&Path>, vocabulary: Option<usize>) -> anyhow::Result<Tokens> {
    let Some(path) = path else { return Tokens::learn(corpus, vocabulary.unwrap_or(VOCABULARY)) };
    ensure!(vocabulary.is_none(), "--vocabulary is of a tokenizer learnt from the corpus; leave out --tokenizer or it");
    Tokens::open(path)
}

/// Settings on labels alone.
fn settings(training: &TrainingArgs, width: usize, network: &NetworkArgs, layers: usize) -> CausalTrainingSettings {
    CausalTrainingSettings {
        seed: training.seed(),
        steps: training.steps(),
        learning_rate: training.learning_rate(),
        alpha: 0.0,
        temperature: 1.0,
        divergence: Divergence::Forward,
        width,
        layers: network.layers.unwrap_or(layers),
        heads: network.heads.unwrap_or(HEADS),
    }
}

/// Trains a network and writes its package to `out`.
fn fit(
    corpus: &ReplyCorpus,
    tokens: &Tokens,
    soft: Option<&VocabularySoftTargets>,
    (out, fresh): (&Path, bool),
    settings: CausalTrainingSettings,
) -> anyhow::Result<()> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps, loss {msg}, ETA {eta}")?;
    let bar = show(ProgressBar::new(settings.steps as u64).with_style(style));
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let _lock = lock(out, "another training")?;
    let checkpoint = out.join(CHECKPOINT);
    let remove = || match std::fs::remove_file(&checkpoint) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| checkpoint.display().to_string())
        }
        _ => Ok(()),
    };
    if fresh {
        remove()?;
    }
    let (network, manifest) = train(corpus, tokens, soft, settings, &checkpoint, |step, loss| {
        bar.set_position(step as u64);
        bar.set_message(format!("{loss:.3}"));
    })?;
    bar.finish();
    save(out, &network, &manifest, tokens)?;
    // The package is complete, so that the checkpoint is no longer needed.
    remove()?;
    println!("{}: {} parameters, {} tokens", out.display(), network.parameters(), tokens.vocabulary());
    Ok(())
}

fn opened(folder: &Path, runtime: &RuntimeArgs, threads: usize) -> anyhow::Result<OpenedModel> {
    open(folder, || runtime.open("a network in ONNX"), threads)
}

/// Prints a model's scores on the corpus' val pairs.
///
/// # Errors
/// When a file is invalid.
pub fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    let corpus = ReplyCorpus::open(&args.corpus)?;
    let mut model = opened(&args.model, &args.runtime, 1)?;
    let beams = args.beams.unwrap_or(BEAMS);
    ensure!((1..=64).contains(&beams), "--beams is {beams}; it must be 1 to 64");
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} replies, ETA {eta}")?;
    let bar = show(ProgressBar::new(corpus.val.len() as u64).with_style(style));
    let score = judge(&mut model, &corpus.val, beams, |done| bar.set_position(done as u64))?;
    bar.finish();
    let [greedy, beam] = score.exact_match();
    println!(
        "{} val replies: perplexity {:.3}, exact match {greedy:.3} greedy, {beam:.3} with {beams} beams; {:.2} ms per token",
        score.replies,
        score.perplexity(),
        score.milliseconds_a_token()
    );
    if score.without_end > 0 {
        println!("{} greedy replies have no end within {} tokens", score.without_end, model.manifest.max_tokens);
    }
    if let Some(path) = &args.json {
        let figures = json!({
            "perplexity": score.perplexity(),
            "exact_match_greedy": greedy,
            "exact_match_beam": beam,
            "beams": beams,
            "milliseconds_a_token": score.milliseconds_a_token(),
            "parameters": model.parameters,
            "counts": score,
        });
        write_atomically(path, &serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}

/// Prints the reply to a command.
///
/// # Errors
/// When the model cannot be read, or its reply has no end.
pub fn say(args: &SayArgs) -> anyhow::Result<()> {
    let mut model = opened(&args.model, &args.runtime, 1)?;
    let beams = args.beams.unwrap_or(1);
    ensure!((1..=64).contains(&beams), "--beams is {beams}; it must be 1 to 64");
    let prompt = model.tokens.prompt(&args.sentence.join(" "))?;
    let most = model.manifest.max_tokens;
    ensure!(prompt.len() < most, "the command has {} tokens, too many for a model of {most}", prompt.len());
    let reply = reply(model.model.as_mut(), &prompt, model.tokens.end(), most, beams)?;
    let text = model.tokens.decode(&reply.tokens)?;
    ensure!(reply.complete, "the model gives no whole reply, only {text}");
    println!("{text}");
    Ok(())
}

/// Writes a model as ONNX.
///
/// # Errors
/// When the model was not trained here, or a file cannot be read or written.
pub fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let (network, _, _) = load(&args.model)?;
    write_atomically(&args.out, &export::model(&network)?.encode_to_vec())?;
    println!(
        "{}: input_ids, attention_mask, position_ids to logits [batch, positions, {}]",
        args.out.display(),
        network.size.vocabulary
    );
    Ok(())
}
