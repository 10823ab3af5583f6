//! Copies of a store's objects on this machine, each in the file of its key. A file is written under
//! a temporary name and renamed, then noted in `copies.jsonl` with its object's ETag: what is noted
//! is whole, and taken as long as the store names the same ETag and size.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Mutex;

use anyhow::{ensure, Context};
use indicatif::{ProgressBar, ProgressStyle};
use object_store::path::Path as Key;
use object_store::ObjectMeta;
use peregrine_core::files::write_atomically_with;
use serde::{Deserialize, Serialize};

use super::remote::Store;
use crate::log::show;

/// Objects that are read at a time: small ones are waited for rather than transferred.
const AT_A_TIME: usize = 16;

/// Where the copies are.
#[derive(Debug)]
pub(super) struct Copies {
    folder: PathBuf,
    /// The folder in it that stands for the bucket.
    root: PathBuf,
}

/// A line of the notes.
#[derive(Serialize, Deserialize)]
struct Note {
    key: String,
    version: String,
}

impl Copies {
    /// Those of the bucket `name` in `folder`.
    pub fn in_folder(folder: &Path, name: &str) -> Self {
        Self { folder: folder.to_owned(), root: folder.join(name) }
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_ref())
    }

    /// Alone among all processes until the file is dropped; two that copied the same would only do it
    /// twice.
    fn lock(&self) -> anyhow::Result<File> {
        let path = self.folder.join(".lock");
        let lock = || {
            fs::create_dir_all(&self.root)?;
            let file = File::create(&path)?;
            if file.try_lock().is_err() {
                tracing::info!("waiting for another distill, which copies to {}", self.root.display());
                file.lock()?;
            }
            std::io::Result::Ok(file)
        };
        lock().with_context(|| path.display().to_string())
    }

    fn notes_file(&self) -> PathBuf {
        self.folder.join("copies.jsonl")
    }

    /// The version of each copy, by its key. A line that was cut off is as if it were not there.
    fn notes(&self) -> HashMap<String, String> {
        let Ok(file) = File::open(self.notes_file()) else { return HashMap::new() };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        lines.filter_map(|line| serde_json::from_str(&line).ok()).map(|note: Note| (note.key, note.version)).collect()
    }
}

/// What changes when an object does.
fn version(object: &ObjectMeta) -> String {
    object.e_tag.clone().unwrap_or_else(|| object.last_modified.to_rfc3339())
}

impl Store {
    /// Copies the whole folder, and takes away copies whose objects are gone: a data set. If the
    /// address is that of a file (`data.yaml`), its folder is copied. The file `shared` of the folder
    /// above is copied too, if there is one. Returns where the folder or file is now.
    ///
    /// # Errors
    /// When there is nothing, the store does not give it, or the disk is full.
    pub fn copy(&self, shared: &str) -> anyhow::Result<PathBuf> {
        let _only = self.copies.lock()?;
        let mut folder = self.folder().clone();
        let mut objects = self.list(&folder)?;
        if objects.is_empty() && self.find(&folder)?.is_some() {
            folder = folder.parent().unwrap_or_default();
            objects = self.list(&folder)?;
        }
        ensure!(!objects.is_empty(), "{self}: there is nothing of this name in the object store");
        if let Some(key) = folder.parent().map(|above| above.join(shared)) {
            match self.find(&key)? {
                Some(object) => objects.push(object),
                None => remove_if_there(&self.copies.file(&key))?,
            }
        }
        let objects = without_folders(objects);
        self.bring(&objects)?;
        let wanted: HashSet<PathBuf> = objects.iter().map(|object| self.copies.file(&object.location)).collect();
        remove_others(&self.copies.file(&folder), &wanted)?;
        Ok(self.copies.file(self.folder()))
    }

    /// Copies some of the folder's objects, and returns the folder in which they are now.
    ///
    /// # Errors
    /// When one is not there, the store does not give it, or the disk is full.
    pub fn copy_files(&self, names: &[&str]) -> anyhow::Result<PathBuf> {
        let _only = self.copies.lock()?;
        let mut objects = self.list(self.folder())?;
        let wanted: HashSet<&str> = names.iter().copied().collect();
        objects.retain(|object| self.name_of(&object.location).is_some_and(|name| wanted.contains(name)));
        let found: HashSet<&str> = objects.iter().filter_map(|object| self.name_of(&object.location)).collect();
        if let Some(missing) = names.iter().find(|name| !found.contains(**name)) {
            anyhow::bail!("{self}/{missing}: is missing in the object store");
        }
        self.bring(&objects)?;
        Ok(self.copies.file(self.folder()))
    }

    /// Copies those objects of which there is no copy yet.
    fn bring(&self, objects: &[ObjectMeta]) -> anyhow::Result<()> {
        let notes = self.copies.notes();
        let is_here = |object: &ObjectMeta| {
            let file = fs::metadata(self.copies.file(&object.location));
            file.is_ok_and(|file| file.len() == object.size)
                && notes.get(object.location.as_ref()) == Some(&version(object))
        };
        let missing: Vec<&ObjectMeta> = objects.iter().filter(|object| !is_here(object)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let path = self.copies.notes_file();
        let notes =
            File::options().create(true).append(true).open(&path).with_context(|| path.display().to_string())?;
        let style = "{bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, ETA {eta} {msg}";
        let total = missing.iter().map(|object| object.size).sum();
        let bar = show(ProgressBar::new(total).with_style(ProgressStyle::with_template(style)?));
        bar.set_message(self.to_string());
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let work = || {
            // After a failure nothing new is begun.
            while let Some(object) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = self.bring_one(object, &notes, &bar) {
                    next.store(missing.len(), Ordering::Relaxed);
                    failed.lock().unwrap().get_or_insert(error);
                }
            }
        };
        std::thread::scope(|threads| {
            (0..AT_A_TIME.min(missing.len())).for_each(|_| drop(threads.spawn(work)));
        });
        bar.finish_and_clear();
        failed.into_inner().unwrap().map_or(Ok(()), Err)
    }

    fn bring_one(&self, object: &ObjectMeta, mut notes: &File, bar: &ProgressBar) -> anyhow::Result<()> {
        let path = self.copies.file(&object.location);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        let mut found = None;
        write_atomically_with(&path, |file| {
            let write = |bytes: &[u8]| {
                bar.inc(bytes.len() as u64);
                file.write_all(bytes)
            };
            found = Some(self.read(&object.location, write)?);
            Ok(())
        })?;
        // What was read, which may be newer than what was listed.
        let Some(found) = found else { return Ok(()) };
        let note = Note { key: found.location.to_string(), version: version(&found) };
        // In one writing, so that lines of several threads do not mix.
        notes.write_all(format!("{}\n", serde_json::to_string(&note)?).as_bytes())?;
        Ok(())
    }
}

/// Some programs put an empty object for a folder; the folder's files make it here.
fn without_folders(mut objects: Vec<ObjectMeta>) -> Vec<ObjectMeta> {
    let parents =
        |object: &ObjectMeta| std::iter::successors(object.location.parent(), Key::parent).collect::<Vec<_>>();
    let folders: HashSet<Key> = objects.iter().flat_map(parents).collect();
    objects.retain(|object| object.size > 0 || !folders.contains(&object.location));
    objects
}

/// Removes the files in `folder` that are not `wanted`.
fn remove_others(folder: &Path, wanted: &HashSet<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            remove_others(&path, wanted)?;
        } else if !wanted.contains(&path) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| path.display().to_string())
        }
        _ => Ok(()),
    }
}
