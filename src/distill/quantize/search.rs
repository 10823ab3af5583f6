//! Search for the fewest sensitive layers that must stay f32, with few evaluations; resumable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use peregrine_core::files::write_atomically;
use serde::{Deserialize, Serialize};

use super::report::{worst_drop, Accuracies};
use super::sensitivity::Sensitivity;

/// Name of the file with the state of an unfinished run.
const FILE: &str = "progress.json";

/// Results of a run so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SearchState {
    /// Hash of the inputs that the results belong to.
    key: String,
    pub sensitivity: Vec<Sensitivity>,
    pub before: Accuracies,
    /// By the number of most sensitive layers in f32.
    pub tried: BTreeMap<usize, Accuracies>,
}

/// A [`SearchState`] on disk.
pub struct SearchProgress {
    path: PathBuf,
    pub state: SearchState,
}

impl SearchProgress {
    /// The state in `folder` if it belongs to `key`, else an empty one.
    ///
    /// # Errors
    /// When the file exists but is invalid.
    pub fn open(folder: &Path, key: &str) -> anyhow::Result<Self> {
        let path = folder.join(FILE);
        let state = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{}: invalid; delete it to start over", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => SearchState::default(),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
        };
        let state =
            if state.key == key { state } else { SearchState { key: key.to_owned(), ..SearchState::default() } };
        Ok(Self { path, state })
    }

    /// # Errors
    /// When the folder cannot be written to.
    pub fn save(&self) -> anyhow::Result<()> {
        Ok(write_atomically(&self.path, &serde_json::to_vec_pretty(&self.state)?)?)
    }

    /// Removes the file once the run is complete.
    pub fn remove(&self) {
        // A file that stays is harmless: the same run would end immediately.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The search for the fewest f32 layers.
pub struct Search<'a> {
    /// Layers that always stay f32.
    pub keep_float: &'a [String],
    /// In percentage points.
    pub max_drop: f64,
}

impl Search<'_> {
    /// The fewest most sensitive layers in f32 with which the drop is within the bound: 0, 1, 2, 4,
    /// … until it is, then by bisection. `evaluate` measures a student with the given layers in
    /// f32; results in the state are not measured again.
    ///
    /// # Errors
    /// Those of `evaluate`, and of writing the state.
    pub fn run(
        &self,
        progress: &mut SearchProgress,
        evaluate: &mut dyn FnMut(&BTreeSet<String>) -> anyhow::Result<Accuracies>,
    ) -> anyhow::Result<BTreeSet<String>> {
        let all = self.candidates(progress).len();
        let mut passes = |count: usize, progress: &mut SearchProgress| -> anyhow::Result<bool> {
            if !progress.state.tried.contains_key(&count) {
                let accuracies = evaluate(&self.layers(progress, count))?;
                progress.state.tried.insert(count, accuracies);
                progress.save()?;
            }
            let SearchState { before, tried, .. } = &progress.state;
            Ok(worst_drop(before, &tried[&count]) <= self.max_drop)
        };
        // The largest count known to fail, if any, and the smallest known to pass.
        let (mut fails, mut good) = (None, 0);
        while !passes(good, progress)? && good < all {
            fails = Some(good);
            good = (2 * good).max(1).min(all);
        }
        while let Some(bad) = fails.filter(|bad| bad + 1 < good) {
            let middle = (bad + good) / 2;
            if passes(middle, progress)? {
                good = middle;
            } else {
                fails = Some(middle);
            }
        }
        Ok(self.layers(progress, good))
    }

    /// The number of most sensitive layers in `layers`.
    pub fn count(&self, progress: &SearchProgress, layers: &BTreeSet<String>) -> usize {
        self.candidates(progress).iter().filter(|l| layers.contains(**l)).count()
    }

    fn candidates<'s>(&self, progress: &'s SearchProgress) -> Vec<&'s String> {
        let layers = progress.state.sensitivity.iter().map(|s| &s.layer);
        layers.filter(|l| !self.keep_float.contains(l)).collect()
    }

    fn layers(&self, progress: &SearchProgress, count: usize) -> BTreeSet<String> {
        let worst = self.candidates(progress).into_iter().take(count).cloned();
        worst.chain(self.keep_float.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Accuracy;
    use super::*;

    fn accuracies(ap50: f64) -> Accuracies {
        [("data".to_string(), Accuracy { ap50: Some(ap50), ..Accuracy::default() })].into()
    }

    fn progress(folder: &Path) -> SearchProgress {
        let mut progress = SearchProgress::open(folder, "key").unwrap();
        let layer = |i: usize| Sensitivity { layer: format!("layer{i:02}"), error: 1.0 / (i + 1) as f64 };
        progress.state.sensitivity = (0..20).map(layer).collect();
        progress.state.before = accuracies(0.5);
        progress
    }

    /// Accurate once 6 layers are f32.
    fn evaluate(layers: &BTreeSet<String>) -> anyhow::Result<Accuracies> {
        Ok(accuracies(if layers.len() >= 6 { 0.495 } else { 0.4 }))
    }

    #[test]
    fn the_fewest_and_most_sensitive_layers_stay_f32() {
        let folder = tempfile::tempdir().unwrap();
        let mut progress = progress(folder.path());
        let layers = Search { keep_float: &[], max_drop: 1.0 }.run(&mut progress, &mut evaluate).unwrap();
        assert_eq!(
            layers.into_iter().collect::<Vec<_>>(),
            ["layer00", "layer01", "layer02", "layer03", "layer04", "layer05"]
        );
        assert_eq!(progress.state.tried.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 4, 5, 6, 8]);
    }

    #[test]
    fn an_interrupted_search_measures_nothing_twice() {
        let folder = tempfile::tempdir().unwrap();
        let search = Search { keep_float: &["layer03".to_string()], max_drop: 1.0 };
        let mut first = progress(folder.path());
        let mut calls = 0;
        let failed = search.run(&mut first, &mut |layers| {
            calls += 1;
            anyhow::ensure!(calls < 4, "killed");
            evaluate(layers)
        });
        assert!(failed.is_err());
        let mut again = SearchProgress::open(folder.path(), "key").unwrap();
        let mut counts = vec![];
        let layers = search.run(&mut again, &mut |layers| {
            counts.push(layers.len());
            evaluate(layers)
        });
        // One layer is always f32; 0, 1 and 2 more have been measured before.
        assert_eq!((layers.unwrap().len(), counts), (6, vec![5, 9, 7, 6]));
        assert!(SearchProgress::open(folder.path(), "another").unwrap().state.tried.is_empty());
    }
}
