//! Intent accuracy and slot F1.

use serde::Serialize;

use super::corpus::Sentence;
use super::pieces::{runs, Pieces};
use super::Outputs;

/// Counts over labelled sentences.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Score {
    pub sentences: usize,
    /// Sentences whose predicted intent is the labelled one.
    pub intents_right: usize,
    pub slots_labelled: usize,
    pub slots_found: usize,
    /// Predicted with exactly the labelled words and slot.
    pub slots_right: usize,
    /// Sentences with the correct intent and all slots correct.
    pub all_right: usize,
}

impl Score {
    /// Adds one sentence.
    pub fn add(&mut self, sentence: &Sentence, pieces: &Pieces, outputs: &Outputs) {
        let found = runs(&outputs.slots.iter().map(|row| likeliest(row)).collect::<Vec<_>>());
        let labelled = runs(&pieces.labels);
        let right = found.iter().filter(|run| labelled.contains(run)).count();
        let intent_right = sentence.intent == Some(likeliest(&outputs.intent));
        self.sentences += 1;
        self.intents_right += usize::from(intent_right);
        self.slots_labelled += labelled.len();
        self.slots_found += found.len();
        self.slots_right += right;
        self.all_right += usize::from(intent_right && found == labelled);
    }

    /// Fraction of sentences with the correct intent, 0 to 1.
    pub fn intent_accuracy(&self) -> f64 {
        self.intents_right as f64 / self.sentences.max(1) as f64
    }

    /// Harmonic mean of the slots' precision and recall, 0 to 1 (exact match, as in the CoNLL-2000
    /// shared task).
    pub fn slot_f1(&self) -> f64 {
        2.0 * self.slots_right as f64 / (self.slots_found + self.slots_labelled).max(1) as f64
    }

    /// Fraction of sentences with correct intent and slots, 0 to 1.
    pub fn sentence_accuracy(&self) -> f64 {
        self.all_right as f64 / self.sentences.max(1) as f64
    }
}

/// Index of the largest value, the first of equals.
pub fn likeliest(logits: &[f32]) -> usize {
    (1..logits.len()).fold(0, |best, i| if logits[i] > logits[best] { i } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_counts_only_with_exactly_its_words() {
        let sentence = Sentence { text: String::new(), intent: Some(1), slots: vec![] };
        let pieces = Pieces { ids: vec![0; 6], bytes: vec![0..0; 6], labels: vec![0, 1, 1, 0, 2, 0] };
        let rows =
            |labels: [usize; 6]| labels.map(|l| (0..3).map(|c| if c == l { 1.0 } else { 0.0 }).collect()).to_vec();
        let mut score = Score::default();
        score.add(&sentence, &pieces, &Outputs { intent: vec![0.0, 1.0], slots: rows([0, 1, 1, 0, 2, 0]) });
        // One slot too short, one correct; the intent wrong.
        score.add(&sentence, &pieces, &Outputs { intent: vec![2.0, 1.0], slots: rows([0, 1, 0, 0, 2, 0]) });
        let expected =
            Score { sentences: 2, intents_right: 1, slots_labelled: 4, slots_found: 4, slots_right: 3, all_right: 1 };
        assert_eq!(score, expected);
        assert_eq!((score.intent_accuracy(), score.slot_f1()), (0.5, 0.75));
    }
}
