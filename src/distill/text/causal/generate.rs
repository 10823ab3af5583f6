//! Replies, token by token: greedy, or by beam search.

use super::LanguageModel;

/// A reply's tokens, without the end, and whether it has one.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub tokens: Vec<u32>,
    /// False where the longest text was reached first.
    pub complete: bool,
    /// Natural logarithm of its probability.
    pub log_probability: f64,
}

/// The reply to `prompt` by beam search with `beams` beams, at most until the whole has `most`
/// tokens; with one beam, greedy. Of complete replies the likeliest found, with no correction for
/// length: as probabilities only fall, the search may end when no beam is likelier.
///
/// # Errors
/// When the model fails.
///
/// # Panics
/// When `prompt` is empty or `beams` is zero.
pub fn reply(
    model: &mut dyn LanguageModel,
    prompt: &[u32],
    end: u32,
    most: usize,
    beams: usize,
) -> anyhow::Result<Reply> {
    assert!(!prompt.is_empty() && beams > 0);
    let longest = most.min(model.positions()).saturating_sub(prompt.len());
    let mut alive = vec![Reply { tokens: Vec::new(), complete: false, log_probability: 0.0 }];
    let mut best: Option<Reply> = None;
    if longest == 0 {
        return Ok(alive.remove(0));
    }
    let mut logits = vec![model.begin(prompt)?];
    for length in 1..=longest {
        let mut next = continued(&alive, &logits, beams);
        let mut texts = Vec::with_capacity(next.len());
        let mut kept = Vec::with_capacity(next.len());
        for (from, token, log_probability) in next.drain(..) {
            let mut reply = Reply { log_probability, ..alive[from].clone() };
            if token == end {
                reply.complete = true;
                if best.as_ref().is_none_or(|best| best.log_probability < log_probability) {
                    best = Some(reply);
                }
            } else {
                reply.tokens.push(token);
                texts.push((from, token));
                kept.push(reply);
            }
        }
        let least = best.as_ref().map_or(f64::NEG_INFINITY, |best| best.log_probability);
        if kept.iter().all(|reply| reply.log_probability <= least) {
            break;
        }
        alive = kept;
        if length < longest {
            logits = model.advance(&texts)?;
        }
    }
    Ok(best.unwrap_or_else(|| alive.remove(0)))
}

/// The likeliest `beams` continuations, likeliest first: which text, its next token, and the
/// logarithm of the whole's probability. Of equals the smaller token first.
fn continued(alive: &[Reply], logits: &[Vec<f32>], beams: usize) -> Vec<(usize, u32, f64)> {
    let mut next: Vec<(usize, u32, f64)> = Vec::new();
    for (from, (reply, logits)) in alive.iter().zip(logits).enumerate() {
        let all = log_sum_exp(logits);
        for (token, &logit) in logits.iter().enumerate() {
            let log_probability = reply.log_probability + f64::from(logit) - all;
            if next.len() < beams || next.last().is_some_and(|last| last.2 < log_probability) {
                let at = next.partition_point(|other| other.2 >= log_probability);
                next.insert(at, (from, token as u32, log_probability));
                next.truncate(beams);
            }
        }
    }
    next
}

/// `ln Σ exp`, of finite values or none.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - most).exp()).sum();
    f64::from(most) + sum.ln()
}

#[cfg(test)]
mod tests {
    use super::super::cached::CachedNetwork;
    use super::super::network::tests::{network, SIZE};
    use super::super::network::NetworkSize;
    use super::*;

    const END: u32 = 0;

    /// Log probability of every reply of at most `longest` tokens that has an end.
    fn all(
        model: &mut CachedNetwork,
        text: &mut Vec<u32>,
        so_far: f64,
        longest: usize,
        found: &mut Vec<(Vec<u32>, f64)>,
    ) {
        let logits = model.logits(text).unwrap();
        let logits = logits[logits.len() - model.vocabulary()..].to_vec();
        let sum = log_sum_exp(&logits);
        for (token, logit) in logits.into_iter().enumerate() {
            let so_far = so_far + f64::from(logit) - sum;
            if token as u32 == END {
                found.push((text[2..].to_vec(), so_far));
            } else if longest > 1 {
                text.push(token as u32);
                all(model, text, so_far, longest - 1, found);
                text.pop();
            }
        }
    }

    #[test]
    fn beams_enough_find_the_likeliest_of_all_replies() {
        for vocabulary in [3, 4, 5] {
            let size = NetworkSize { vocabulary, ..SIZE };
            let mut model = CachedNetwork::new(network(size));
            let mut found = Vec::new();
            all(&mut model, &mut vec![1, 2], 0.0, 4, &mut found);
            let best = found.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
            let reply = reply(&mut model, &[1, 2], END, 6, 125).unwrap();
            assert!(reply.complete);
            assert_eq!(reply.tokens, best.0);
            assert!((reply.log_probability - best.1).abs() < 1e-5);
        }
    }

    #[test]
    fn one_beam_takes_the_likeliest_token_each_time() {
        let mut model = CachedNetwork::new(network(SIZE));
        let mut text = vec![4, 2];
        while text.len() < SIZE.positions {
            let logits = model.logits(&text).unwrap();
            let last = &logits[logits.len() - SIZE.vocabulary..];
            let token = super::super::super::score::likeliest(last) as u32;
            if token == END {
                break;
            }
            text.push(token);
        }
        let reply = reply(&mut model, &[4, 2], END, 100, 1).unwrap();
        assert_eq!(reply.tokens, text[2..]);
        assert_eq!(reply.complete, text.len() < SIZE.positions);
    }

    #[test]
    fn a_prompt_that_fills_the_positions_has_no_reply() {
        let mut model = CachedNetwork::new(network(SIZE));
        let reply = reply(&mut model, &[1; 9], END, 100, 2).unwrap();
        assert!(reply.tokens.is_empty() && !reply.complete);
    }
}
