//! The files of a data set's folders: what can be read, and what cannot, by name.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::{DataError, Skipped};

/// Endings of the images that are read; the format itself is told from the content.
pub const IMAGES: [&str; 9] = ["jpg", "jpeg", "jfif", "jpe", "png", "webp", "bmp", "tif", "tiff"];
/// Folders within folders are followed this deep.
const DEPTH: usize = 12;

/// The files under a folder, by their path within it, with `/` between folders.
#[derive(Debug, Clone, Default)]
pub struct Files {
    pub found: BTreeMap<String, PathBuf>,
    /// What has another ending, a broken link, a name that is not UTF-8.
    pub others: Vec<Skipped>,
}

impl Files {
    /// The files with one of `endings` (lower case, without the dot) under `folder`.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn under(folder: &Path, endings: &[&str]) -> Result<Self, DataError> {
        let mut files = Self::default();
        files.walk(folder, "", endings, &mut HashSet::new(), 0)?;
        files.others.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// As [`under`](Self::under); nothing where there is no such folder.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn under_if_any(folder: &Path, endings: &[&str]) -> Result<Self, DataError> {
        if folder.is_dir() {
            Self::under(folder, endings)
        } else {
            Ok(Self::default())
        }
    }

    /// The files by their path without its ending.
    ///
    /// # Errors
    /// When two files differ in their ending alone.
    pub fn by_stem(self) -> Result<BTreeMap<String, PathBuf>, DataError> {
        let mut files = BTreeMap::new();
        for (name, path) in self.found {
            if let Some(twin) = files.insert(stem(&name).to_owned(), path.clone()) {
                let why = format!(
                    "{} has the same name but for its ending, so their labels cannot be told apart; rename one",
                    twin.display()
                );
                return Err(DataError::Config { path, why });
            }
        }
        Ok(files)
    }

    fn walk(
        &mut self,
        folder: &Path,
        prefix: &str,
        endings: &[&str],
        seen: &mut HashSet<PathBuf>,
        depth: usize,
    ) -> Result<(), DataError> {
        let at = |source| DataError::Io { path: folder.to_owned(), source };
        // A link to a folder above would lead round in circles.
        if !seen.insert(fs::canonicalize(folder).map_err(at)?) {
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(at)? {
            let path = entry.map_err(at)?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                self.leave_out(path, "its name is not UTF-8; rename it");
                continue;
            };
            let name = format!("{prefix}{name}");
            match fs::metadata(&path) {
                Err(_) if path.is_symlink() => self.leave_out(path, "a link that leads nowhere"),
                Err(source) => return Err(DataError::Io { path, source }),
                Ok(file) if file.is_dir() && depth == DEPTH => {
                    self.leave_out(path, &format!("a folder more than {DEPTH} folders deep"));
                }
                Ok(file) if file.is_dir() => self.walk(&path, &format!("{name}/"), endings, seen, depth + 1)?,
                Ok(file) if !file.is_file() => self.leave_out(path, "not a plain file"),
                Ok(_) if has_ending(&path, endings) => {
                    self.found.insert(name, path);
                }
                Ok(_) => {
                    let why = format!("not read: its name does not end in .{}", endings.join(", ."));
                    self.leave_out(path, &why);
                }
            }
        }
        Ok(())
    }

    fn leave_out(&mut self, path: PathBuf, reason: &str) {
        self.others.push(Skipped { path, reason: reason.to_owned() });
    }
}

/// Whether a name ends in one of `endings`, in upper or lower case.
pub fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_ascii_lowercase);
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

/// A name without its ending.
pub fn stem(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((stem, ending)) if !stem.is_empty() && !ending.contains('/') => stem,
        _ => name,
    }
}
