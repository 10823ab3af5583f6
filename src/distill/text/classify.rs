//! What `distill text` does with a corpus of intents and slots.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{ensure, Context};
use indicatif::{ProgressBar, ProgressStyle};
use peregrine_core::files::{sha256, write_atomically};
use serde_json::json;

use super::args::{refuse, EvaluateArgs, NetworkArgs, SayArgs, SoftenArgs, StudentArgs, TeacherArgs};
use super::corpus::{unlabelled, Corpus, Sentence};
use super::network::TextNetwork;
use super::parts::Parts;
use super::pieces::{runs, Pieces, Splitter};
use super::score::{likeliest, Score};
use super::soft::{parse, Header, TextSoftTargets};
use super::teacher::Teacher;
use super::train::{train, TextTrainingSettings};
use super::Outputs;
use crate::lock::lock;
use crate::log::show;

/// In the student's folder during training.
const CHECKPOINT: &str = "checkpoint.safetensors";
/// Sentences that are softened before they are written.
const PART: usize = 64;
/// What the corpus is of, for messages.
const KIND: &str = "intents and slots";

/// The flags of a network for replies.
fn of_replies(network: &NetworkArgs) -> [(&'static str, bool); 3] {
    let NetworkArgs { layers, heads, vocabulary } = network;
    [("--layers", layers.is_some()), ("--heads", heads.is_some()), ("--vocabulary", vocabulary.is_some())]
}

/// Fits a teacher's heads.
///
/// # Errors
/// When a flag or a file is missing or invalid.
pub fn teacher(args: &TeacherArgs) -> anyhow::Result<()> {
    let training = &args.training;
    refuse(&args.corpus, KIND, &of_replies(&args.network_size))?;
    let flags = [
        ("--network", args.network.is_some()),
        ("--width", args.width.is_some()),
        ("--seed", training.seed.is_some()),
        ("--steps", training.steps.is_some()),
        ("--learning-rate", training.learning_rate.is_some()),
    ];
    refuse(&args.corpus, KIND, &flags)?;
    let needed = |what: &str| format!("a teacher of intents and slots needs {what}");
    let encoder = args.encoder.as_deref().with_context(|| needed("--encoder, a BERT-like network in ONNX"))?;
    let tokenizer = args.tokenizer.as_deref().with_context(|| needed("--tokenizer, the encoder's tokenizer.json"))?;
    let runtime = args.runtime.open("an encoder in ONNX")?;
    Teacher::fit(&Corpus::open(&args.corpus)?, encoder, tokenizer, &runtime, &args.out)?;
    println!("{}: fitted; evaluate it with `distill text evaluate --model {0}`", args.out.display());
    Ok(())
}

/// Writes the teacher's soft targets of the labelled and the unlabelled sentences.
///
/// # Errors
/// When a file is invalid, or the teacher is of other intents or slots.
pub fn soften(args: &SoftenArgs) -> anyhow::Result<()> {
    refuse(&args.corpus, KIND, &[("--top-k", args.top_k.is_some())])?;
    let (corpus, folder) = (Corpus::open(&args.corpus)?, &args.teacher);
    let mut teacher = Teacher::open(folder, &args.runtime.open("a teacher")?, 2)?;
    let same = teacher.manifest.intents == corpus.config.intents && teacher.manifest.slots == corpus.config.slots;
    ensure!(same, "{}: the teacher was fitted for other intents or slots", folder.display());
    let mut sentences = corpus.train;
    sentences.extend(args.unlabelled.as_deref().map(unlabelled).transpose()?.unwrap_or_default());
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} sentences, {per_sec:.0}, ETA {eta}")?;
    let bar = show(ProgressBar::new(sentences.len() as u64).with_style(style));
    let manifest = teacher.manifest.clone();
    let header = |sentences: &[Sentence]| Header {
        teacher: [manifest.encoder_sha256.clone(), manifest.heads_sha256.clone()],
        tokenizer_sha256: manifest.tokenizer_sha256.clone(),
        intents: manifest.intents.len(),
        slots: manifest.slots.len(),
        sentences: sentences.iter().map(|sentence| sentence.text.clone()).collect(),
    };
    let mut folder = args.out.clone().into_os_string();
    folder.push(".parts");
    let folder = PathBuf::from(folder);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let lock = lock(&folder, "another soften")?;
    let mut outputs = Vec::with_capacity(sentences.len());
    for sentences in sentences.chunks(PART) {
        let header = header(sentences);
        let inputs = format!("{} {header:?}", manifest.max_tokens);
        let make = || {
            let each = |sentence| Ok(teacher.infer(sentence)?.1);
            let outputs = sentences.iter().map(each).collect::<anyhow::Result<_>>()?;
            TextSoftTargets { header, outputs }.to_bytes()
        };
        outputs.extend(Parts(&folder).part(&inputs, parse, make)?.value.outputs);
        bar.inc(sentences.len() as u64);
    }
    bar.finish();
    TextSoftTargets { header: header(&sentences), outputs }.write(&args.out)?;
    // The file is complete, so that its parts are no longer needed.
    drop(lock);
    std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())
}

/// Trains a student.
///
/// # Errors
/// When a flag or a file is missing or invalid.
pub fn student(args: &StudentArgs) -> anyhow::Result<()> {
    let StudentArgs { alpha, temperature, width, out, .. } = args;
    refuse(&args.corpus, KIND, &of_replies(&args.network_size))?;
    refuse(&args.corpus, KIND, &[("--divergence", args.divergence.is_some())])?;
    ensure!((0.0..=1.0).contains(alpha), "--alpha is {alpha}; it must be 0 to 1");
    ensure!(*temperature > 0.0, "--temperature is {temperature}; it must be above 0");
    ensure!((1..=1024).contains(width), "--width is {width}; it must be 1 to 1024");
    let settings = TextTrainingSettings {
        seed: args.training.seed(),
        steps: args.training.steps(),
        learning_rate: args.training.learning_rate(),
        // Without a teacher the labels have the whole weight.
        alpha: if args.soft.is_some() { *alpha } else { 0.0 },
        temperature: *temperature,
        width: *width,
    };
    let corpus = Corpus::open(&args.corpus)?;
    let tokenizer = args.tokenizer.as_deref();
    let tokenizer =
        tokenizer.context("a student of intents and slots needs --tokenizer, the tokenizer.json of the teacher")?;
    let splitter = Splitter::open(tokenizer, corpus.config.max_tokens)?;
    let bytes = std::fs::read(tokenizer).with_context(|| tokenizer.display().to_string())?;
    let soft = args.soft.as_deref().map(TextSoftTargets::read).transpose()?;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} steps, loss {msg}, ETA {eta}")?;
    let bar = show(ProgressBar::new(settings.steps as u64).with_style(style));
    std::fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let checkpoint = out.join(CHECKPOINT);
    if args.training.fresh && checkpoint.exists() {
        std::fs::remove_file(&checkpoint).with_context(|| checkpoint.display().to_string())?;
    }
    let network = train(&corpus, &splitter, sha256(&bytes), soft.as_ref(), settings, &checkpoint, |step, loss| {
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

/// Prints the scores of a student or of a teacher on the corpus' val sentences.
///
/// # Errors
/// When a file is invalid.
pub fn evaluate(args: &EvaluateArgs) -> anyhow::Result<()> {
    refuse(&args.corpus, KIND, &[("--beams", args.beams.is_some())])?;
    let (corpus, model) = (Corpus::open(&args.corpus)?, &args.model);
    let mut infer: Box<Infer> = if model.join("teacher.json").exists() {
        let mut teacher = Teacher::open(model, &args.runtime.open("a teacher")?, 1)?;
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
    if let Some(path) = &args.json {
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

/// Prints what a student makes of a sentence.
///
/// # Errors
/// When the student cannot be read.
pub fn say(args: &SayArgs) -> anyhow::Result<()> {
    ensure!(args.beams.is_none(), "--beams does not fit {}, which gives no replies", args.model.display());
    let (network, splitter) = TextNetwork::load(&args.model)?;
    let sentence = Sentence { text: args.sentence.join(" "), intent: None, slots: Vec::new() };
    let (pieces, outputs) = network.infer(&splitter, &sentence)?;
    println!("{}", meaning(&network, &sentence, &pieces, &outputs));
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
