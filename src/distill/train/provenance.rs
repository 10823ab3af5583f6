//! The provenance of a run: `origin.json` in its folder names the code, the program and the data
//! that it was begun with, and those of every resumption that changed them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context};
use peregrine_core::files::{sha256, write_atomically};
use serde::{Deserialize, Serialize};

use super::config::StudentConfig;
use super::survey::{Survey, SurveyedSet};

/// Name of the file.
pub const ORIGIN_FILE: &str = "origin.json";

/// What a run computes with and on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sources {
    version: String,
    /// `git rev-parse HEAD` of the checkout that the program was built in, with `+changes` where
    /// files differ from it.
    pub git: Option<String>,
    /// SHA-256 of the program.
    program: String,
    command: Vec<String>,
    /// SHA-256 over each data set's images and labels as this run reads them.
    pub data: BTreeMap<String, String>,
}

/// The file: what the run was begun with, and what it was resumed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Provenance {
    #[serde(flatten)]
    first: Sources,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resumed: Vec<Resumed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Resumed {
    /// Steps done by then.
    step: u64,
    #[serde(flatten)]
    sources: Sources,
}

impl Provenance {
    /// Records what the run is started with: as the first entry if no step is `done`, else after
    /// those in the file. Returns the first.
    ///
    /// # Errors
    /// When the run is resumed with changed data, unless it is `reconfigured`; when an image cannot
    /// be read or the folder cannot be written to.
    pub fn record(
        config: &StudentConfig,
        survey: &Survey,
        run: &Path,
        done: u64,
        reconfigured: bool,
    ) -> anyhow::Result<Sources> {
        let program = std::env::current_exe().and_then(std::fs::read).context("cannot read the program itself")?;
        let now = Sources {
            version: env!("CARGO_PKG_VERSION").into(),
            git: git(),
            program: sha256(&program),
            command: std::env::args().collect(),
            data: fingerprints(config, survey),
        };
        let path = run.join(ORIGIN_FILE);
        let provenance = match std::fs::read(&path) {
            Ok(bytes) if done > 0 => {
                let at = || format!("{}: not readable; delete it to resume without it", path.display());
                let mut found: Self = serde_json::from_slice(&bytes).with_context(at)?;
                found.resume(done, now, reconfigured).with_context(|| path.display().to_string())?;
                found
            }
            _ => Self { first: now, resumed: Vec::new() },
        };
        write_atomically(&path, &serde_json::to_vec_pretty(&provenance)?)?;
        Ok(provenance.first)
    }

    fn resume(&mut self, step: u64, now: Sources, reconfigured: bool) -> anyhow::Result<()> {
        let last = self.resumed.last().map_or(&self.first, |resumed| &resumed.sources);
        let changed = now.data.iter().find(|(name, hash)| last.data.get(*name) != Some(*hash));
        if let (Some((name, _)), false) = (changed, reconfigured) {
            bail!(
                "the images or labels of {name} have changed since the run was begun; restore them, --reconfigure to resume \
                 with the new ones, or --fresh to start over"
            );
        }
        if *last != now {
            self.resumed.push(Resumed { step, sources: now });
        }
        Ok(())
    }
}

/// SHA-256 of the configuration and of all data: ranks must have the same.
pub(super) fn of_all(config_text: &str, config: &StudentConfig, survey: &Survey) -> String {
    sha256(format!("{config_text}{:?}", fingerprints(config, survey)).as_bytes())
}

/// Each data set's fingerprint by its name; by its folder too if another one has the same name.
fn fingerprints(config: &StudentConfig, survey: &Survey) -> BTreeMap<String, String> {
    let mut fingerprints = BTreeMap::new();
    for (source, set) in config.data.iter().zip(&survey.0) {
        let (hash, name) = (fingerprint(set), &set.dataset.name);
        let taken = fingerprints.get(name).is_some_and(|found| *found != hash);
        let in_folder = || format!("{name} in {}", source.folder.display());
        fingerprints.insert(if taken { in_folder() } else { name.clone() }, hash);
    }
    fingerprints
}

fn git() -> Option<String> {
    let run = |arguments: &[&str]| {
        let output = Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR")]).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let head = run(&["rev-parse", "HEAD"])?;
    let clean = run(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if clean { head } else { head + "+changes" })
}

/// SHA-256 over a data set's file names, images and labels, in order.
fn fingerprint(set: &SurveyedSet) -> String {
    let (mut labels, mut parts) = (String::new(), String::new());
    for (sample, files) in set.dataset.samples.iter().zip(&set.files) {
        parts += &files.image.sha256;
        parts += files.mask.as_ref().map_or("", |mask| &mask.sha256);
        labels += &format!("{} {:?} {:?}\n", sample.file_name(), sample.boxes, sample.ignore);
        // Only where there is one, so that runs from before scenes are resumed.
        if sample.scene.is_labelled() {
            labels += &format!("{:?}\n", sample.scene.classes);
        }
    }
    sha256((labels + &parts).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Dataset;

    /// A data set of one image, and a configuration that names it.
    fn project(folder: &Path) -> StudentConfig {
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::create_dir_all(folder.join("labels")).unwrap();
        image::RgbImage::new(8, 8).save(folder.join("images/a.png")).unwrap();
        std::fs::write(folder.join("dataset.toml"), "name = 'tiny'\nclasses = ['car']").unwrap();
        StudentConfig::parse(&format!("[[data]]\nfolder = '{}'\nshare = 1.0", folder.display())).unwrap()
    }

    fn label(folder: &Path, text: &str) -> Survey {
        std::fs::write(folder.join("labels/a.txt"), text).unwrap();
        Survey::make(vec![Dataset::open(folder, None).unwrap()], None).unwrap()
    }

    #[test]
    fn a_changed_label_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path());
        let with = |text: &str| fingerprint(&label(folder.path(), text).0[0]);
        let first = with("0 0.5 0.5 0.4 0.4");
        assert_ne!(first, with("0 0.5 0.5 0.4 0.5"));
        assert_eq!(first, with("0 0.5 0.5 0.4 0.4"));
    }

    #[test]
    fn changed_data_is_refused_unless_the_run_is_reconfigured() {
        let with = |hash: &str| Sources {
            version: "1".into(),
            git: None,
            program: String::new(),
            command: vec![],
            data: BTreeMap::from([("tiny/train".to_owned(), hash.to_owned())]),
        };
        let mut provenance = Provenance { first: with("a"), resumed: vec![] };
        provenance.resume(1, with("a"), false).unwrap();
        assert!(provenance.resumed.is_empty(), "nothing has changed");
        let error = provenance.resume(2, with("b"), false).unwrap_err().to_string();
        assert!(error.contains("tiny/train") && error.contains("--reconfigure"), "{error}");
        provenance.resume(2, with("b"), true).unwrap();
        provenance.resume(3, with("b"), false).unwrap();
        assert_eq!(provenance, Provenance { first: with("a"), resumed: vec![Resumed { step: 2, sources: with("b") }] });
    }

    #[test]
    fn the_file_keeps_its_first_entry_when_the_run_is_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (folder.path().join("data"), folder.path());
        let config = project(&data);
        let read = || -> Provenance { serde_json::from_slice(&std::fs::read(run.join(ORIGIN_FILE)).unwrap()).unwrap() };
        let record =
            |text: &str, done, reconfigured| Provenance::record(&config, &label(&data, text), run, done, reconfigured);
        record("0 0.5 0.5 0.4 0.4", 0, false).unwrap();
        let first = read().first;
        let error = format!("{:#}", record("0 0.5 0.5 0.4 0.5", 2, false).unwrap_err());
        assert!(error.contains("origin.json"), "{error}");
        record("0 0.5 0.5 0.4 0.5", 2, true).unwrap();
        let last = read();
        assert!(last.first == first && last.resumed.last().unwrap().sources.data != first.data);
        record("0 0.5 0.5 0.4 0.5", 0, false).unwrap();
        assert!(read().resumed.is_empty(), "a run that begins anew");
    }
}
