//! Where a run comes from: `origin.json` in its folder names the code, the program and the data.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde::Serialize;

use super::config::StudentConfig;
use crate::distill::data::Dataset;
use crate::student::package::{sha256, write_atomically};

/// Name of the file.
pub const ORIGIN_FILE: &str = "origin.json";

#[derive(Serialize)]
struct Origin {
    version: &'static str,
    /// `git rev-parse HEAD` of the checkout that the program was built in, with `+changes` where files differ from it.
    git: Option<String>,
    /// SHA-256 of the program.
    program: String,
    command: Vec<String>,
    /// SHA-256 over each data set's images and labels as this run reads them.
    data: BTreeMap<String, String>,
}

/// Writes the file into the run's folder.
///
/// # Errors
/// When a data set cannot be read, or the folder not written to.
pub fn write(config: &StudentConfig, run: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().and_then(std::fs::read).context("cannot read the program itself")?;
    let mut data = BTreeMap::new();
    for source in &config.data {
        let dataset = Dataset::open(&source.folder, source.config.as_deref())?;
        data.insert(dataset.name.clone(), fingerprint(&dataset)?);
    }
    let origin = Origin {
        version: env!("CARGO_PKG_VERSION"),
        git: git(),
        program: sha256(&program),
        command: std::env::args().collect(),
        data,
    };
    Ok(write_atomically(&run.join(ORIGIN_FILE), &serde_json::to_vec_pretty(&origin)?)?)
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

    #[test]
    fn a_changed_label_changes_the_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("images")).unwrap();
        std::fs::create_dir_all(at("labels")).unwrap();
        image::RgbImage::new(8, 8).save(at("images/a.png")).unwrap();
        std::fs::write(at("dataset.toml"), "name = 'tiny'\nclasses = ['car']").unwrap();
        let with = |label: &str| {
            std::fs::write(at("labels/a.txt"), label).unwrap();
            fingerprint(&Dataset::open(folder.path(), None).unwrap()).unwrap()
        };
        let first = with("0 0.5 0.5 0.4 0.4");
        assert_ne!(first, with("0 0.5 0.5 0.4 0.5"));
        assert_eq!(first, with("0 0.5 0.5 0.4 0.4"));
    }
}
