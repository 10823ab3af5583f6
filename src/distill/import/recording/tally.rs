//! What an import left out, and why.

use std::collections::BTreeMap;

use peregrine_recording::Every;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

/// Most reasons that are told apart.
const MAX_REASONS: usize = 20;

/// The reason of images beyond [`MAX_REASONS`].
const OTHER: &str = "other reasons";

/// What an import left out, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Near-duplicates of images imported before.
    #[serde(default)]
    pub alike: u64,
    /// Images that cannot be used, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    unreadable: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts an image that cannot be used.
    pub fn unreadable(&mut self, why: &str) {
        let known = self.unreadable.contains_key(why) || self.unreadable.len() < MAX_REASONS;
        *self.unreadable.entry(if known { why } else { OTHER }.to_owned()).or_default() += 1;
    }

    /// Logs the summary of an import that kept `kept` images.
    pub fn report(&self, kept: usize, passed_over: u64, every: &Every) {
        let unreadable: u64 = self.unreadable.values().sum();
        let seen = kept as u64 + self.alike + unreadable + passed_over;
        info!(
            "{seen} images: {kept} imported, {passed_over} passed over (--every {every}), {} near-duplicates, {unreadable} \
             unusable",
            self.alike
        );
        for (why, count) in &self.unreadable {
            warn!("left out {count} images: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn countless_reasons_are_counted_together() {
        let mut tally = Tally::default();
        (0..50).for_each(|i| tally.unreadable(&format!("reason {i}")));
        assert_eq!(tally.unreadable.len(), MAX_REASONS + 1);
        assert_eq!(tally.unreadable[OTHER], 30);
    }
}
