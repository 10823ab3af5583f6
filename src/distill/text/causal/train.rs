//! Training of a language model, on pairs and on a teacher's soft targets.

use std::collections::HashMap;
use std::path::Path;

use anyhow::ensure;
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::loss::cross_entropy;
use peregrine_core::files::sha256;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::super::progress::Schedule;
use super::loss::{top, Divergence};
use super::network::{CausalNetwork, NetworkSize};
use super::package::{ModelManifest, Source};
use super::soft::{SoftText, VocabularySoftTargets};
use super::task::ReplyCorpus;
use super::tokens::{Text, Tokens};

/// Steps between checkpoints.
const CHECKPOINT_EVERY: usize = 50;
/// Part of the steps in which the learning rate rises to its value.
const WARM_UP: f64 = 0.05;

/// Hyperparameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CausalTrainingSettings {
    pub seed: u64,
    /// Optimizer steps of 32 texts.
    pub steps: usize,
    pub learning_rate: f64,
    /// Weight of the distillation loss, 0 to 1; the labels have the rest.
    pub alpha: f64,
    pub temperature: f64,
    pub divergence: Divergence,
    /// Features of each position.
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
}

/// A training example. The labels of its reply are used if it is of the corpus; a reply that only
/// the teacher gave has none.
#[derive(Debug)]
struct Example {
    text: Text,
    labelled: bool,
    teacher: Option<SoftText>,
}

/// Trains a network on the corpus' pairs and on the soft targets, if any; `on_step` is called after
/// each step with its number and loss. The state is written to `checkpoint` every 50 steps, from
/// which an interrupted training is resumed.
///
/// # Errors
/// When a pair is too long, the soft targets are of other pairs, the checkpoint belongs to another
/// training, or the loss is not finite.
pub fn train(
    corpus: &ReplyCorpus,
    tokens: &Tokens,
    soft: Option<&VocabularySoftTargets>,
    settings: CausalTrainingSettings,
    checkpoint: &Path,
    on_step: impl FnMut(usize, f32),
) -> anyhow::Result<(CausalNetwork, ModelManifest)> {
    let most = corpus.config.max_tokens;
    let CausalTrainingSettings { width, layers, heads, .. } = settings;
    let size = NetworkSize { vocabulary: tokens.vocabulary(), positions: most, width, layers, heads };
    size.check()?;
    let manifest = ModelManifest {
        name: corpus.config.name.clone(),
        max_tokens: most,
        tokenizer_sha256: tokens.sha256(),
        network: Source::Weights {
            size,
            weights_sha256: String::new(),
            teacher: soft.map(|soft| soft.index.teacher.clone()),
            seed: settings.seed,
        },
    };
    let examples = examples(tokens.texts(&corpus.train, most)?, soft)?;
    let index = soft.map(|soft| &soft.index);
    let texts: Vec<&Text> = examples.iter().map(|example| &example.text).collect();
    let training = sha256(format!("{settings:?} {manifest:?} {index:?} {texts:?}").as_bytes());
    let mut chance = ChaCha8Rng::seed_from_u64(settings.seed);
    let network = CausalNetwork::random(size, &mut chance)?;
    let schedule = Schedule {
        steps: settings.steps,
        rate: &|step| rate(settings, step),
        checkpoint,
        checkpoint_every: CHECKPOINT_EVERY,
        training: &training,
    };
    let of_batch = |batch: &[usize], _: &mut ChaCha8Rng| {
        let batch: Vec<&Example> = batch.iter().map(|&i| &examples[i]).collect();
        loss(&network, &batch, settings)
    };
    schedule.run(network.params(), chance, examples.len(), of_batch, on_step)?;
    Ok((network, manifest))
}

/// The learning rate: a linear rise, then half a cosine down to zero.
fn rate(settings: CausalTrainingSettings, step: usize) -> f64 {
    let done = (step as f64 + 0.5) / settings.steps as f64;
    settings.learning_rate * (done / WARM_UP).min(0.5 * (1.0 + (std::f64::consts::PI * done).cos()))
}

fn examples(pairs: Vec<Text>, soft: Option<&VocabularySoftTargets>) -> anyhow::Result<Vec<Example>> {
    let mut softened: HashMap<&Text, &SoftText> = soft.iter().flat_map(|s| &s.texts).map(|s| (&s.text, s)).collect();
    let mut examples = Vec::new();
    let mut missing = 0;
    for text in pairs {
        let teacher = softened.get(&text).map(|&soft| soft.clone());
        missing += usize::from(soft.is_some() && teacher.is_none());
        examples.push(Example { text, labelled: true, teacher });
    }
    ensure!(
        missing == 0,
        "{missing} of {} pairs have no soft targets: they were made of another corpus; run `distill text soften` again",
        examples.len()
    );
    for example in &examples {
        softened.remove(&example.text);
    }
    // In the order of the file, so that a training can be repeated.
    let more = soft.iter().flat_map(|s| &s.texts).filter(|soft| softened.contains_key(&soft.text));
    let example = |soft: &SoftText| Example { text: soft.text.clone(), labelled: false, teacher: Some(soft.clone()) };
    examples.extend(more.map(example));
    Ok(examples)
}

/// `α·T²·KL + (1−α)·cross-entropy` over the positions of the replies: the first over those with
/// soft targets, the second over those with labels.
fn loss(network: &CausalNetwork, batch: &[&Example], settings: CausalTrainingSettings) -> Result<Tensor> {
    let features = network.features(&padded(batch)?)?;
    let longest = batch.iter().map(|example| example.text.tokens.len()).max().unwrap_or(0);
    let (mut rows, mut labels) = (Vec::new(), Vec::new());
    let (mut soft_rows, mut likeliest, mut teacher) = (Vec::new(), Vec::new(), Vec::<f32>::new());
    for (i, Example { text, labelled, teacher: soft }) in batch.iter().enumerate() {
        let taught = text.taught().map(|position| (i * longest + position) as u32);
        if *labelled && settings.alpha < 1.0 {
            rows.extend(taught.clone());
            labels.extend_from_slice(&text.tokens[text.reply..]);
        }
        if let Some(soft) = soft.as_ref().filter(|_| settings.alpha > 0.0) {
            soft_rows.extend(taught);
            likeliest.extend_from_slice(&soft.tokens);
            let each = soft.log_probabilities.chunks_exact(soft.tokens.len() / soft.rest.len());
            each.zip(&soft.rest).for_each(|(best, rest)| teacher.extend(best.iter().chain([rest])));
        }
    }
    let device = &Device::Cpu;
    let logits = |rows: Vec<u32>| -> Result<Tensor> {
        network.logits(&features.index_select(&Tensor::from_vec(rows.clone(), rows.len(), device)?, 0)?)
    };
    let mut total = Tensor::zeros((), DType::F32, device)?;
    if !rows.is_empty() {
        let targets = Tensor::from_vec(labels, rows.len(), device)?;
        total = (total + (cross_entropy(&logits(rows)?, &targets)? * (1.0 - settings.alpha))?)?;
    }
    if !soft_rows.is_empty() {
        let (n, k) = (soft_rows.len(), likeliest.len() / soft_rows.len());
        let likeliest = Tensor::from_vec(likeliest, (n, k), device)?;
        let teacher = Tensor::from_vec(teacher, (n, k + 1), device)?;
        let each = top(&logits(soft_rows)?, &likeliest, &teacher, settings.temperature, settings.divergence)?;
        total = (total + (each.mean_all()? * settings.alpha)?)?;
    }
    Ok(total)
}

/// The texts of a batch, padded at their ends to the longest, `[texts, tokens]`.
fn padded(batch: &[&Example]) -> Result<Tensor> {
    let longest = batch.iter().map(|example| example.text.tokens.len()).max().unwrap_or(0);
    let row = |example: &&Example| {
        let tokens = &example.text.tokens;
        tokens.iter().copied().chain(std::iter::repeat_n(0, longest - tokens.len())).collect::<Vec<u32>>()
    };
    Tensor::from_vec(batch.iter().flat_map(row).collect(), (batch.len(), longest), &Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::super::cached::CachedNetwork;
    use super::super::package::OpenedModel;
    use super::super::score::{judge, ReplyScore};
    use super::super::soften::soften;
    use super::super::tokens::tests::small;
    use super::*;

    const SETTINGS: CausalTrainingSettings = CausalTrainingSettings {
        seed: 1,
        steps: 120,
        learning_rate: 0.02,
        alpha: 0.0,
        temperature: 1.0,
        divergence: Divergence::Forward,
        width: 32,
        layers: 1,
        heads: 2,
    };

    fn train_from_scratch(
        soft: Option<&VocabularySoftTargets>,
        settings: CausalTrainingSettings,
    ) -> anyhow::Result<(CausalNetwork, ModelManifest)> {
        let folder = tempfile::tempdir().unwrap();
        let (corpus, tokens) = small();
        train(&corpus, &tokens, soft, settings, &folder.path().join("checkpoint"), |_, _| {})
    }

    fn opened((network, manifest): (CausalNetwork, ModelManifest)) -> OpenedModel {
        let model = Box::new(CachedNetwork::new(network));
        OpenedModel { manifest, tokens: small().1, model, parameters: None }
    }

    fn score(model: &mut OpenedModel) -> ReplyScore {
        judge(model, &small().0.train, 2, |_| {}).unwrap()
    }

    #[test]
    fn a_resumed_training_equals_an_uninterrupted_one() {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = folder.path().join("checkpoint");
        let (corpus, tokens) = small();
        let settings = CausalTrainingSettings { steps: 70, ..SETTINGS };
        let train = |settings: CausalTrainingSettings| {
            let mut steps = Vec::new();
            let on_step = |step, loss: f32| steps.push((step, loss.to_bits()));
            let (network, _) = super::train(&corpus, &tokens, None, settings, &checkpoint, on_step)?;
            anyhow::Ok((network.params()["wte.weight"].to_vec2::<f32>()?, steps))
        };
        let (whole, all) = train(settings).unwrap();
        let (resumed, rest) = train(settings).unwrap();
        assert!(rest[..] == all[50..] && resumed == whole, "{rest:?}");
        let error = format!("{:#}", train(CausalTrainingSettings { width: 34, ..settings }).unwrap_err());
        assert!(error.contains("checkpoint") && error.contains("--fresh"), "{error}");
    }

    #[test]
    fn training_on_pairs_learns_their_replies() {
        let score = score(&mut opened(train_from_scratch(None, SETTINGS).unwrap()));
        assert_eq!((score.greedy_right, score.beam_right), (score.replies, score.replies), "{score:?}");
        assert!(score.perplexity() < 1.2, "{}", score.perplexity());
    }

    #[test]
    fn a_student_learns_from_its_teacher() {
        let (corpus, _) = small();
        let folder = tempfile::tempdir().unwrap();
        let mut teacher = opened(train_from_scratch(None, SETTINGS).unwrap());
        soften(&corpus, &mut teacher, &[], folder.path(), 3, |_| Ok(())).unwrap();
        let (soft, _) = VocabularySoftTargets::open(folder.path()).unwrap();
        // A student that knows nothing yet is led nowhere by the reverse alone.
        for (divergence, alpha) in [(Divergence::Forward, 1.0), (Divergence::Reverse, 0.5)] {
            let settings = CausalTrainingSettings { alpha, divergence, seed: 2, steps: 250, ..SETTINGS };
            let score = score(&mut opened(train_from_scratch(Some(&soft), settings).unwrap()));
            assert!(score.greedy_right * 10 >= score.replies * 9, "{divergence:?} {score:?}");
        }
    }

    #[test]
    fn a_command_without_a_label_is_learnt_from_the_teacher() {
        let (_, tokens) = small();
        let pair = super::super::task::Pair {
            command: "halt".into(),
            reply: r#"{"action":"stop"}"#.into(),
            place: String::new(),
        };
        let (corpus, mut texts) = (small().0, Vec::new());
        for text in tokens.texts(&corpus.train, 48).unwrap().into_iter().chain([tokens.text(&pair, 48).unwrap()]) {
            let next = text.taught().map(|position| text.tokens[position + 1]).collect::<Vec<u32>>();
            let n = next.len();
            texts.push(SoftText { text, tokens: next, log_probabilities: vec![-0.01; n], rest: vec![-4.6; n] });
        }
        let index = super::super::soft::Index {
            teacher: String::new(),
            tokenizer_sha256: tokens.sha256(),
            vocabulary: tokens.vocabulary(),
            top_k: 1,
            without_reply: 0,
            shards: Vec::new(),
        };
        let mut soft = VocabularySoftTargets { index, texts };
        let settings = CausalTrainingSettings { alpha: 0.5, ..SETTINGS };
        let mut model = opened(train_from_scratch(Some(&soft), settings).unwrap());
        let score = judge(&mut model, &[pair], 1, |_| {}).unwrap();
        assert_eq!(score.greedy_right, 1, "{score:?}");
        soft.texts.remove(0);
        let error = train_from_scratch(Some(&soft), settings).unwrap_err().to_string();
        assert!(error.starts_with("1 of 15 pairs have no soft targets"), "{error}");
    }

    #[test]
    fn the_learning_rate_rises_then_falls_to_zero() {
        let settings = CausalTrainingSettings { steps: 1000, learning_rate: 0.01, ..SETTINGS };
        let rates: Vec<f64> = (0..1000).map(|step| rate(settings, step)).collect();
        let top = rates.iter().copied().fold(0.0, f64::max);
        assert!(rates[0] < 1e-3 && rates[999] < 1e-6 && top > 0.009 && top <= 0.01);
        assert!(rates[..45].is_sorted() && rates[55..].windows(2).all(|pair| pair[0] > pair[1]));
    }
}
