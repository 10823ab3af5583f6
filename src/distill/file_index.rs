//! `images.json` in a run's folder: what was found in each file of the data when it was last read,
//! so that a run that is started again reads only those that have changed since.
//!
//! A file counts as unchanged while its path, length and time of modification are the same.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use anyhow::Context;
use peregrine_core::files::write_atomically;
use serde::{Deserialize, Serialize};

/// Name of the file.
pub const INDEX_FILE: &str = "images.json";

/// Raised when files of an older format, or what was found by an older program, no longer serve.
const VERSION: u32 = 1;

/// Identity of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStamp {
    /// Bytes.
    pub length: u64,
    /// Nanoseconds from 1970; 0 where the file system has no such time.
    pub modified: u64,
}

impl FileStamp {
    /// # Errors
    /// When the file is missing; names it.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        Ok(fs::metadata(path).with_context(|| path.display().to_string())?.into())
    }
}

impl From<Metadata> for FileStamp {
    fn from(found: Metadata) -> Self {
        let since = found.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { length: found.len(), modified: since.map_or(0, |since| since.as_nanos() as u64) }
    }
}

/// What was found in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    #[serde(flatten)]
    pub stamp: FileStamp,
    pub sha256: String,
    /// Width and height in pixels of an image or mask that was decoded without an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<(u32, u32)>,
    /// The pixels of each segmentation class in a mask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pixels: Option<Vec<u64>>,
    /// What the mask's bytes were taken for: `pixels` holds for no other meaning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meaning: Option<String>,
}

/// The entries by path.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct FileIndex {
    version: u32,
    files: BTreeMap<PathBuf, Entry>,
    /// Whether there is something to be saved.
    #[serde(skip)]
    changed: bool,
}

impl FileIndex {
    /// Reads the index of a run's folder; an empty one if there is none that serves: it only saves
    /// time.
    pub fn load(folder: &Path) -> Self {
        let read = fs::read(folder.join(INDEX_FILE)).ok();
        let found = read.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        found.filter(|index| index.version == VERSION).unwrap_or_default()
    }

    /// Writes the index into a run's folder if something is new.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn save(&mut self, folder: &Path) -> anyhow::Result<()> {
        if std::mem::take(&mut self.changed) {
            self.version = VERSION;
            write_atomically(&folder.join(INDEX_FILE), &serde_json::to_vec(self)?)?;
        }
        Ok(())
    }

    /// What was found in the file, if it is still the same.
    pub fn get(&self, path: &Path, stamp: FileStamp) -> Option<&Entry> {
        self.files.get(path).filter(|entry| entry.stamp == stamp)
    }

    pub fn insert(&mut self, path: PathBuf, entry: Entry) {
        self.files.insert(path, entry);
        self.changed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_holds_until_its_file_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        fs::write(&path, "one").unwrap();
        let stamp = FileStamp::of(&path).unwrap();
        let entry = Entry { stamp, sha256: "h".into(), size: Some((4, 3)), pixels: None, meaning: None };
        let mut index = FileIndex::default();
        index.insert(path.clone(), entry.clone());
        index.save(folder.path()).unwrap();
        let found = FileIndex::load(folder.path());
        assert_eq!(found.get(&path, stamp), Some(&entry));
        fs::File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH).unwrap();
        assert_eq!(found.get(&path, FileStamp::of(&path).unwrap()), None, "another time");
        assert_eq!(found.get(&path, FileStamp { length: 4, ..stamp }), None, "another length");
    }

    #[test]
    fn an_index_that_is_damaged_or_of_another_version_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["{\"version\":1,\"fi", "{\"version\":0,\"files\":{}}"] {
            fs::write(folder.path().join(INDEX_FILE), text).unwrap();
            assert_eq!(FileIndex::load(folder.path()).version, 0);
        }
    }
}
