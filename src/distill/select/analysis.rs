//! What the networks make of each frame, kept in `analysis.jsonl`: a line for the networks, then one
//! for each frame. An interrupted selection goes on with the first frame that has no line.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{ensure, Context};
use indicatif::ProgressBar;
use peregrine_core::files::{sha256, write_atomically};
use peregrine_core::Detection;
use serde::{Deserialize, Serialize};

use super::frames::Frame;
use super::models::Models;
use crate::data::{load_image, Skipped};
use crate::inspect::{fingerprint, Fingerprint};

/// Name of the file in the folder of the selection.
const FILE: &str = "analysis.jsonl";
/// Of the file's format.
const VERSION: u32 = 1;

/// The first line: what the others depend on.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    version: u32,
    networks: Vec<String>,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// The image file's.
    pub sha256: String,
    /// Width and height in pixels.
    pub size: (u32, u32),
    pub fingerprint: Fingerprint,
    /// Between the student and the teachers, and among the teachers.
    pub disagreements: [f32; 2],
    /// The means of the student's feature maps.
    pub features: Vec<f32>,
    /// The teachers' fused objects, in pixels, best first.
    pub objects: Vec<Detection>,
}

/// Analyses `frames`, those that `folder` has not yet; the result of each, or why it has none.
///
/// # Errors
/// When the folder holds the analysis of other networks, cannot be written to, or a network fails;
/// and, unless `skip_bad`, at the first image that cannot be read.
pub fn analyse(
    frames: &[Frame],
    models: &mut Models,
    folder: &Path,
    skip_bad: bool,
    progress: &ProgressBar,
) -> anyhow::Result<(Vec<Option<Analysis>>, Vec<Skipped>)> {
    let header = Header { version: VERSION, networks: models.identity() };
    let path = folder.join(FILE);
    let mut known = read(&path, &header)?;
    let mut file = rewrite(&path, &header, known.values())?;
    let (mut analyses, mut skipped) = (Vec::with_capacity(frames.len()), Vec::new());
    for frame in frames {
        let hash = std::fs::read(&frame.path).map(|bytes| sha256(&bytes)).unwrap_or_default();
        let analysis = if let Some(done) = known.get(&hash) {
            progress.reset_eta();
            Some(done.clone())
        } else {
            match load_image(&frame.path) {
                Ok(image) => {
                    let impression = models.look_at(&image).with_context(|| frame.path.display().to_string())?;
                    let new = Analysis {
                        sha256: hash,
                        size: image.dimensions(),
                        fingerprint: fingerprint(&image),
                        disagreements: impression.disagreements,
                        features: impression.features,
                        objects: impression.objects,
                    };
                    append(&mut file, &new).with_context(|| path.display().to_string())?;
                    known.insert(new.sha256.clone(), new.clone());
                    Some(new)
                }
                Err(e) if skip_bad => {
                    skipped.push(Skipped { path: frame.path.clone(), reason: e.to_string() });
                    None
                }
                Err(e) => return Err(e.into()),
            }
        };
        analyses.push(analysis);
        progress.inc(1);
    }
    Ok((analyses, skipped))
}

/// The whole lines of an earlier run, by the hash of the image.
fn read(path: &Path, header: &Header) -> anyhow::Result<HashMap<String, Analysis>> {
    if !path.exists() {
        return Ok(HashMap::new());
    }
    let text = std::fs::read(path).with_context(|| path.display().to_string())?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let found: Option<Header> = lines.next().and_then(|line| serde_json::from_str(line).ok());
    ensure!(
        found.as_ref() == Some(header),
        "{}: is of another student, or of other teachers or descriptions; give another --out, or delete it",
        path.display()
    );
    // The last line of a run that was killed may be cut short.
    let whole = lines.filter_map(|line| serde_json::from_str::<Analysis>(line).ok());
    Ok(whole.map(|analysis| (analysis.sha256.clone(), analysis)).collect())
}

/// Writes what is known, and opens the file for more.
fn rewrite<'a>(path: &Path, header: &Header, known: impl Iterator<Item = &'a Analysis>) -> anyhow::Result<File> {
    let mut lines = vec![serde_json::to_string(header)?];
    lines.extend(known.map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?);
    write_atomically(path, (lines.join("\n") + "\n").as_bytes())?;
    OpenOptions::new().append(true).open(path).with_context(|| path.display().to_string())
}

fn append(file: &mut File, analysis: &Analysis) -> anyhow::Result<()> {
    let line = serde_json::to_string(analysis)? + "\n";
    Ok(file.write_all(line.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn analysis(hash: &str) -> Analysis {
        Analysis {
            sha256: hash.into(),
            size: (4, 3),
            fingerprint: [u64::MAX, 0, 1, 2],
            disagreements: [1.5, 0.25],
            features: vec![0.1, -2.0],
            objects: vec![],
        }
    }

    #[test]
    fn a_line_cut_short_is_left_out_and_other_networks_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        let header = Header { version: VERSION, networks: vec!["a".into()] };
        let mut file = rewrite(&path, &header, [analysis("1")].iter()).unwrap();
        append(&mut file, &analysis("2")).unwrap();
        file.write_all(b"{\"sha256\":\"3\",\"si").unwrap();
        let known = read(&path, &header).unwrap();
        assert_eq!(known.len(), 2);
        assert_eq!(known["2"], analysis("2"));
        let other = Header { version: VERSION, networks: vec!["b".into()] };
        let error = read(&path, &other).unwrap_err().to_string();
        assert!(error.contains(FILE) && error.contains("--out"), "{error}");
    }
}
