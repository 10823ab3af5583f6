//! The images of a shard that is not yet full. Every few seconds they are kept in the folder
//! `partial`, itself a folder of soft targets with one shard, so that a run that is killed loses
//! seconds; the full shard is the same however often that happened.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use peregrine_core::files::sha256;

use super::index::{Index, Shard, INDEX};
use super::output::Output;
use super::shard::{self, Contents, ImageSoftTargets};
use super::skipped_before;
use super::stored::StoredSoftTargets;
use super::teachers::Softened;
use crate::data::{Sample, Skipped};

/// Name of the folder in that of the soft targets.
const FOLDER: &str = "partial";

/// Time between two writings, at least.
const KEEP_EVERY: Duration = Duration::from_millis(200);

/// Times the duration of a writing, at least: what a shard has so far is written whole.
const WRITINGS_BETWEEN: u32 = 20;

/// A shard that is being filled, image by image.
pub(super) struct Partial {
    shard: Shard,
    soft_targets: Vec<ImageSoftTargets>,
    /// With the reasons.
    pub skipped: Vec<Skipped>,
    /// When the next is to be kept; the first of a run at once.
    due: Instant,
}

impl Partial {
    /// The shard `empty`, with those of the first of its `samples` that an interrupted run left.
    ///
    /// # Errors
    /// When a map that was kept cannot be read.
    pub fn resume(output: &Output, empty: Shard, samples: &[Sample]) -> anyhow::Result<Self> {
        let none = Self { shard: empty, soft_targets: Vec::new(), skipped: Vec::new(), due: Instant::now() };
        let folder = output.folder(FOLDER);
        // Whatever is not whole, or of something else, is as if it were not there.
        let found = Index::read(&folder.join(INDEX)).ok().filter(|found| found.is_of(&output.index));
        let found = found.and_then(|mut found| found.shards.pop()).filter(|kept| none.is_begun_by(kept, samples));
        let Some(kept) = found else { return Ok(none) };
        let path = folder.join(&kept.file);
        if std::fs::read(&path).map(|bytes| sha256(&bytes)).ok().as_ref() != Some(&kept.sha256) {
            return Ok(none);
        }
        let soft_targets = read(&path, &output.index).with_context(|| path.display().to_string())?;
        let skipped = kept.skipped.iter().map(|file| skipped_before(samples, file, "could not be read")).collect();
        let file = none.shard.file.clone();
        Ok(Self { shard: Shard { sha256: String::new(), file, ..kept }, soft_targets, skipped, ..none })
    }

    /// Whether `kept` is of the same shard, with the first of its images, which have not changed.
    fn is_begun_by(&self, kept: &Shard, samples: &[Sample]) -> bool {
        let done = kept.images.len() + kept.skipped.len();
        let same = |sample: &Sample| kept.is_of_image(sample).unwrap_or_else(|| kept.has_skipped(sample));
        kept.file == self.kept_as(done)
            && (&kept.dataset, &kept.folder) == (&self.shard.dataset, &self.shard.folder)
            && done <= samples.len()
            && samples[..done].iter().all(same)
    }

    /// The file that `done` samples are kept in: each time another, so that the index names a whole
    /// one at any moment.
    fn kept_as(&self, done: usize) -> String {
        format!("{done}-{}", self.shard.file)
    }

    /// Samples that are done.
    pub fn len(&self) -> usize {
        self.shard.images.len() + self.shard.skipped.len()
    }

    /// Adds the next sample.
    pub fn push(&mut self, sample: &Sample, softened: Softened) {
        let file = sample.file_name().to_owned();
        match softened {
            Softened::Done { soft_targets, sha256 } => {
                self.shard.images.push(file);
                self.shard.hashes.push(sha256);
                self.soft_targets.push(soft_targets);
            }
            Softened::Skipped(skipped) => {
                self.shard.skipped.push(file);
                self.skipped.push(skipped);
            }
        }
    }

    /// Keeps what is done, if it is time.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_now_and_then(&mut self, output: &Output) -> anyhow::Result<()> {
        if Instant::now() < self.due {
            return Ok(());
        }
        let begun = Instant::now();
        let folder = output.folder(FOLDER);
        // Of other teachers' images, if such are there, nothing is kept.
        let mut partial = Output::anew(&folder, Index { shards: Vec::new(), ..output.index.clone() })?;
        let file = self.kept_as(self.len());
        partial.write(Shard { file: file.clone(), ..self.shard.clone() }, &self.soft_targets)?;
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let name = entry?.file_name();
            if name != INDEX && name != file.as_str() {
                std::fs::remove_file(folder.join(name))?;
            }
        }
        self.due = Instant::now() + KEEP_EVERY.max(WRITINGS_BETWEEN * begun.elapsed());
        Ok(())
    }

    /// Writes the full shard, and removes what was kept of it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(self, output: &mut Output) -> anyhow::Result<()> {
        output.write(self.shard, &self.soft_targets)?;
        let folder = output.folder(FOLDER);
        if folder.exists() {
            std::fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
        }
        Ok(())
    }
}

/// The soft targets of a shard, with their maps in memory.
fn read(path: &Path, index: &Index) -> anyhow::Result<Vec<ImageSoftTargets>> {
    let masks = index.segmentation.as_ref().map(Vec::len);
    let (classes, scenes) = (index.classes.len(), index.scenes());
    let contents = Contents { classes, masks, scenes, features: &index.features, wanted: &|_| true };
    shard::open(path, &contents)?.iter().map(StoredSoftTargets::read).collect()
}
