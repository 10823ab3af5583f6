//! How the language student learns: labels where there are some, the teacher's softened outputs wherever it was asked.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{bail, ensure, Context};
use candle_core::{Device, Result, Tensor};
use candle_nn::loss::cross_entropy;
use peregrine_core::files::sha256;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::corpus::{Corpus, Sentence};
use super::network::{Manifest, Network};
use super::pieces::Splitter;
use super::progress::Progress;
use super::soft::SoftTargets;
use super::Outputs;
use crate::loss::soft::categorical;

const BATCH: usize = 32;
/// Chance that a piece is hidden in training, so that the row of unknown pieces is learnt.
const HIDDEN: f64 = 0.05;
/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 100;

/// What may be chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub seed: u64,
    /// Optimizer steps of 32 sentences.
    pub steps: usize,
    pub learning_rate: f64,
    /// Weight of the teacher against the labels, 0 to 1.
    pub alpha: f64,
    pub temperature: f64,
    /// Features a word piece.
    pub width: usize,
}

/// A sentence with all that is known of it.
#[derive(Debug)]
struct Lesson {
    ids: Vec<u32>,
    intent: Option<usize>,
    labels: Vec<usize>,
    teacher: Option<Outputs>,
}

/// Trains a student on the corpus' labelled sentences and, where given, on the soft targets' sentences; `seen` is called
/// after each step with its number and loss. What it has come to is written to `checkpoint` every 100 steps, and it goes on
/// from there when it is started again.
///
/// # Errors
/// When the soft targets were made for other labels or by another tokenizer, the checkpoint is another training's, or the
/// loss is not finite.
pub fn train(
    corpus: &Corpus,
    splitter: &Splitter,
    tokenizer_sha256: String,
    soft: Option<&SoftTargets>,
    settings: Settings,
    checkpoint: &Path,
    mut seen: impl FnMut(usize, f32),
) -> anyhow::Result<Network> {
    let description = &corpus.description;
    if let Some(header) = soft.map(|s| &s.header) {
        let [intents, slots] = [description.intents.len(), description.slots.len()];
        ensure!(
            header.tokenizer_sha256 == tokenizer_sha256 && header.intents == intents && header.slots == slots,
            "the soft targets were made with another tokenizer or for other labels; run `distill text soften` again"
        );
    }
    let lessons = lessons(corpus, splitter, soft)?;
    let vocabulary: BTreeSet<u32> = lessons.iter().flat_map(|l| l.ids.iter().copied()).collect();
    let manifest = Manifest {
        name: description.name.clone(),
        intents: description.intents.clone(),
        slots: description.slots.clone(),
        max_tokens: description.max_tokens,
        width: settings.width,
        vocabulary: vocabulary.into_iter().collect(),
        tokenizer_sha256,
        weights_sha256: String::new(),
        teacher: soft.map(|s| s.header.teacher.clone()),
        seed: settings.seed,
    };
    let training = sha256(format!("{settings:?} {manifest:?} {lessons:?}").as_bytes());
    let mut chance = ChaCha8Rng::seed_from_u64(settings.seed);
    let network = Network::random(manifest, &mut chance)?;
    let mut progress = Progress::new(network.params(), chance)?;
    if checkpoint.exists() {
        let at = || checkpoint.display().to_string();
        progress.load(network.params(), checkpoint, &training).with_context(at)?;
    }
    for step in progress.step..settings.steps {
        while progress.order.len() < BATCH.min(lessons.len()) {
            let mut again: Vec<usize> = (0..lessons.len()).collect();
            again.shuffle(&mut progress.chance);
            progress.order.extend(again);
        }
        let batch: Vec<&Lesson> = progress.order.drain(..BATCH.min(lessons.len())).map(|i| &lessons[i]).collect();
        let done = step as f64 / settings.steps as f64;
        let rate = settings.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        let loss = loss(&network, &batch, settings, &mut progress.chance)?;
        let value = loss.to_scalar::<f32>()?;
        if !value.is_finite() {
            bail!("the loss of step {step} is not finite; lower the learning rate");
        }
        progress.update(network.params(), &loss.backward()?, rate)?;
        if progress.step % CHECKPOINT_EVERY == 0 {
            progress.save(network.params(), checkpoint, &training)?;
        }
        seen(step + 1, value);
    }
    Ok(network)
}

fn lessons(corpus: &Corpus, splitter: &Splitter, soft: Option<&SoftTargets>) -> anyhow::Result<Vec<Lesson>> {
    let mut asked: HashMap<&str, &Outputs> = HashMap::new();
    if let Some(soft) = soft {
        asked.extend(soft.header.sentences.iter().map(String::as_str).zip(&soft.outputs));
    }
    let mut sentences: Vec<Sentence> = corpus.train.clone();
    let labelled: BTreeSet<&str> = corpus.train.iter().map(|s| s.text.as_str()).collect();
    let unlabelled = soft.iter().flat_map(|s| &s.header.sentences).filter(|text| !labelled.contains(text.as_str()));
    sentences.extend(unlabelled.map(|text| Sentence { text: text.clone(), intent: None, slots: Vec::new() }));
    let lesson = |sentence: Sentence| {
        let pieces = splitter.split(&sentence)?;
        let teacher = asked.get(sentence.text.as_str()).map(|outputs| (*outputs).clone());
        let rows = teacher.as_ref().map_or(pieces.ids.len(), |t| t.slots.len());
        ensure!(rows == pieces.ids.len(), "{:?}: the soft targets split it otherwise; soften again", sentence.text);
        Ok(Lesson { ids: pieces.ids, intent: sentence.intent, labels: pieces.labels, teacher })
    };
    sentences.into_iter().map(lesson).collect()
}

/// `α·T²·KL(teacher/T ‖ student/T) + (1−α)·cross-entropy`, over the intents of the sentences and the slots of their pieces;
/// each of the two over what has a teacher, or a label.
fn loss(network: &Network, batch: &[&Lesson], settings: Settings, chance: &mut ChaCha8Rng) -> Result<Tensor> {
    let mut hide = |id: u32| if chance.random_bool(HIDDEN) { 0 } else { network.row(id) };
    let rows: Vec<Vec<u32>> = batch.iter().map(|l| l.ids.iter().map(|&id| hide(id)).collect()).collect();
    let input = Network::batch(&rows)?;
    let (intent, slots) = network.forward(&input)?;
    let pieces = input.ids.dim(1)?;
    let (mut by_label, mut by_teacher) = ([Rows::default(), Rows::default()], [Soft::default(), Soft::default()]);
    for (i, lesson) in batch.iter().enumerate() {
        if let Some(label) = lesson.intent {
            by_label[0].push(i, label);
            lesson.labels.iter().enumerate().for_each(|(k, &label)| by_label[1].push(i * pieces + k, label));
        }
        if let Some(teacher) = &lesson.teacher {
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
            total = (total + (categorical(&student, &targets, settings.temperature)?.mean_all()? * alpha)?)?;
        }
    }
    Ok(total)
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
    use super::super::corpus::Description;
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
        let description = Description {
            name: "test".into(),
            intents: vec!["stop".into(), "go".into()],
            slots: vec!["place".into()],
            max_tokens: 8,
            train: "train.txt".into(),
            val: "val.txt".into(),
        };
        Corpus { description, val: train.clone(), train }
    }

    fn splitter() -> Splitter {
        let folder = tempfile::tempdir().unwrap();
        let words = ["stop", "at", "the", "gate", "now", "go", "to", "halt"];
        Splitter::open(&tokenizer(folder.path(), &words), 8).unwrap()
    }

    const SETTINGS: Settings =
        Settings { seed: 1, steps: 80, learning_rate: 0.02, alpha: 0.0, temperature: 2.0, width: 8 };

    /// Trains where nothing has been trained before.
    fn train_anew(soft: Option<&SoftTargets>, settings: Settings) -> anyhow::Result<Network> {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        train(&corpus(), &splitter(), "hash".into(), soft, settings, &checkpoint, |_, _| {})
    }

    #[test]
    fn a_training_that_goes_on_from_its_checkpoint_comes_to_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        let settings = Settings { steps: 150, ..SETTINGS };
        let train = |settings: Settings| {
            let mut steps = Vec::new();
            let seen = |step, loss: f32| steps.push((step, loss.to_bits()));
            let network = super::train(&corpus(), &splitter(), "hash".into(), None, settings, &checkpoint, seen)?;
            anyhow::Ok((network.params()["embedding"].to_vec2::<f32>()?, steps))
        };
        let (whole, all) = train(settings).unwrap();
        let (resumed, rest) = train(settings).unwrap();
        assert!(rest[..] == all[100..] && resumed == whole, "{rest:?}");
        let error = format!("{:#}", train(Settings { width: 9, ..settings }).unwrap_err());
        assert!(error.contains("checkpoint") && error.contains("--fresh"), "{error}");
    }

    #[test]
    fn labels_alone_teach_what_they_say() {
        let (corpus, splitter) = (corpus(), splitter());
        let network = train_anew(None, SETTINGS).unwrap();
        let mut score = Score::default();
        for sentence in &corpus.val {
            let (pieces, outputs) = network.understand(&splitter, sentence).unwrap();
            score.add(sentence, &pieces, &outputs);
        }
        assert_eq!(score.all_right, 4, "{score:?}");
    }

    #[test]
    fn a_word_without_a_label_is_learnt_from_the_teacher() {
        // No label knows "halt"; the teacher takes it for a stop.
        let halt = Outputs { intent: vec![4.0, -4.0], slots: vec![vec![4.0, -4.0]; 4] };
        let header = Header {
            teacher: [String::new(), String::new()],
            tokenizer_sha256: "hash".into(),
            intents: 2,
            slots: 1,
            sentences: vec!["halt now".into()],
        };
        let soft = SoftTargets { header, outputs: vec![halt] };
        let settings = Settings { alpha: 0.5, ..SETTINGS };
        let network = train_anew(Some(&soft), settings).unwrap();
        let sentence = Sentence { text: "halt".into(), intent: None, slots: vec![] };
        let (_, outputs) = network.understand(&splitter(), &sentence).unwrap();
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
        let soft = SoftTargets { header, outputs: vec![] };
        let error = train_anew(Some(&soft), SETTINGS).unwrap_err();
        assert!(error.to_string().contains("soften"), "{error}");
    }
}
