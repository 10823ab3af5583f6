//! `distill text`: teacher, soft targets, student and evaluation for sentences.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{ensure, Context};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::{sha256, write_atomically};
use serde_json::json;

use super::corpus::{unlabelled, Corpus, Sentence};
use super::network::TextNetwork;
use super::pieces::{runs, Pieces, Splitter};
use super::score::{likeliest, Score};
use super::soft::{Header, TextSoftTargets};
use super::teacher::Teacher;
use super::train::{train, TextTrainingSettings};
use super::Outputs;
use crate::log::show;
use crate::teacher::Runtime;

/// In the student's folder during training.
const CHECKPOINT: &str = "checkpoint.safetensors";

/// Distil a BERT-like teacher into a small student for operator commands (intents and slots).
///
/// Steps: teacher, soften, student, evaluate; `say` runs the student on a sentence.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(subcommand)]
    command: TextCommand,
}

#[derive(Debug, Subcommand)]
enum TextCommand {
    /// Fit a teacher's heads on the labelled sentences, over an encoder in ONNX.
    Teacher {
        /// Corpus description (see models/commands/commands.toml).
        corpus: PathBuf,
        /// BERT-like encoder in ONNX (models/commands/export_bert.py makes one).
        #[arg(long)]
        encoder: PathBuf,
        /// The encoder's tokenizer.json.
        #[arg(long)]
        tokenizer: PathBuf,
        /// Folder for the teacher.
        #[arg(long, short)]
        out: PathBuf,
        /// The libonnxruntime.so of an onnxruntime wheel.
        #[arg(long, env = "ORT_DYLIB_PATH")]
        onnxruntime: PathBuf,
    },
    /// Write the teacher's soft targets for the labelled and for unlabelled sentences.
    Soften {
        corpus: PathBuf,
        /// Folder of `distill text teacher`.
        #[arg(long)]
        teacher: PathBuf,
        /// Unlabelled sentences, one per line (see models/commands/make_unlabelled.py).
        #[arg(long)]
        unlabelled: Option<PathBuf>,
        /// File for the soft targets (.safetensors).
        #[arg(long, short)]
        out: PathBuf,
        #[arg(long, env = "ORT_DYLIB_PATH")]
        onnxruntime: PathBuf,
    },
    /// Train a student on labels and soft targets; without --soft on labels only.
    Student {
        corpus: PathBuf,
        /// The tokenizer.json of the teacher.
        #[arg(long)]
        tokenizer: PathBuf,
        /// File of `distill text soften`.
        #[arg(long)]
        soft: Option<PathBuf>,
        /// Folder for the student; an interrupted training is resumed.
        #[arg(long, short)]
        out: PathBuf,
        /// Start over instead of resuming from a checkpoint.
        #[arg(long)]
        fresh: bool,
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Optimizer steps of 32 sentences.
        #[arg(long, default_value_t = 1500)]
        steps: usize,
        #[arg(long, default_value_t = 3e-3)]
        learning_rate: f64,
        /// Weight of the distillation loss, 0 to 1; the labels have the rest.
        #[arg(long, default_value_t = 0.5)]
        alpha: f64,
        #[arg(long, default_value_t = 2.0)]
        temperature: f64,
        /// Features per word piece.
        #[arg(long, default_value_t = 64)]
        width: usize,
    },
    /// Evaluate a student or a teacher on the corpus' val sentences.
    Evaluate {
        corpus: PathBuf,
        /// Folder of a student, or of a teacher.
        #[arg(long)]
        model: PathBuf,
        /// Also write the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        #[arg(long, env = "ORT_DYLIB_PATH")]
        onnxruntime: Option<PathBuf>,
    },
    /// Run a student on a sentence: intent and slots as JSON.
    Say {
        #[arg(long)]
        model: PathBuf,
        #[arg(required = true)]
        sentence: Vec<String>,
    },
}

/// Runs the command.
///
/// # Errors
/// Each names the invalid file or flag; existing files stay intact.
pub fn run(args: &TextArgs) -> anyhow::Result<()> {
    match &args.command {
        TextCommand::Teacher { corpus, encoder, tokenizer, out, onnxruntime } => {
            Teacher::fit(&Corpus::open(corpus)?, encoder, tokenizer, &Runtime::open(onnxruntime)?, out)?;
            println!("{}: fitted; evaluate it with `distill text evaluate --model {0}`", out.display());
            Ok(())
        }
        TextCommand::Soften { corpus, teacher, unlabelled, out, onnxruntime } => {
            soften(&Corpus::open(corpus)?, teacher, unlabelled.as_deref(), out, onnxruntime)
        }
        TextCommand::Student {
            corpus,
            tokenizer,
            soft,
            out,
            fresh,
            seed,
            steps,
            learning_rate,
            alpha,
            temperature,
            width,
        } => {
            ensure!((0.0..=1.0).contains(alpha), "--alpha is {alpha}; it must be 0 to 1");
            ensure!(*temperature > 0.0, "--temperature is {temperature}; it must be above 0");
            ensure!((1..=1024).contains(width), "--width is {width}; it must be 1 to 1024");
            // Without a teacher the labels have the whole weight.
            let alpha = if soft.is_some() { *alpha } else { 0.0 };
            let settings = TextTrainingSettings {
                seed: *seed,
                steps: *steps,
                learning_rate: *learning_rate,
                alpha,
                temperature: *temperature,
                width: *width,
            };
            student(&Corpus::open(corpus)?, tokenizer, soft.as_deref(), (out, *fresh), settings)
        }
        TextCommand::Evaluate { corpus, model, json, onnxruntime } => {
            evaluate(&Corpus::open(corpus)?, model, json.as_deref(), onnxruntime.as_deref())
        }
        TextCommand::Say { model, sentence } => {
            let (network, splitter) = TextNetwork::load(model)?;
            let sentence = Sentence { text: sentence.join(" "), intent: None, slots: Vec::new() };
            let (pieces, outputs) = network.infer(&splitter, &sentence)?;
            println!("{}", meaning(&network, &sentence, &pieces, &outputs));
            Ok(())
        }
    }
}

fn soften(corpus: &Corpus, folder: &Path, more: Option<&Path>, out: &Path, onnxruntime: &Path) -> anyhow::Result<()> {
    let mut teacher = Teacher::open(folder, &Runtime::open(onnxruntime)?, 2)?;
    let same = teacher.manifest.intents == corpus.config.intents && teacher.manifest.slots == corpus.config.slots;
    ensure!(same, "{}: the teacher was fitted for other intents or slots", folder.display());
    let mut sentences = corpus.train.clone();
    sentences.extend(more.map(unlabelled).transpose()?.unwrap_or_default());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} sentences, {per_sec:.0}, ETA {eta}")?;
    let bar = show(ProgressBar::new(sentences.len() as u64).with_style(style));
    let mut outputs = Vec::with_capacity(sentences.len());
    for sentence in &sentences {
        outputs.push(teacher.infer(sentence)?.1);
        bar.inc(1);
    }
    bar.finish();
    let manifest = &teacher.manifest;
    let header = Header {
        teacher: [manifest.encoder_sha256.clone(), manifest.heads_sha256.clone()],
        tokenizer_sha256: manifest.tokenizer_sha256.clone(),
        intents: manifest.intents.len(),
        slots: manifest.slots.len(),
        sentences: sentences.into_iter().map(|s| s.text).collect(),
    };
    TextSoftTargets { header, outputs }.write(out)
}

fn student(
    corpus: &Corpus,
    tokenizer: &Path,
    soft: Option<&Path>,
    (out, fresh): (&Path, bool),
    settings: TextTrainingSettings,
) -> anyhow::Result<()> {
    let splitter = Splitter::open(tokenizer, corpus.config.max_tokens)?;
    let bytes = std::fs::read(tokenizer).with_context(|| tokenizer.display().to_string())?;
    let soft = soft.map(TextSoftTargets::read).transpose()?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps, loss {msg}, ETA {eta}")?;
    let bar = show(ProgressBar::new(settings.steps as u64).with_style(style));
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let checkpoint = out.join(CHECKPOINT);
    if fresh && checkpoint.exists() {
        std::fs::remove_file(&checkpoint).with_context(|| checkpoint.display().to_string())?;
    }
    let network = train(corpus, &splitter, sha256(&bytes), soft.as_ref(), settings, &checkpoint, |step, loss| {
        bar.set_position(step as u64);
        bar.set_message(format!("{loss:.3}"));
    })?;
    bar.finish();
    network.save(out, &bytes)?;
    // The package is complete, so that the checkpoint is no longer needed.
    if checkpoint.exists() {
        std::fs::remove_file(&checkpoint).with_context(|| checkpoint.display().to_string())?;
    }
    println!(
        "{}: {} parameters, {} word pieces",
        out.display(),
        network.parameters(),
        network.manifest.vocabulary.len()
    );
    Ok(())
}

/// Tokenizes a sentence and runs a model on it.
type Infer = dyn FnMut(&Sentence) -> anyhow::Result<(Pieces, Outputs)>;

fn evaluate(corpus: &Corpus, model: &Path, json: Option<&Path>, onnxruntime: Option<&Path>) -> anyhow::Result<()> {
    let mut infer: Box<Infer> = if model.join("teacher.json").exists() {
        let library = onnxruntime.context("a teacher needs --onnxruntime or ORT_DYLIB_PATH")?;
        let mut teacher = Teacher::open(model, &Runtime::open(library)?, 1)?;
        Box::new(move |sentence| teacher.infer(sentence))
    } else {
        let (network, splitter) = TextNetwork::load(model)?;
        Box::new(move |sentence| network.infer(&splitter, sentence))
    };
    let mut score = Score::default();
    let started = Instant::now();
    for sentence in &corpus.val {
        let (pieces, outputs) = infer(sentence)?;
        score.add(sentence, &pieces, &outputs);
    }
    let each = started.elapsed().as_secs_f64() * 1e3 / corpus.val.len() as f64;
    println!(
        "{} val sentences: intent accuracy {:.3}, slot F1 {:.3}, sentence accuracy {:.3}; {each:.2} ms per sentence",
        score.sentences,
        score.intent_accuracy(),
        score.slot_f1(),
        score.sentence_accuracy()
    );
    if let Some(path) = json {
        let figures = json!({
            "intent_accuracy": score.intent_accuracy(),
            "slot_f1": score.slot_f1(),
            "sentence_accuracy": score.sentence_accuracy(),
            "milliseconds_a_sentence": each,
            "counts": score,
        });
        write_atomically(path, &serde_json::to_vec_pretty(&figures)?)?;
    }
    Ok(())
}

fn meaning(network: &TextNetwork, sentence: &Sentence, pieces: &Pieces, outputs: &Outputs) -> serde_json::Value {
    let labels: Vec<usize> = outputs.slots.iter().map(|row| likeliest(row)).collect();
    let slots: Vec<_> = runs(&labels)
        .into_iter()
        .filter_map(|(first, end, label)| {
            let words = sentence.text.get(pieces.bytes[first].start..pieces.bytes[end - 1].end)?;
            Some(json!({ "slot": network.manifest.slots[label - 1], "words": words }))
        })
        .collect();
    json!({ "sentence": sentence.text, "intent": network.manifest.intents[likeliest(&outputs.intent)], "slots": slots })
}
