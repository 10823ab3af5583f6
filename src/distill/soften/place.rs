//! Where soft targets are: in a folder of this machine, or in one of an object store.
//!
//! In a store nothing is ever written over. A shard is put there, then `NAME.json`, an index of
//! that shard alone, which says that it is whole and of what; `index.json` comes last.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context};
use peregrine_core::files::write_atomically;

use super::index::{Index, Shard, INDEX};
use crate::store::{self, Put, Store};

/// A folder of soft targets.
#[derive(Debug)]
pub(super) enum Place {
    Folder(PathBuf),
    Store(Store),
}

impl Place {
    /// The place of a path or address.
    ///
    /// # Errors
    /// When an address cannot be opened.
    pub fn of(path: &Path) -> anyhow::Result<Self> {
        if store::is_address(path) {
            return Store::open(path).map(Self::Store);
        }
        Ok(Self::Folder(path.to_owned()))
    }

    /// The folder of this machine in which work goes on; it is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn work_folder(&self) -> anyhow::Result<&Path> {
        let folder = match self {
            Self::Folder(folder) => folder,
            Self::Store(store) => store.work_folder(),
        };
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        Ok(folder)
    }

    /// Its index; in a store that of finished soft targets.
    ///
    /// # Errors
    /// When there is none, or it is invalid.
    pub fn index(&self) -> anyhow::Result<Index> {
        match self {
            Self::Folder(folder) => Index::read(&folder.join(INDEX)),
            Self::Store(store) => {
                let begun = || store.names().is_ok_and(|names| names.iter().any(|name| is_receipt(name)));
                match get_index(store, INDEX)? {
                    Some(index) => Ok(index),
                    None if begun() => bail!("{store}: not finished; run distill soften again, it goes on"),
                    None => bail!("{store}: no soft targets here; `distill soften` makes them"),
                }
            }
        }
    }

    /// As [`index`](Self::index), but of an unfinished part too, which then says so.
    ///
    /// # Errors
    /// When there is nothing, or it is invalid.
    pub fn index_of_part(&self) -> anyhow::Result<Index> {
        if let Self::Store(store) = self {
            let names = store.names()?;
            let receipt = || names.iter().find(|name| is_receipt(name));
            let found = names.iter().find(|name| *name == INDEX).or_else(receipt);
            if let Some(index) = found.map(|name| get_index(store, name)).transpose()?.flatten() {
                return Ok(index);
            }
        }
        self.index()
    }

    /// The folder of this machine with these shards, copied there if they are in a store.
    ///
    /// # Errors
    /// When one is missing in the store.
    pub fn shards(&self, shards: &[Shard]) -> anyhow::Result<PathBuf> {
        match self {
            Self::Folder(folder) => Ok(folder.clone()),
            Self::Store(store) => store.copy_files(&shards.iter().map(|shard| shard.file.as_str()).collect::<Vec<_>>()),
        }
    }

    /// Writes a file, which is that of `from`: in a folder over what is there, in a store where
    /// nothing is.
    ///
    /// # Errors
    /// When it cannot be written, or something else is there.
    pub fn write(&self, name: &str, bytes: Vec<u8>, from: &dyn fmt::Display) -> anyhow::Result<()> {
        match self {
            Self::Folder(folder) => Ok(write_atomically(&folder.join(name), &bytes)?),
            Self::Store(store) => match store.put(name, bytes)? {
                Put::New | Put::Same => Ok(()),
                Put::Other => bail!(
                    "{store}/{name}: is there already, and differs from that of {from}; give another --out, or delete \
                     it and give the command again"
                ),
            },
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Store(store) => store.fmt(f),
        }
    }
}

/// The name of what says that a shard in a store is whole.
pub(super) fn receipt(shard: &str) -> String {
    format!("{shard}.json")
}

fn is_receipt(name: &str) -> bool {
    name.ends_with(".safetensors.json")
}

/// An index in a store; `None` if it is not there.
///
/// # Errors
/// When it is invalid, or the store does not give it.
pub(super) fn get_index(store: &Store, name: &str) -> anyhow::Result<Option<Index>> {
    let Some(bytes) = store.get(name)? else { return Ok(None) };
    let index =
        serde_json::from_slice(&bytes).with_context(|| format!("{store}/{name}: invalid index of soft targets"))?;
    Ok(Some(index))
}
