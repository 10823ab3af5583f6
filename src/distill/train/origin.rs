//! Where a run comes from: `origin.json` in its folder names the code, the program and the data, of its beginning and of
//! every time it went on with others.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{bail, Context};
use peregrine_core::files::{sha256, write_atomically};
use serde::{Deserialize, Serialize};

use super::config::StudentConfig;
use crate::data::Dataset;

/// Name of the file.
pub const ORIGIN_FILE: &str = "origin.json";

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Origin {
    version: String,
    /// `git rev-parse HEAD` of the checkout that the program was built in, with `+changes` where files differ from it.
    git: Option<String>,
    /// SHA-256 of the program.
    program: String,
    command: Vec<String>,
    /// SHA-256 over each data set's images and labels as this run reads them.
    data: BTreeMap<String, String>,
}

/// The file: how the run began, and what it went on with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origins {
    #[serde(flatten)]
    first: Origin,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resumed: Vec<Resumed>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Resumed {
    /// Steps done by then.
    step: u64,
    #[serde(flatten)]
    origin: Origin,
}

impl Origins {
    /// Notes the origin in the run's folder: as the first where no step is done, else after those that are there.
    ///
    /// # Errors
    /// When the run goes on with data that has changed since, unless it is `reconfigured`; when an image cannot be read, or
    /// the folder not written to.
    pub fn note(
        config: &StudentConfig,
        datasets: &[Dataset],
        run: &Path,
        done: u64,
        reconfigured: bool,
    ) -> anyhow::Result<()> {
        let program = std::env::current_exe().and_then(std::fs::read).context("cannot read the program itself")?;
        let now = Origin {
            version: env!("CARGO_PKG_VERSION").into(),
            git: git(),
            program: sha256(&program),
            command: std::env::args().collect(),
            data: fingerprints(config, datasets)?,
        };
        let path = run.join(ORIGIN_FILE);
        let origins = match std::fs::read(&path) {
            Ok(bytes) if done > 0 => {
                let at = || format!("{}: not readable; delete it to go on without it", path.display());
                let mut origins: Self = serde_json::from_slice(&bytes).with_context(at)?;
                origins.go_on(done, now, reconfigured).with_context(|| path.display().to_string())?;
                origins
            }
            _ => Self { first: now, resumed: Vec::new() },
        };
        Ok(write_atomically(&path, &serde_json::to_vec_pretty(&origins)?)?)
    }

    fn go_on(&mut self, step: u64, now: Origin, reconfigured: bool) -> anyhow::Result<()> {
        let last = self.resumed.last().map_or(&self.first, |resumed| &resumed.origin);
        let changed = now.data.iter().find(|(name, hash)| last.data.get(*name) != Some(*hash));
        if let (Some((name, _)), false) = (changed, reconfigured) {
            bail!(
                "the images or labels of {name} are not those that the run was begun with; put those back, --reconfigure \
                 to go on with the new ones, or --fresh to start over"
            );
        }
        if *last != now {
            self.resumed.push(Resumed { step, origin: now });
        }
        Ok(())
    }
}

/// Each data set's fingerprint by its name; by its folder, too, where another one has the same name.
fn fingerprints(config: &StudentConfig, datasets: &[Dataset]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut fingerprints = BTreeMap::new();
    for (source, dataset) in config.data.iter().zip(datasets) {
        let hash = fingerprint(dataset)?;
        let name = match fingerprints.get(&dataset.name).is_some_and(|found| *found != hash) {
            true => format!("{} in {}", dataset.name, source.folder.display()),
            false => dataset.name.clone(),
        };
        fingerprints.insert(name, hash);
    }
    Ok(fingerprints)
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

/// SHA-256 over a data set's file names, pictures and labels, in order.
fn fingerprint(dataset: &Dataset) -> anyhow::Result<String> {
    let mut parts = String::new();
    let mut hash = |path: &Path| -> anyhow::Result<()> {
        parts += &sha256(&std::fs::read(path).with_context(|| path.display().to_string())?);
        Ok(())
    };
    let mut labels = String::new();
    for sample in &dataset.samples {
        hash(&sample.image)?;
        sample.mask.as_deref().map(&mut hash).transpose()?;
        labels += &format!("{} {:?} {:?}\n", sample.file_name(), sample.boxes, sample.ignore);
    }
    Ok(sha256((labels + &parts).as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data set of one picture, and a configuration that names it.
    fn project(folder: &Path) -> StudentConfig {
        std::fs::create_dir_all(folder.join("images")).unwrap();
        std::fs::create_dir_all(folder.join("labels")).unwrap();
        image::RgbImage::new(8, 8).save(folder.join("images/a.png")).unwrap();
        std::fs::write(folder.join("dataset.toml"), "name = 'tiny'\nclasses = ['car']").unwrap();
        StudentConfig::parse(&format!("[[data]]\nfolder = '{}'\nshare = 1.0", folder.display())).unwrap()
    }

    fn label(folder: &Path, text: &str) -> Vec<Dataset> {
        std::fs::write(folder.join("labels/a.txt"), text).unwrap();
        vec![Dataset::open(folder, None).unwrap()]
    }

    #[test]
    fn a_changed_label_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        project(folder.path());
        let with = |text: &str| fingerprint(&label(folder.path(), text)[0]).unwrap();
        let first = with("0 0.5 0.5 0.4 0.4");
        assert_ne!(first, with("0 0.5 0.5 0.4 0.5"));
        assert_eq!(first, with("0 0.5 0.5 0.4 0.4"));
    }

    #[test]
    fn a_run_goes_on_with_changed_data_only_when_told_to_and_keeps_its_first_origin() {
        let with = |hash: &str| Origin {
            version: "1".into(),
            git: None,
            program: String::new(),
            command: vec![],
            data: BTreeMap::from([("tiny/train".to_owned(), hash.to_owned())]),
        };
        let mut origins = Origins { first: with("a"), resumed: vec![] };
        origins.go_on(1, with("a"), false).unwrap();
        assert!(origins.resumed.is_empty(), "nothing has changed");
        let error = origins.go_on(2, with("b"), false).unwrap_err().to_string();
        assert!(error.contains("tiny/train") && error.contains("--reconfigure"), "{error}");
        origins.go_on(2, with("b"), true).unwrap();
        origins.go_on(3, with("b"), false).unwrap();
        assert_eq!(origins, Origins { first: with("a"), resumed: vec![Resumed { step: 2, origin: with("b") }] });
    }

    #[test]
    fn the_file_keeps_its_beginning_when_the_run_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let (data, run) = (folder.path().join("data"), folder.path());
        let config = project(&data);
        let read = || -> Origins { serde_json::from_slice(&std::fs::read(run.join(ORIGIN_FILE)).unwrap()).unwrap() };
        let note =
            |text: &str, done, reconfigured| Origins::note(&config, &label(&data, text), run, done, reconfigured);
        note("0 0.5 0.5 0.4 0.4", 0, false).unwrap();
        let first = read().first;
        let error = format!("{:#}", note("0 0.5 0.5 0.4 0.5", 2, false).unwrap_err());
        assert!(error.contains("origin.json"), "{error}");
        note("0 0.5 0.5 0.4 0.5", 2, true).unwrap();
        let last = read();
        assert!(last.first == first && last.resumed.last().unwrap().origin.data != first.data);
        note("0 0.5 0.5 0.4 0.5", 0, false).unwrap();
        assert!(read().resumed.is_empty(), "a run that begins anew");
    }
}
