//! What an import leaves out, counted by reason.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use crate::data::Skipped;

/// Reasons that are printed; the file has all.
const SHOWN: usize = 8;

/// Files that were left out.
#[derive(Debug, Default)]
pub struct LeftOut {
    files: Vec<Skipped>,
}

impl LeftOut {
    pub fn add(&mut self, file: Skipped) {
        self.files.push(file);
    }

    /// The first one, for an error message.
    pub fn first(&self) -> String {
        self.files.first().map_or("it has none".into(), |f| format!("{}: {}", f.path.display(), f.reason))
    }

    /// One line for each file.
    pub fn list(&self) -> String {
        self.files.iter().map(|file| format!("{}: {}\n", file.path.display(), file.reason)).collect()
    }

    /// The counts by reason, and where the list is.
    pub fn text(&self, list: &Path) -> String {
        if self.files.is_empty() {
            return "nothing was left out\n".into();
        }
        let mut reasons: BTreeMap<String, (usize, &Skipped)> = BTreeMap::new();
        for file in &self.files {
            // Reasons that name their file differ in that alone.
            let name = file.path.display().to_string();
            let reason = file.reason.replace(&name, "…");
            reasons.entry(reason).or_insert((0, file)).0 += 1;
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let mut text = format!("left out: {} files, listed in {}\n", self.files.len(), list.display());
        for (reason, (count, first)) in reasons.iter().take(SHOWN) {
            let _ = writeln!(text, "{count:>8}  {reason}, such as {}", first.path.display());
        }
        if reasons.len() > SHOWN {
            let _ = writeln!(text, "          and {} other reasons", reasons.len() - SHOWN);
        }
        text
    }
}
