//! The folder of soft targets that `distill soften` writes.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use peregrine_core::files::{sha256, write_atomically};

use super::part::Part;
use super::shard::{self, ImageSoftTargets};
use super::targets::{Index, Shard, INDEX};
use crate::data::{load_image, Sample};

/// A folder of soft targets that is being written.
pub(super) struct Output {
    folder: PathBuf,
    pub index: Index,
}

impl Output {
    /// Begins in a folder without an index, or resumes one whose index equals `index` except for its
    /// shards.
    ///
    /// # Errors
    /// When the existing index is another one, or a file cannot be read or written.
    pub fn open(folder: &Path, index: Index) -> anyhow::Result<Self> {
        let path = folder.join(INDEX);
        if !path.exists() {
            return Ok(Self { folder: folder.to_owned(), index });
        }
        let found = Index::read(&path)?;
        ensure!(
            found.is_of(&index),
            "{}: contains soft targets of other teachers, other descriptions or other features; give another --out, or delete it",
            folder.display()
        );
        let part = |index: &Index| index.share.as_ref().map(|share| share.part);
        let (was, is) = (part(&found), part(&index));
        ensure!(
            was == is,
            "{}: contains {}, not {}; give another --out",
            folder.display(),
            described(was),
            described(is)
        );
        Ok(Self { folder: folder.to_owned(), index: Index { share: index.share, ..found } })
    }

    /// Opens a folder without regard to what is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn anew(folder: &Path, index: Index) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Self { folder: folder.to_owned(), index })
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Says in the index that all shards of its part are there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn complete(&mut self) -> anyhow::Result<()> {
        if let Some(share) = &mut self.index.share {
            share.complete = true;
            self.write_index()?;
        }
        Ok(())
    }

    fn write_index(&self) -> anyhow::Result<()> {
        Ok(write_atomically(&self.folder.join(INDEX), &serde_json::to_vec_pretty(&self.index)?)?)
    }

    /// The shard of these samples, if it is done.
    pub fn find(&self, dataset: &str, samples: &[Sample]) -> Option<&Shard> {
        self.index.shards.iter().find(|shard| shard.dataset == dataset && is_done(shard, samples))
    }

    /// Refuses to overwrite a shard of another folder of the same name.
    pub fn refuse_other_folder(&self, file: &str, folder: &str, dataset: &str) -> anyhow::Result<()> {
        let elsewhere = |shard: &&Shard| shard.file == file && shard.folder != folder && !shard.folder.is_empty();
        if let Some(other) = self.index.shards.iter().find(elsewhere) {
            bail!(
                "{}: contains soft targets of another folder with the name {dataset}, {}; give another --out, or \
                 another name in dataset.toml",
                self.folder.display(),
                other.folder
            );
        }
        Ok(())
    }

    /// Writes a shard, then the index with its hash.
    pub fn write(&mut self, shard: Shard, soft_targets: &[ImageSoftTargets]) -> anyhow::Result<()> {
        let bytes = shard::serialize(soft_targets, self.index.classes.len())?;
        write_atomically(&self.folder.join(&shard.file), &bytes)?;
        self.index.shards.retain(|other| other.file != shard.file);
        self.index.shards.push(Shard { sha256: sha256(&bytes), ..shard });
        self.write_index()
    }
}

fn described(part: Option<Part>) -> String {
    part.map_or_else(|| "soft targets of all images".into(), |part| format!("part {part}"))
}

/// Whether a shard has all of `samples`, of the very same images, except those that still cannot be
/// read.
fn is_done(shard: &Shard, samples: &[Sample]) -> bool {
    let still_skipped = |sample: &Sample| shard.has_skipped(sample) && load_image(&sample.image).is_err();
    let has = |sample: &Sample| shard.is_of_image(sample).unwrap_or_else(|| still_skipped(sample));
    shard.images.len() + shard.skipped.len() == samples.len() && samples.iter().all(has)
}
