//! Training of the text student, on labels and on the teacher's soft targets.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::ensure;
use candle_core::{Device, Result, Tensor};
use candle_nn::loss::cross_entropy;
use peregrine_core::files::sha256;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::corpus::{Corpus, Sentence};
use super::network::{TextNetwork, TextStudentManifest};
use super::pieces::Splitter;
use super::progress::Schedule;
use super::soft::TextSoftTargets;
use super::Outputs;
use crate::loss::soft::categorical;
use crate::tensor;

/// Probability of replacing a piece by the unknown one in training, so that its row is learnt.
const HIDDEN: f64 = 0.05;
/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 100;

/// Hyperparameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextTrainingSettings {
    pub seed: u64,
    /// Optimizer steps of 32 sentences.
    pub steps: usize,
    pub learning_rate: f64,
    /// Weight of the distillation loss, 0 to 1; the labels have the rest.
    pub alpha: f64,
    pub temperature: f64,
    /// Features per word piece.
    pub width: usize,
}

/// A training example: a sentence, its labels and its soft targets, if any.
#[derive(Debug)]
struct Example {
    ids: Vec<u32>,
    intent: Option<usize>,
    labels: Vec<usize>,
    teacher: Option<Outputs>,
}

/// Trains a student on the corpus' labelled sentences and on the soft targets' sentences, if any;
/// `on_step` is called after each step with its number and loss. The state is written to
/// `checkpoint` every 100 steps, from which an interrupted training is resumed.
///
/// # Errors
/// When the soft targets were made for other labels or with another tokenizer, the checkpoint
/// belongs to another training, or the loss is not finite.
pub fn train(
    corpus: &Corpus,
    splitter: &Splitter,
    tokenizer_sha256: String,
    soft: Option<&TextSoftTargets>,
    settings: TextTrainingSettings,
    checkpoint: &Path,
    on_step: impl FnMut(usize, f32),
) -> anyhow::Result<TextNetwork> {
    let config = &corpus.config;
    if let Some(header) = soft.map(|s| &s.header) {
        let [intents, slots] = [config.intents.len(), config.slots.len()];
        ensure!(
            header.tokenizer_sha256 == tokenizer_sha256 && header.intents == intents && header.slots == slots,
            "the soft targets were made with another tokenizer or for other labels; run `distill text soften` again"
        );
    }
    let examples = examples(corpus, splitter, soft)?;
    let vocabulary: BTreeSet<u32> = examples.iter().flat_map(|l| l.ids.iter().copied()).collect();
    let manifest = TextStudentManifest {
        name: config.name.clone(),
        intents: config.intents.clone(),
        slots: config.slots.clone(),
        max_tokens: config.max_tokens,
        width: settings.width,
        vocabulary: vocabulary.into_iter().collect(),
        tokenizer_sha256,
        weights_sha256: String::new(),
        teacher: soft.map(|s| s.header.teacher.clone()),
        seed: settings.seed,
    };
    let training = sha256(format!("{settings:?} {manifest:?} {examples:?}").as_bytes());
    let mut chance = ChaCha8Rng::seed_from_u64(settings.seed);
    let network = TextNetwork::random(manifest, &mut chance)?;
    let half_cosine = |step: usize| {
        let done = step as f64 / settings.steps as f64;
        settings.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    };
    let schedule = Schedule {
        steps: settings.steps,
        rate: &half_cosine,
        checkpoint,
        checkpoint_every: CHECKPOINT_EVERY,
        training: &training,
    };
    let of_batch = |batch: &[usize], chance: &mut ChaCha8Rng| {
        let batch: Vec<&Example> = batch.iter().map(|&i| &examples[i]).collect();
        loss(&network, &batch, settings, chance)
    };
    schedule.run(network.params(), chance, examples.len(), of_batch, on_step)?;
    Ok(network)
}

fn examples(corpus: &Corpus, splitter: &Splitter, soft: Option<&TextSoftTargets>) -> anyhow::Result<Vec<Example>> {
    let mut soft_outputs: HashMap<&str, &Outputs> = HashMap::new();
    if let Some(soft) = soft {
        soft_outputs.extend(soft.header.sentences.iter().map(String::as_str).zip(&soft.outputs));
    }
    let mut sentences: Vec<Sentence> = corpus.train.clone();
    let labelled: BTreeSet<&str> = corpus.train.iter().map(|s| s.text.as_str()).collect();
    let unlabelled = soft.iter().flat_map(|s| &s.header.sentences).filter(|text| !labelled.contains(text.as_str()));
    sentences.extend(unlabelled.map(|text| Sentence { text: text.clone(), intent: None, slots: Vec::new() }));
    let example = |sentence: Sentence| {
        let pieces = splitter.split(&sentence)?;
        let teacher = soft_outputs.get(sentence.text.as_str()).map(|outputs| (*outputs).clone());
        let rows = teacher.as_ref().map_or(pieces.ids.len(), |t| t.slots.len());
        ensure!(
            rows == pieces.ids.len(),
            "{:?}: the soft targets have another number of word pieces; run `distill text soften` again",
            sentence.text
        );
        Ok(Example { ids: pieces.ids, intent: sentence.intent, labels: pieces.labels, teacher })
    };
    sentences.into_iter().map(example).collect()
}

/// `α·T²·KL(teacher/T ‖ student/T) + (1−α)·cross-entropy`, over the intents of the sentences and
/// the slots of their pieces; each term over the examples with soft targets, or with labels.
fn loss(
    network: &TextNetwork,
    batch: &[&Example],
    settings: TextTrainingSettings,
    chance: &mut ChaCha8Rng,
) -> Result<Tensor> {
    let mut hide = |id: u32| if chance.random_bool(HIDDEN) { 0 } else { network.row(id) };
    let rows: Vec<Vec<u32>> = batch.iter().map(|l| l.ids.iter().map(|&id| hide(id)).collect()).collect();
    let input = TextNetwork::batch(&rows)?;
    let (intent, slots) = network.forward(&input)?;
    let pieces = input.ids.dim(1)?;
    let (mut by_label, mut by_teacher) = ([Rows::default(), Rows::default()], [Soft::default(), Soft::default()]);
    for (i, example) in batch.iter().enumerate() {
        if let Some(label) = example.intent {
            by_label[0].push(i, label);
            example.labels.iter().enumerate().for_each(|(k, &label)| by_label[1].push(i * pieces + k, label));
        }
        if let Some(teacher) = &example.teacher {
            by_teacher[0].push(i, &teacher.intent);
            teacher.slots.iter().enumerate().for_each(|(k, row)| by_teacher[1].push(i * pieces + k, row));
        }
    }
    let alpha = settings.alpha;
    let mut total = Tensor::zeros((), candle_core::DType::F32, &Device::Cpu)?;
    for (logits, (labels, teacher)) in [intent, slots].iter().zip(by_label.iter().zip(&by_teacher)) {
        if !labels.rows.is_empty() {
            let student =
                logits.index_select(&Tensor::from_slice(&labels.rows, labels.rows.len(), &Device::Cpu)?, 0)?;
            let targets = Tensor::from_slice(&labels.labels, labels.labels.len(), &Device::Cpu)?;
            total = (total + (cross_entropy(&student, &targets)? * (1.0 - alpha))?)?;
        }
        if !teacher.rows.is_empty() && alpha > 0.0 {
            let n = teacher.rows.len();
            let student = logits.index_select(&Tensor::from_slice(&teacher.rows, n, &Device::Cpu)?, 0)?;
            let targets = Tensor::from_slice(&teacher.logits, (n, teacher.logits.len() / n), &Device::Cpu)?;
            total = (total + (divergence(student, targets, settings.temperature)?.mean_all()? * alpha)?)?;
        }
    }
    Ok(total)
}

/// As [`categorical`] says, of candle's tensors.
fn divergence(student: Tensor, teacher: Tensor, temperature: f64) -> candle_core::Result<Tensor> {
    let loss = categorical(&tensor::Tensor::from(student), &tensor::Tensor::from(teacher), temperature)?;
    Ok(loss.on_host().expect("both are there").clone())
}

#[derive(Default)]
struct Rows {
    rows: Vec<u32>,
    labels: Vec<u32>,
}

impl Rows {
    fn push(&mut self, row: usize, label: usize) {
        self.rows.push(row as u32);
        self.labels.push(label as u32);
    }
}

#[derive(Default)]
struct Soft {
    rows: Vec<u32>,
    logits: Vec<f32>,
}

impl Soft {
    fn push(&mut self, row: usize, logits: &[f32]) {
        self.rows.push(row as u32);
        self.logits.extend_from_slice(logits);
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus::CorpusConfig;
    use super::super::pieces::tests::tokenizer;
    use super::super::score::{likeliest, Score};
    use super::super::soft::Header;
    use super::*;

    fn corpus() -> Corpus {
        let sentence = |text: &str, intent, slots: Vec<_>| Sentence { text: text.into(), intent: Some(intent), slots };
        let train = vec![
            sentence("stop at the gate", 0, vec![(8..16, 0)]),
            sentence("stop now", 0, vec![]),
            sentence("go to the gate", 1, vec![(6..14, 0)]),
            sentence("go now", 1, vec![]),
        ];
        let config = CorpusConfig {
            name: "test".into(),
            intents: vec!["stop".into(), "go".into()],
            slots: vec!["place".into()],
            max_tokens: 8,
            train: "train.txt".into(),
            val: "val.txt".into(),
        };
        Corpus { config, val: train.clone(), train }
    }

    fn splitter() -> Splitter {
        let folder = tempfile::tempdir().unwrap();
        let words = ["stop", "at", "the", "gate", "now", "go", "to", "halt"];
        Splitter::open(&tokenizer(folder.path(), &words), 8).unwrap()
    }

    const SETTINGS: TextTrainingSettings =
        TextTrainingSettings { seed: 1, steps: 80, learning_rate: 0.02, alpha: 0.0, temperature: 2.0, width: 8 };

    /// Trains without a checkpoint.
    fn train_from_scratch(
        soft: Option<&TextSoftTargets>,
        settings: TextTrainingSettings,
    ) -> anyhow::Result<TextNetwork> {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        train(&corpus(), &splitter(), "hash".into(), soft, settings, &checkpoint, |_, _| {})
    }

    #[test]
    fn a_resumed_training_equals_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        let settings = TextTrainingSettings { steps: 150, ..SETTINGS };
        let train = |settings: TextTrainingSettings| {
            let mut steps = Vec::new();
            let on_step = |step, loss: f32| steps.push((step, loss.to_bits()));
            let network = super::train(&corpus(), &splitter(), "hash".into(), None, settings, &checkpoint, on_step)?;
            anyhow::Ok((network.params()["embedding"].to_vec2::<f32>()?, steps))
        };
        let (whole, all) = train(settings).unwrap();
        let (resumed, rest) = train(settings).unwrap();
        assert!(rest[..] == all[100..] && resumed == whole, "{rest:?}");
        let error = format!("{:#}", train(TextTrainingSettings { width: 9, ..settings }).unwrap_err());
        assert!(error.contains("checkpoint") && error.contains("--fresh"), "{error}");
    }

    #[test]
    fn training_on_labels_alone_fits_them() {
        let (corpus, splitter) = (corpus(), splitter());
        let network = train_from_scratch(None, SETTINGS).unwrap();
        let mut score = Score::default();
        for sentence in &corpus.val {
            let (pieces, outputs) = network.infer(&splitter, sentence).unwrap();
            score.add(sentence, &pieces, &outputs);
        }
        assert_eq!(score.all_right, 4, "{score:?}");
    }

    #[test]
    fn an_unlabelled_word_is_learnt_from_the_teacher() {
        // "halt" has no label; the teacher classifies it as stop.
        let halt = Outputs { intent: vec![4.0, -4.0], slots: vec![vec![4.0, -4.0]; 4] };
        let header = Header {
            teacher: [String::new(), String::new()],
            tokenizer_sha256: "hash".into(),
            intents: 2,
            slots: 1,
            sentences: vec!["halt now".into()],
        };
        let soft = TextSoftTargets { header, outputs: vec![halt] };
        let settings = TextTrainingSettings { alpha: 0.5, ..SETTINGS };
        let network = train_from_scratch(Some(&soft), settings).unwrap();
        let sentence = Sentence { text: "halt".into(), intent: None, slots: vec![] };
        let (_, outputs) = network.infer(&splitter(), &sentence).unwrap();
        assert_eq!(likeliest(&outputs.intent), 0);
    }

    #[test]
    fn soft_targets_of_another_tokenizer_are_refused() {
        let header = Header {
            teacher: [String::new(), String::new()],
            tokenizer_sha256: "other".into(),
            intents: 2,
            slots: 1,
            sentences: vec![],
        };
        let soft = TextSoftTargets { header, outputs: vec![] };
        let error = train_from_scratch(Some(&soft), SETTINGS).unwrap_err();
        assert!(error.to_string().contains("soften"), "{error}");
    }
}
