//! Language models that answer an operator's command with a structured reply
//! ("stop at the next crossing" → `{"action":"stop","place":"next crossing"}`).
//!
//! A teacher is a network of GPT-2's kind, trained here or in ONNX; the student is a smaller one of
//! the same kind, over the same byte-pair tokens.
//!
//! - [`task`]: pairs of a command and its reply on disk; [`tokens`]: their tokens.
//! - [`network`]: the transformer; [`cached`]: its replies token by token; [`gpt2`]: a network in
//!   ONNX; [`package`]: the folder of either.
//! - [`soft`]: the teacher's soft targets on disk; [`soften`]: how they are made; [`loss`]: what is
//!   learnt from them; [`train`]: training.
//! - [`generate`]: replies, greedy and by beam search; [`score`]: perplexity and exact match.
//! - [`export`]: a network as ONNX; [`command`]: what `distill text` does with a corpus of replies.

pub mod cached;
pub mod command;
pub mod export;
pub mod generate;
pub mod gpt2;
pub mod loss;
pub mod network;
pub mod package;
pub mod score;
pub mod soft;
pub mod soften;
pub mod task;
pub mod tokens;
pub mod train;

/// A network that gives the logits of the next token, and that texts can be continued with.
pub trait LanguageModel {
    /// Tokens that it knows.
    fn vocabulary(&self) -> usize;

    /// Longest text, in tokens.
    fn positions(&self) -> usize;

    /// Logits after each token of `text`, `[tokens][vocabulary]`, row by row.
    ///
    /// # Errors
    /// When the network fails or the text is longer than its positions.
    fn logits(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>>;

    /// Begins one text; the logits after its last token.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    fn begin(&mut self, text: &[u32]) -> anyhow::Result<Vec<f32>>;

    /// Continues texts: each is one of those so far, by its index, and its next token. Gives the
    /// logits after each; those that none continues are forgotten.
    ///
    /// # Errors
    /// As [`logits`](Self::logits).
    fn advance(&mut self, texts: &[(usize, u32)]) -> anyhow::Result<Vec<Vec<f32>>>;
}
