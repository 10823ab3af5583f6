//! `import.jsonl`: what an import was asked for, and a line for each image that it wrote, by which
//! an interrupted one is resumed.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context};
use peregrine_recording::{LevelOptions, Recording, Selection, Topic};
use serde::{Deserialize, Serialize};

use super::picture::RawFormat;
use super::tally::Tally;
use crate::inspect::Fingerprint;

const FILE: &str = "import.jsonl";

/// What is imported: the journal's first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    source: PathBuf,
    topic: String,
    /// Seconds, as text, which is the same when it is read again.
    from: Option<String>,
    to: Option<String>,
    every: String,
    alike: Option<u32>,
    raw: RawFormat,
    /// As text; journals of before there were these options have none.
    #[serde(default = "default_levels")]
    levels: String,
}

fn default_levels() -> String {
    text_of(LevelOptions::default())
}

fn text_of(levels: LevelOptions) -> String {
    format!("{} {}", levels.yuv_range, levels.white_level)
}

impl Settings {
    pub fn new(
        recording: &Recording,
        topic: &Topic,
        selection: &Selection,
        alike: Option<u32>,
        raw: RawFormat,
        levels: LevelOptions,
    ) -> Self {
        let source = fs::canonicalize(recording.path()).unwrap_or_else(|_| recording.path().to_owned());
        let text = |seconds: Option<f64>| seconds.map(|seconds| seconds.to_string());
        let (from, to, every) = (text(selection.from), text(selection.to), selection.every.to_string());
        let (topic, levels) = (topic.name.clone(), text_of(levels));
        Self { source, topic, from, to, every, alike, raw, levels }
    }
}

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Its number among the images that were looked at, from 1.
    pub position: u64,
    /// File name in `images/`.
    pub file: String,
    pub print: Fingerprint,
    /// What had been left out before it.
    pub tally: Tally,
}

/// The journal of an import.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    kept: Vec<Kept>,
}

impl Journal {
    /// Starts a journal in the folder `out`, or goes on with the one that is there.
    ///
    /// # Errors
    /// When it is of another import, or cannot be read or written.
    pub fn open(out: &Path, settings: &Settings) -> anyhow::Result<Self> {
        let path = out.join(FILE);
        let text = if path.exists() { fs::read_to_string(&path) } else { Ok(String::new()) };
        let text = text.with_context(|| path.display().to_string())?;
        // A line that was cut by a crash has no end; its image is written once more.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        let found = lines.next().map(serde_json::from_str::<Settings>).transpose();
        let found =
            found.with_context(|| format!("{}: its first line is damaged; delete the folder", path.display()))?;
        ensure!(
            found.as_ref().is_none_or(|found| found == settings),
            "{}: has been imported from another source, or with other options ({}); give another --out, or delete it",
            out.display(),
            path.display()
        );
        let parse = |(number, line): (usize, &str)| {
            serde_json::from_str::<Kept>(line)
                .with_context(|| format!("{}: line {} is damaged; delete the folder", path.display(), number + 2))
        };
        let kept = lines.enumerate().map(parse).collect::<anyhow::Result<Vec<_>>>()?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.and_then(|file| file.set_len(whole as u64).map(|()| file));
        let mut journal = Self { file: file.with_context(|| path.display().to_string())?, path, kept };
        if found.is_none() {
            journal.write(settings)?;
        }
        Ok(journal)
    }

    fn write(&mut self, line: &impl Serialize) -> anyhow::Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        self.file.write_all(line.as_bytes()).with_context(|| self.path.display().to_string())
    }

    /// Notes an image that has been written.
    ///
    /// # Errors
    /// When the journal cannot be written.
    pub fn add(&mut self, kept: Kept) -> anyhow::Result<()> {
        self.write(&kept)?;
        self.kept.push(kept);
        Ok(())
    }

    pub fn kept(&self) -> &[Kept] {
        &self.kept
    }

    /// How many images need not be looked at again.
    pub fn position(&self) -> u64 {
        self.kept.last().map_or(0, |kept| kept.position)
    }

    /// What had been left out when the last image was written.
    pub fn tally(&self) -> Tally {
        self.kept.last().map(|kept| kept.tally.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(every: &str) -> Settings {
        let (source, topic) = ("drive.mcap".into(), "/camera".into());
        let (every, levels) = (every.into(), default_levels());
        Settings { source, topic, from: None, to: None, every, alike: Some(10), raw: RawFormat::Png, levels }
    }

    fn kept(position: u64) -> Kept {
        Kept { position, file: format!("{position}.png"), print: [position; 4], tally: Tally::default() }
    }

    #[test]
    fn a_line_that_was_cut_is_dropped_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path(), &settings("1")).unwrap();
        journal.add(kept(1)).unwrap();
        journal.add(kept(4)).unwrap();
        let path = folder.path().join(FILE);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 9]).unwrap();
        let mut journal = Journal::open(folder.path(), &settings("1")).unwrap();
        assert_eq!((journal.kept(), journal.position()), (&[kept(1)][..], 1));
        journal.add(kept(4)).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn an_import_with_other_options_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        Journal::open(folder.path(), &settings("1")).unwrap();
        let refused = Journal::open(folder.path(), &settings("2")).unwrap_err().to_string();
        assert!(refused.contains("other options") && refused.contains("give another --out"), "{refused}");
    }
}
