//! Perplexity, exact match of the replies, and time a token.

use std::time::Instant;

use serde::Serialize;

use super::generate::{log_sum_exp, reply};
use super::package::OpenedModel;
use super::task::{same_reply, Pair};

/// Counts over pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct ReplyScore {
    pub replies: usize,
    /// Replies that are the labelled ones, as JSON: greedy, and by beam search.
    pub greedy_right: usize,
    pub beam_right: usize,
    /// Greedy replies that had no end within the longest text.
    pub without_end: usize,
    /// Tokens of the labelled replies, with their ends.
    pub tokens: usize,
    /// The sum of `−ln p` over those tokens.
    pub surprise: f64,
    /// Tokens of the greedy replies, with their ends.
    pub generated: usize,
    /// Time for the greedy replies, their prompts included, in seconds.
    pub seconds: f64,
}

impl ReplyScore {
    /// `exp` of the mean of `−ln p` over the tokens of the labelled replies; at least 1.
    pub fn perplexity(&self) -> f64 {
        (self.surprise / self.tokens.max(1) as f64).exp()
    }

    /// Fractions of the replies that are right, greedy and by beam search, 0 to 1.
    pub fn exact_match(&self) -> [f64; 2] {
        [self.greedy_right, self.beam_right].map(|right| right as f64 / self.replies.max(1) as f64)
    }

    /// Milliseconds for each token of a greedy reply.
    pub fn milliseconds_a_token(&self) -> f64 {
        self.seconds * 1e3 / self.generated.max(1) as f64
    }
}

/// Judges a model on `pairs`, with `beams` beams beside the greedy replies; `on_pair` is called
/// with the number of pairs done.
///
/// # Errors
/// When a pair is too long, or the model fails.
pub fn judge(
    model: &mut OpenedModel,
    pairs: &[Pair],
    beams: usize,
    mut on_pair: impl FnMut(usize),
) -> anyhow::Result<ReplyScore> {
    let (most, end) = (model.manifest.max_tokens, model.tokens.end());
    let mut score = ReplyScore::default();
    for pair in pairs {
        let text = model.tokens.text(pair, most)?;
        let vocabulary = model.model.vocabulary();
        let logits = model.model.logits(&text.tokens)?;
        for position in text.taught() {
            let row = &logits[position * vocabulary..(position + 1) * vocabulary];
            score.surprise += log_sum_exp(row) - f64::from(row[text.tokens[position + 1] as usize]);
            score.tokens += 1;
        }
        let prompt = &text.tokens[..text.reply];
        let started = Instant::now();
        let greedy = reply(model.model.as_mut(), prompt, end, most, 1)?;
        score.seconds += started.elapsed().as_secs_f64();
        score.generated += greedy.tokens.len() + usize::from(greedy.complete);
        score.without_end += usize::from(!greedy.complete);
        let right = |tokens: &[u32]| Ok::<_, anyhow::Error>(same_reply(&model.tokens.decode(tokens)?, &pair.reply));
        score.greedy_right += usize::from(right(&greedy.tokens)?);
        if beams > 1 {
            let beam = reply(model.model.as_mut(), prompt, end, most, beams)?;
            score.beam_right += usize::from(right(&beam.tokens)?);
        } else {
            score.beam_right = score.greedy_right;
        }
        score.replies += 1;
        on_pair(score.replies);
    }
    Ok(score)
}

#[cfg(test)]
mod tests {
    use super::super::package::{ModelManifest, Source};
    use super::super::tokens::tests::small;
    use super::super::LanguageModel;
    use super::*;

    /// Gives every token the same probability, but for one text, whose tokens it knows.
    struct Knows {
        text: Vec<u32>,
        vocabulary: usize,
        /// Logit of the known token; the others have 0.
        logit: f32,
        length: usize,
    }

    impl Knows {
        fn row(&self, after: usize) -> Vec<f32> {
            let mut row = vec![0.0; self.vocabulary];
            row[self.text.get(after).map_or(0, |&token| token as usize)] = self.logit;
            row
        }
    }

    impl LanguageModel for Knows {
        fn vocabulary(&self) -> usize {
            self.vocabulary
        }

        fn positions(&self) -> usize {
            48
        }

        fn logits(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
            Ok((1..=text.len()).flat_map(|after| self.row(after)).collect())
        }

        fn begin(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>> {
            self.length = text.len();
            Ok(self.row(self.length))
        }

        fn advance(&mut self, texts: &[(usize, u32)]) -> anyhow::Result<Vec<Vec<f32>>> {
            self.length += 1;
            Ok(vec![self.row(self.length); texts.len()])
        }
    }

    #[test]
    fn perplexity_and_exact_match_equal_their_definitions() {
        let (corpus, tokens) = small();
        let pair = corpus.train[0].clone();
        let text = tokens.text(&pair, 48).unwrap();
        let vocabulary = tokens.vocabulary();
        let network = Source::Onnx { path: "".into(), sha256: String::new(), vocabulary, positions: 48 };
        let manifest = ModelManifest { name: "t".into(), max_tokens: 48, tokenizer_sha256: tokens.sha256(), network };
        let model = Box::new(Knows { text: text.tokens.clone(), vocabulary, logit: 12.0, length: 0 });
        let mut model = OpenedModel { manifest, tokens, model, parameters: None };
        let score = judge(&mut model, std::slice::from_ref(&pair), 3, |_| {}).unwrap();
        // Every token has the probability e¹² / (e¹² + vocabulary − 1).
        let expected = (12f64.exp() + vocabulary as f64 - 1.0) / 12f64.exp();
        assert!((score.perplexity() - expected).abs() < 1e-6, "{} {expected}", score.perplexity());
        assert_eq!((score.greedy_right, score.beam_right, score.without_end), (1, 1, 0));
        assert_eq!(score.generated, text.tokens.len() - text.reply);
        let other = Pair { reply: r#"{"action":"go"}"#.into(), ..pair };
        assert_eq!(judge(&mut model, &[other], 3, |_| {}).unwrap().exact_match(), [0.0, 0.0]);
    }
}
