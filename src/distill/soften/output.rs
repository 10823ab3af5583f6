//! The soft targets that `distill soften` writes.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context};
use peregrine_core::files::{sha256, write_atomically};

use super::index::{Index, Shard, INDEX};
use super::part::Part;
use super::place::{get_index, receipt, Place};
use super::shard::{self, ImageSoftTargets};
use crate::data::{load_image, Sample};
use crate::store::{Put, Store};

/// Soft targets that are being written.
pub(super) struct Output {
    place: Place,
    /// For work; that of the soft targets, if they are in a folder.
    folder: PathBuf,
    pub index: Index,
    /// Whether a store has the index, so that no shard can be added.
    is_closed: bool,
}

impl Output {
    /// Begins in a place without an index, or resumes one whose index equals `index` except for its
    /// shards.
    ///
    /// # Errors
    /// When the existing index is another one, or a file cannot be read or written.
    pub fn open(place: Place, index: Index) -> anyhow::Result<Self> {
        let folder = place.work_folder()?.to_owned();
        let found = match &place {
            Place::Folder(_) if !folder.join(INDEX).exists() => None,
            Place::Folder(_) => Some(place.index()?),
            Place::Store(store) => get_index(store, INDEX)?,
        };
        let is_closed = found.is_some() && matches!(place, Place::Store(_));
        let mut output = Self { place, folder, index, is_closed };
        if let Some(found) = found {
            output.refuse_another(&found)?;
            output.index = Index { share: output.index.share, ..found };
        }
        Ok(output)
    }

    /// Refuses soft targets by others than these teachers, or of another part.
    fn refuse_another(&self, found: &Index) -> anyhow::Result<()> {
        ensure!(
            found.is_of(&self.index),
            "{}: contains soft targets of other teachers, other descriptions, other features or made without the same --flip; give another --out, or delete it",
            self.place
        );
        let part = |index: &Index| index.share.as_ref().map(|share| share.part);
        let (was, is) = (part(found), part(&self.index));
        ensure!(was == is, "{}: contains {}, not {}; give another --out", self.place, described(was), described(is));
        Ok(())
    }

    /// Opens a folder without regard to what is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn anew(folder: &Path, index: Index) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(Self { place: Place::Folder(folder.to_owned()), folder: folder.to_owned(), index, is_closed: false })
    }

    /// A folder for work.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Says in the index that all shards of its part are there. In a store this makes the index.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn complete(&mut self) -> anyhow::Result<()> {
        let share = self.index.share.as_mut();
        let is_part = share.map(|share| share.complete = true).is_some();
        if is_part || matches!(self.place, Place::Store(_)) {
            self.write_index()?;
        }
        Ok(())
    }

    fn write_index(&self) -> anyhow::Result<()> {
        self.place.write(INDEX, serde_json::to_vec_pretty(&self.index)?, &"this command")
    }

    /// Looks whether a store has the shard `file` by now, from this or another worker.
    ///
    /// # Errors
    /// When it is by other teachers, or the store does not say.
    pub fn learn_of(&mut self, file: &str) -> anyhow::Result<()> {
        let Place::Store(store) = &self.place else { return Ok(()) };
        if self.index.shards.iter().any(|shard| shard.file == file) {
            return Ok(());
        }
        if let Some(found) = get_index(store, &receipt(file))? {
            self.refuse_another(&found)?;
            self.index.shards.extend(found.shards);
        }
        Ok(())
    }

    /// The shard of these samples, if it is done.
    pub fn find(&self, dataset: &str, samples: &[Sample]) -> Option<&Shard> {
        self.index.shards.iter().find(|shard| shard.dataset == dataset && is_done(shard, samples))
    }

    /// Refuses to overwrite a shard of another folder of the same name, and any shard in a store.
    pub fn refuse_to_overwrite(&self, file: &str, folder: &str, dataset: &str) -> anyhow::Result<()> {
        let elsewhere = |shard: &&Shard| shard.file == file && shard.folder != folder && !shard.folder.is_empty();
        if let Some(other) = self.index.shards.iter().find(elsewhere) {
            bail!(
                "{}: contains soft targets of another folder with the name {dataset}, {}; give another --out, or \
                 another name in dataset.toml",
                self.place,
                other.folder
            );
        }
        if matches!(self.place, Place::Store(_)) {
            let is_there = self.is_closed || self.index.shards.iter().any(|shard| shard.file == file);
            ensure!(
                !is_there,
                "{}: has the soft targets of {dataset} as it was, and images have changed since; give another --out",
                self.place
            );
        }
        Ok(())
    }

    /// Writes a shard, then the index with its hash.
    pub fn write(&mut self, shard: Shard, soft_targets: &[ImageSoftTargets]) -> anyhow::Result<()> {
        let bytes = shard::serialize(soft_targets, self.index.classes.len())?;
        let shard = Shard { sha256: sha256(&bytes), ..shard };
        let shard = match &self.place {
            Place::Folder(folder) => {
                write_atomically(&folder.join(&shard.file), &bytes)?;
                self.index.shards.retain(|other| other.file != shard.file);
                shard
            }
            Place::Store(store) => put_shard(store, &Index { shards: vec![shard], ..self.index.clone() }, bytes)?,
        };
        self.index.shards.push(shard);
        match self.place {
            Place::Folder(_) => self.write_index(),
            Place::Store(_) => Ok(()),
        }
    }
}

/// Puts the only shard of `index` and its receipt. If another worker was faster, its shard is the
/// one that is returned: two processors may differ in the last bit of what a teacher says.
fn put_shard(store: &Store, index: &Index, bytes: Vec<u8>) -> anyhow::Result<Shard> {
    let ours = &index.shards[0];
    let receipt = receipt(&ours.file);
    let shard = store.put(&ours.file, bytes)?;
    if shard != Put::Other && store.put(&receipt, serde_json::to_vec_pretty(index)?)? != Put::Other {
        return Ok(ours.clone());
    }
    let theirs =
        get_index(store, &receipt)?.filter(|found| found.is_of(index)).and_then(|mut found| found.shards.pop());
    let is_of_same = |theirs: &Shard| {
        (&theirs.images, &theirs.hashes, &theirs.skipped) == (&ours.images, &ours.hashes, &ours.skipped)
            && (shard == Put::Other || theirs.sha256 == ours.sha256)
    };
    theirs.filter(is_of_same).with_context(|| {
        format!(
            "{store}/{}: is there already, and differs from the soft targets just made of {}: they are of other images or \
             teachers, or of a worker that ended just then; give another --out, or delete it and run this again",
            ours.file, ours.folder
        )
    })
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
