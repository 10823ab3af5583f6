//! Arguments of `distill text`.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context};
use clap::{Args, Subcommand};

use super::causal::loss::Divergence;
use crate::teacher::Runtime;

/// Distil a language model into a small one for operator commands.
///
/// The corpus says which kind: one of intents and slots, with a BERT-like teacher
/// (models/commands/commands.toml), or one of replies in JSON, with a teacher of GPT-2's kind
/// (models/commands/replies.toml). Steps: teacher, soften, student, evaluate; `say` runs a model on
/// a sentence. Each goes on where it was interrupted.
#[derive(Debug, Args)]
pub struct TextArgs {
    #[command(subcommand)]
    pub command: TextCommand,
}

#[derive(Debug, Subcommand)]
pub enum TextCommand {
    /// Make a teacher: heads over a BERT-like encoder, or a language model, trained here or in
    /// ONNX.
    Teacher(TeacherArgs),
    /// Write the teacher's soft targets for the labelled and for unlabelled sentences.
    Soften(SoftenArgs),
    /// Train a student on labels and soft targets; without --soft on labels only.
    Student(StudentArgs),
    /// Evaluate a student or a teacher on the corpus' val sentences.
    Evaluate(EvaluateArgs),
    /// Run a model on a sentence: intent and slots, or the reply, as JSON.
    Say(SayArgs),
    /// Export a language model as ONNX, in GPT-2's layout.
    Export(ExportArgs),
}

#[derive(Debug, Args)]
pub struct TeacherArgs {
    /// Corpus description (see models/commands/commands.toml and replies.toml).
    pub corpus: PathBuf,
    /// BERT-like encoder in ONNX, for intents and slots (models/commands/export_bert.py makes one).
    #[arg(long)]
    pub encoder: Option<PathBuf>,
    /// Language model of GPT-2's layout in ONNX, for replies: input_ids to logits [batch,
    /// positions, vocabulary], exported without past keys and values. Without it a network is
    /// trained here.
    #[arg(long)]
    pub network: Option<PathBuf>,
    /// The network's tokenizer.json; for replies, without one, byte pairs are learnt from the
    /// corpus.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// Folder for the teacher; an interrupted run is resumed.
    #[arg(long, short)]
    pub out: PathBuf,
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Features per token of the network trained here [default: 128].
    #[arg(long)]
    pub width: Option<usize>,
    #[command(flatten)]
    pub network_size: NetworkArgs,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub struct SoftenArgs {
    pub corpus: PathBuf,
    /// Folder of `distill text teacher`.
    #[arg(long)]
    pub teacher: PathBuf,
    /// Unlabelled sentences, one per line (see models/commands/make_unlabelled.py and
    /// make_replies.py).
    #[arg(long)]
    pub unlabelled: Option<PathBuf>,
    /// File for the soft targets (.safetensors), or a folder for those of replies.
    #[arg(long, short)]
    pub out: PathBuf,
    /// Replies: likeliest tokens kept of each position; the others count together [default: 16].
    #[arg(long)]
    pub top_k: Option<usize>,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub struct StudentArgs {
    pub corpus: PathBuf,
    /// The tokenizer.json of the teacher. For replies it is that of the soft targets; without these
    /// and without one, byte pairs are learnt from the corpus.
    #[arg(long)]
    pub tokenizer: Option<PathBuf>,
    /// What `distill text soften` wrote.
    #[arg(long)]
    pub soft: Option<PathBuf>,
    /// Folder for the student; an interrupted training is resumed.
    #[arg(long, short)]
    pub out: PathBuf,
    #[command(flatten)]
    pub training: TrainingArgs,
    /// Weight of the distillation loss, 0 to 1; the labels have the rest.
    #[arg(long, default_value_t = 0.5)]
    pub alpha: f64,
    /// Both the teacher's and the student's logits are divided by it.
    #[arg(long, default_value_t = 2.0)]
    pub temperature: f64,
    /// Replies: KL(teacher ‖ student), or its reverse, which needs labels beside it (--alpha below 1)
    /// [default: forward].
    #[arg(long)]
    pub divergence: Option<Divergence>,
    /// Features per word piece or token.
    #[arg(long, default_value_t = 64)]
    pub width: usize,
    #[command(flatten)]
    pub network_size: NetworkArgs,
}

/// Of every training.
#[derive(Debug, Args)]
pub struct TrainingArgs {
    /// Start over instead of resuming from a checkpoint.
    #[arg(long)]
    pub fresh: bool,
    /// [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Optimizer steps of 32 sentences [default: 1500].
    #[arg(long)]
    pub steps: Option<usize>,
    /// [default: 0.003]
    #[arg(long)]
    pub learning_rate: Option<f64>,
}

/// Of a network for replies.
#[derive(Debug, Args)]
pub struct NetworkArgs {
    /// Replies: transformer layers [default: 4 of a teacher, 2 of a student].
    #[arg(long)]
    pub layers: Option<usize>,
    /// Replies: attention heads; they divide the width [default: 4].
    #[arg(long)]
    pub heads: Option<usize>,
    /// Replies: most byte-pair tokens to be learnt from the corpus [default: 512].
    #[arg(long)]
    pub vocabulary: Option<usize>,
}

#[derive(Debug, Args)]
pub struct EvaluateArgs {
    pub corpus: PathBuf,
    /// Folder of a student, or of a teacher.
    #[arg(long)]
    pub model: PathBuf,
    /// Also write the figures as JSON.
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Replies: beams of the beam search, beside the greedy replies [default: 4].
    #[arg(long)]
    pub beams: Option<usize>,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
}

#[derive(Debug, Args)]
pub struct SayArgs {
    #[arg(long)]
    pub model: PathBuf,
    /// Replies: beams of the beam search; 1 is greedy [default: 1].
    #[arg(long)]
    pub beams: Option<usize>,
    #[command(flatten)]
    pub runtime: RuntimeArgs,
    #[arg(required = true)]
    pub sentence: Vec<String>,
}

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Folder of a language model that was trained here.
    #[arg(long)]
    pub model: PathBuf,
    /// The ONNX file to write.
    #[arg(long, short)]
    pub out: PathBuf,
}

#[derive(Debug, Args)]
pub struct RuntimeArgs {
    /// The libonnxruntime.so of an onnxruntime wheel, for networks in ONNX.
    #[arg(long, env = "ORT_DYLIB_PATH")]
    onnxruntime: Option<PathBuf>,
}

impl RuntimeArgs {
    /// ONNX Runtime, for `what`.
    ///
    /// # Errors
    /// When it is not given or cannot be opened.
    pub fn open(&self, what: &str) -> anyhow::Result<Runtime> {
        let path = self.onnxruntime.as_deref();
        Runtime::open(path.with_context(|| format!("{what} needs --onnxruntime or ORT_DYLIB_PATH"))?)
    }
}

impl TrainingArgs {
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or(1)
    }

    pub fn steps(&self) -> usize {
        self.steps.unwrap_or(1500)
    }

    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(3e-3)
    }
}

/// Refuses the first flag that was given and does not fit the corpus at `corpus`, which is one of
/// `kind`.
///
/// # Errors
/// Names the flag.
pub fn refuse(corpus: &Path, kind: &str, flags: &[(&str, bool)]) -> anyhow::Result<()> {
    match flags.iter().find(|(_, given)| *given) {
        Some((flag, _)) => bail!("{flag} does not fit {}, which is a corpus of {kind}", corpus.display()),
        None => Ok(()),
    }
}
